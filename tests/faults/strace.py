"""Work in a forked process that strace is attached to: killed before, or refused, its n-th call of a kind.

Nothing is imported anew, so a trial takes a tenth of a second; only the thread that works is counted.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from bottleneck.system.disk_errors import refusal
from tests.faults.command_runs import wait_until

#: Calls that change names or files, or wait for others who do.
CALLS = (
    "openat,mkdir,mkdirat,write,pwrite64,fallocate,fsync,fdatasync,link,linkat,rename,renameat,renameat2,unlink,"
    "unlinkat,rmdir,flock,ftruncate"
)
#: Those that a full disk can refuse.
ASK_FOR_ROOM = ("openat", "mkdir", "write", "fallocate", "fsync", "link", "linkat", "rename", "renameat2")

DONE, REFUSED, BROKEN = 0, 3, 4


def forked(work: Callable[[], object]) -> tuple[int, Callable[[], None], Callable[[], tuple[int, str]]]:
    """A process that waits to begin with `work`; its id, what lets it begin, what waits for its status and words."""
    go_out, go_in = os.pipe()
    said_out, said_in = os.pipe()
    with warnings.catch_warnings():
        # Threads of numerical libraries sleep; the child only reads and writes files.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        status = BROKEN
        try:
            os.close(go_in)
            os.read(go_out, 1)
            work()
            status = DONE
        except OSError as error:
            # Not `write`, which may be what is refused.
            os.writev(said_in, [refusal(error).encode()])
            status = REFUSED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(go_out)
    os.close(said_in)

    def begin() -> None:
        os.write(go_in, b"x")
        os.close(go_in)

    def wait() -> tuple[int, str]:
        with os.fdopen(said_out) as said:
            words = said.read()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), words

    return child, begin, wait


def attached(work: Callable[[], object], log: Path, inject: str = "") -> tuple[int, str]:
    """Run `work` with one injection; its exit status (negative: killed), and what it said of a refusal."""
    child, begin, wait = forked(work)
    rules = ["-e", f"inject={inject}"] if inject else []
    strace = subprocess.Popen(
        ["strace", "-qq", "-o", str(log), "-e", f"trace={CALLS}", *rules, "-p", str(child)],
        stderr=sys.stderr,
    )
    status = Path(f"/proc/{child}/status")
    wait_until(lambda: not re.search(r"TracerPid:\t0\n", status.read_text()) or strace.poll() is not None)
    begin()
    ended = wait()
    strace.wait(timeout=300)
    return ended


def calls_of(log: Path) -> list[tuple[str, int]]:
    """Every call that was made: name, and number among those of that name, from 1."""
    count: dict[str, int] = {}
    found = []
    for line in log.read_text().splitlines():
        call, paren, _ = line.partition("(")
        if paren and call.isidentifier():
            count[call] = count.get(call, 0) + 1
            found.append((call, count[call]))
    return found
