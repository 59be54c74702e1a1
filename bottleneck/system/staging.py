"""Write a file or folder aside and name it in one step."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from bottleneck.system.disk_errors import about
from bottleneck.system.durable import recover, swap, sync_folder, sync_tree

#: A process that fills a folder aside locks this file; the system frees the lock when the process dies.
LOCK = ".lock"


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Give a folder to fill that takes the name `target` on leaving.

    What had that name is then removed. Until that one step `target` is not touched, whatever happens: an error, a full
    disk, a kill. What killed processes left beside `target` is swept away first, here and in `room_beside`.

    Parameters
    ----------
    target : Path
        A folder, or nothing yet. Its parents are made.

    Yields
    ------
    Path
        Empty, on the file system of `target`.

    Raises
    ------
    OSError
        It cannot be written here.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "export"
    >>> with staged(target) as folder:
    ...     _ = (folder / "model").write_text("whole")
    ...     target.exists()
    False
    >>> sorted(path.name for path in target.parent.rglob("*"))
    ['export', 'model']
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with room_beside(target, becomes=target) as folder:
        yield folder
        sync_tree(folder)
        was = swap(folder, target)
        # The lock moved with its folder; it is freed by its descriptor, whatever its name is now.
        (target / LOCK).unlink(missing_ok=True)
        if was is not None:
            shutil.rmtree(was, ignore_errors=True)


@contextlib.contextmanager
def room_beside(target: Path, *, becomes: Path | None = None) -> Iterator[Path]:
    """Give an empty folder beside `target` that goes away on leaving.

    Parameters
    ----------
    target : Path
    becomes : Path, optional
        The place that errors name for files of the room: by default the folder of `target`.

    Yields
    ------
    Path
        On the file system of `target`, whose own folder must be there.
    """
    sweep(target)
    folder, release = _locked_room(target)
    try:
        # The user does not know the name of the room, and it is gone when the error is read.
        with about(becomes or target.parent, folder), about(target):
            yield folder
    finally:
        release()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """Give a path that takes the name `target` on leaving.

    Yields
    ------
    Path
        In a temporary folder beside `target`, which is removed with whatever else is in it. An exception inside
        leaves `target` as it was.

    Raises
    ------
    OSError
        The disk refuses.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "model"
    >>> with written_aside(target) as path:
    ...     _ = path.write_text("whole")
    >>> target.read_text(), [path.name for path in target.parent.iterdir()]
    ('whole', ['model'])
    """
    with room_beside(target) as room:
        aside = room / target.name
        yield aside
        if aside.is_dir():
            sync_tree(aside)
            if target.is_symlink() or (target.exists() and not target.is_dir()):
                raise NotADirectoryError(errno.ENOTDIR, "a file of that name is there", str(target))
            previous = swap(aside, target)
            if previous is not None:
                shutil.rmtree(previous, ignore_errors=True)
        else:
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(aside, target)
            sync_folder(target.parent)


def _locked_room(target: Path) -> tuple[Path, Callable[[], None]]:
    """Make and lock a folder beside `target`; also give its release."""
    from filelock import FileLock

    while True:
        folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}.making")
        with about(target, folder):
            folder.mkdir()
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire()
            # Until it was locked, a `sweep` could take it for a leftover.
            if (folder / LOCK).exists():
                return folder, lock.release
        except (FileNotFoundError, FileExistsError):
            pass  # swept, while it was being locked
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            error.filename = str(target)
            raise
        lock.release()


def sweep(target: Path) -> None:
    """Restore what a kill took from `target`, and remove its leftovers."""
    from filelock import FileLock, Timeout

    recover(target)
    beside = f".{glob.escape(target.name)}.????????."
    left = [*target.parent.glob(f"{beside}making")]
    if os.path.lexists(target):
        left += target.parent.glob(f"{beside}was")
    for folder in left:
        # A process at work holds the lock; whatever else keeps us from it is not ours to remove.
        with contextlib.suppress(Timeout, OSError), FileLock(folder / LOCK, timeout=0):
            # Under the lock: a process that has just made this folder sees that it is gone, and makes another.
            shutil.rmtree(folder, ignore_errors=True)
