"""Commands run and watched: their time, their memory, their last words.

Peak memory adds up the high-water marks of resident memory of a command and of all that it started and that lives at
the same time, read four times a second. Pages that processes share count once for each: the sum errs upwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 1 << 20


@dataclass(frozen=True)
class Watched:
    """A finished command: times, peak memory, number of processes.

    Processor time says more than wall time on a machine that others use too.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float
    processes: int
    output: str
    errors: str

    def figures(self) -> dict[str, float]:
        """What is kept of it."""
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "peak_mib": self.peak_mib}

    def json(self) -> Any:
        """The last line of its standard output."""
        return json.loads(self.output.strip().splitlines()[-1])


class CommandFailed(Exception):
    """A command ended badly; its last words are in the message."""


def watched(
    command: Sequence[str], *, timeout: float, extra: dict[str, str] | None = None, cwd: Path | None = None
) -> Watched:
    """Run `command`, sampling the memory of its process tree. Raises `CommandFailed`."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(extra or {})}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        before = processor_time()
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, cwd=cwd
        )
        tree = _Tree(process.pid)
        try:
            status = process.wait(timeout)
        except BaseException as error:
            _end(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise CommandFailed(f"not done after {timeout:g} s: {_named(command)}") from error
            raise
        finally:
            seconds = time.perf_counter() - started
            tree.stop()
        out.seek(0)
        err.seek(0)
        output, errors = out.read().decode("utf-8", "replace"), err.read().decode("utf-8", "replace")
    if status:
        last = "\n".join((errors or output).strip().splitlines()[-12:])
        raise CommandFailed(f"exit status {status}: {_named(command)}\n{last}")
    cpu = processor_time() - before
    return Watched(seconds, cpu, tree.peak / MIB, len(tree.seen), output, errors)


def processor_time() -> float:
    """Return usage of all processes that this one waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _named(command: Sequence[str]) -> str:
    return " ".join(Path(part).name if part.startswith(os.sep) else part for part in command)


def _end(process: subprocess.Popen[bytes]) -> None:
    # Politely first: our command then ends its worker, which lives in a session of its own.
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Tree:
    """Samples a process and its descendants until told to stop."""

    def __init__(self, pid: int) -> None:
        self.peak, self.seen = 0, {pid}
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            members = descendants(self._pid)
            self.seen |= members
            self.peak = max(self.peak, sum(high_water(pid) for pid in members))


def descendants(root: int) -> set[int]:
    """A process and all that it started and that live, by number."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
                parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    found = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def high_water(pid: int) -> int:
    """Return the peak memory of a process, or 0."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0
