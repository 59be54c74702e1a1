"""One lock file a task. Locks save work; nothing rests on them: where they fail, what is undone is done.

What removal rests on are the two locks of a whole store, in `housekeeping`.
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
    """The lock files of a store: freed by the kernel when their owner dies, on this host or another.

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
        """The lock of `task`, None while another holds it; never waits.

        `attempt` counts how often the owner's time ran out: those who then take over lock one another out too.
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
        """Remove temporaries that dead builders left in `folders`: those of tasks that nobody holds.

        While somebody commits nothing is: not every writer holds a task's lock, and the next sweep comes.
        """
        found = [(folder, match) for folder in folders for match in _leftovers(folder)]
        if not found:
            return
        with removing_if_free(self._folder.parent) as alone:
            for folder, match in found if alone else ():
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
    """A lock that is held, or a granted one where there are no locks."""

    def __init__(self, release: Callable[[], None] | None, path: Path) -> None:
        self._release, self._path = release, path

    def release(self, *, settled: bool = False) -> None:
        """Let go. With `settled` the file goes too: whoever takes that lock next finds the work done."""
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
