"""Lock tasks, one file each, to save work: nothing rests on it.

Removal relies on the two locks of a whole store, in `locks`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from bottleneck.store.locks import removing_if_free

_LEFTOVER = re.compile(r"\.([0-9a-f]{16})[.-].*\.tmp")


class TaskLocks:
    """A store's task locks, which the kernel frees when owners die.

    Parameters
    ----------
    folder : Path
        The store's ``locks/``; where it is not there, or locks do not work in it, every lock is granted.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> locks = TaskLocks(pathlib.Path(tempfile.mkdtemp()))
    >>> mine = locks.take("0" * 16)
    >>> locks.take("0" * 16) is None
    True
    >>> mine.release()
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, task: str, attempt: int = 0) -> TaskLock | None:
        """Lock `task` without waiting; None while another has it.

        `attempt` counts how often the owner's time ran out: those who then take over keep one another away too.
        """
        from filelock import FileLock, Timeout

        path = self._folder / (f"{task}.{attempt}.lock" if attempt else f"{task}.lock")
        if not self._folder.is_dir():
            return TaskLock(None, path)
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        except (OSError, NotImplementedError):
            return TaskLock(None, path)
        return TaskLock(lock.release, path)

    def sweep(self, folders: Iterable[Path]) -> None:
        """Remove temporaries in `folders` of tasks that nobody has locked.

        While somebody commits none is removed: not every writer locks a task, and the next sweep comes.
        """
        leftovers = [(folder, match) for folder in folders for match in _leftovers(folder)]
        if not leftovers:
            return
        with removing_if_free(self._folder.parent) as locked:
            for folder, match in leftovers if locked else ():
                if (lock := self.take(match[1])) is not None:
                    with contextlib.suppress(OSError):
                        os.unlink(folder / match[0])
                    lock.release(settled=True)


def _leftovers(folder: Path) -> list[re.Match[str]]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [match for name in names if (match := _LEFTOVER.fullmatch(name)) is not None]


class TaskLock:
    """A lock that is taken, or granted where there are no locks."""

    def __init__(self, release: Callable[[], None] | None, path: Path) -> None:
        self._release, self._path = release, path

    def release(self, *, settled: bool = False) -> None:
        """Unlock; with `settled` remove the file too, since the work is done."""
        if self._release is None:
            return
        with contextlib.suppress(OSError):
            if settled:
                os.unlink(self._path)
            self._release()

    def __enter__(self) -> TaskLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
