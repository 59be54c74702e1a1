"""Work in a process of its own that is killed with SIGKILL just before its n-th step on the disk."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable

_STEPS = ("link", "unlink", "replace", "fsync", "write", "open")


def steps_of(work: Callable[[], object]) -> int:
    """How many steps `work` takes when nobody disturbs it (in a process of its own)."""
    reader, writer = os.pipe()
    child = _fork()
    if not child:
        count = _counting(None)
        work()
        os.dup2(writer, 1)
        _real_write(1, str(count[0]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        steps = int(answer.read())
    assert os.waitpid(child, 0)[1] == 0
    return steps


def kill_at(step: int, work: Callable[[], object]) -> None:
    """Run `work` in a process of its own until just before its step number `step`, counted from 0."""
    child = _fork()
    if not child:
        _counting(step)
        try:
            work()
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"step {step} never came"


_real_write = os.write


def _counting(last: int | None) -> list[int]:
    count = [0]

    def wrapped(real: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object, **options: object) -> object:
            if count[0] == last:
                os.kill(os.getpid(), signal.SIGKILL)
            count[0] += 1
            return real(*arguments, **options)

        return step

    for name in _STEPS:
        setattr(os, name, wrapped(getattr(os, name)))
    return count


def _fork() -> int:
    with warnings.catch_warnings():
        # Threads of numerical libraries sleep; the child only reads and writes files.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
