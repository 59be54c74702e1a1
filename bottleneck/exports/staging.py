"""A folder that is made aside and gets its name in one step, or leaves whatever was there untouched."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from bottleneck.files import recover, swap, sync_tree

#: Held by whoever fills a staging folder; the system frees it when its holder dies.
_LOCK = ".lock"


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder beside `target` to fill; on leaving without error it takes that name, and what had it is removed.

    Until that one step `target` is not touched, whatever happens: an error, a full disk, a kill. What killed processes
    left beside `target` is swept away first.

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
    with room_beside(target) as folder:
        yield folder
        sync_tree(folder)
        was = swap(folder, target)
        # The lock moved with its folder; it is freed by its descriptor, whatever its name is now.
        (target / _LOCK).unlink(missing_ok=True)
        if was is not None:
            shutil.rmtree(was, ignore_errors=True)


@contextlib.contextmanager
def room_beside(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that goes away on leaving; what killed processes left there is swept away first.

    Yields
    ------
    Path
        On the file system of `target`, whose own folder must be there.
    """
    from filelock import FileLock

    sweep(target)
    folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}.making")
    folder.mkdir()
    try:
        with FileLock(folder / _LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(target: Path) -> None:
    """Put back what a kill took from `target`, and remove what killed processes left beside it."""
    from filelock import FileLock, Timeout

    recover(target)
    beside = f".{glob.escape(target.name)}.????????."
    left = [*target.parent.glob(f"{beside}making")]
    if os.path.lexists(target):
        left += target.parent.glob(f"{beside}was")
    for folder in left:
        # Somebody who is at work holds the lock; anything else that keeps us from it is none of ours to remove.
        with contextlib.suppress(Timeout, OSError):
            with FileLock(folder / _LOCK, timeout=0):
                pass
            shutil.rmtree(folder, ignore_errors=True)
