"""A file or folder written aside, and given its name when it is whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from bottleneck.system.durable import swap, sync_folder, sync_tree
from bottleneck.system.staging import room_beside


@contextlib.contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """A path to write to, of the same name in a temporary folder beside `target`; on leaving, it takes the name.

    Yields
    ------
    Path
        Nothing is there yet. The temporary folder has room for more, which goes away with it. An exception inside
        leaves what was at `target` before as it was.

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
