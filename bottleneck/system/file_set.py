"""Name files in a folder as one set, never mixed with another."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from bottleneck.system.durable import NO_LOCKS, sync_folder, sync_tree
from bottleneck.system.staging import LOCK

#: In a room: what `take_names` needs besides the files themselves.
_NOTES = ".set"

#: A room whose set is decided; the middle is the name of its leading file.
_READY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.ready", re.DOTALL)


@contextlib.contextmanager
def naming_lock(folder: Path) -> Iterator[None]:
    """Lock `folder`, so that only the caller names a set there.

    A set that a killed process had decided is finished first.

    Raises
    ------
    OSError
        The folder is missing or cannot be written.
    """
    with _locked(folder):
        for ready, lead in _decided(folder):
            _finish(ready, folder, lead)
        yield


def take_names(room: Path, folder: Path, lead: str, *, gone: Iterable[str] = ()) -> None:
    """Give everything in `room` its name in `folder`, as one set.

    The caller holds its `naming_lock`.

    No system gives several files their names in one step where the folder has to stay. So the new files are made
    durable aside, and one rename of their room decides that they count. Then the old leading file goes, the others
    take their names, and the new leading file comes last: a reader finds the old files, the new ones, or no leading
    file, and never some of each. After a kill behind the decision, the next `naming_lock` or `settle` goes on from
    there; before it, nothing has happened. All space on the disk is taken before the decision.

    Parameters
    ----------
    room : Path
        From `room_beside(folder / lead)`, filled.
    folder : Path
    lead : str
        The file without which the others are not read.
    gone : iterable of str
        Files of the old set that the new one does not have.

    Raises
    ------
    OSError
        Nothing has happened; or the disk failed after the decision, and the new files have their names.

    Examples
    --------
    >>> import tempfile
    >>> from bottleneck.system.staging import room_beside
    >>> folder = Path(tempfile.mkdtemp())
    >>> with room_beside(folder / "matrix") as room:
    ...     _ = (room / "matrix").write_text("rows"), (room / "table").write_text("names")
    ...     with naming_lock(folder):
    ...         take_names(room, folder, "matrix")
    >>> sorted(path.name for path in folder.iterdir())
    ['matrix', 'table']
    """
    new = [name for name in os.listdir(room) if name not in (LOCK, _NOTES)]
    for name in new:
        _check_kind(room / name, folder / name)
    marks = room / _NOTES / "gone"
    marks.mkdir(parents=True)
    for name in gone:
        (marks / name).touch()
    sync_tree(room)
    ready = room.with_suffix(".ready")
    try:
        os.rename(room, ready)
        sync_folder(folder)
        _finish(ready, folder, lead)
    except BaseException:
        # Half of two sets is worse than the new set, so it is finished; the caller learns of the failure all the same.
        if ready.exists():
            with contextlib.suppress(OSError):
                _finish(ready, folder, lead)
        raise


def settle(folder: Path) -> bool:
    """Finish what a killed process had decided in `folder`.

    False where there was nothing to finish. A reader that misses a leading file calls this and looks again; it waits
    for a living process.

    Raises
    ------
    OSError
        This user cannot finish it.
    """
    if not _decided(folder):
        return False
    with naming_lock(folder):
        return True


def _decided(folder: Path) -> list[tuple[Path, str]]:
    """Find the rooms whose sets are decided, with their leading files."""
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [(folder / name, match[1]) for name in names if (match := _READY.fullmatch(name))]


def _finish(ready: Path, folder: Path, lead: str) -> None:
    """Name what is still in `ready`; a killed call can be repeated."""
    first, notes = ready / lead, ready / _NOTES
    rest = sorted(name for name in os.listdir(ready) if name not in (LOCK, _NOTES, lead))
    marks = notes / "gone"
    gone = sorted(os.listdir(marks)) if marks.is_dir() else []
    # While the new leading file is here, the one that has its name is the old set's.
    if os.path.lexists(first) and (rest or gone) and os.path.lexists(folder / lead):
        os.unlink(folder / lead)
        sync_folder(folder)
    for name in gone:
        (folder / name).unlink(missing_ok=True)
        os.unlink(marks / name)
    for name in rest:
        if (ready / name).is_dir() and (folder / name).is_dir():
            # A folder cannot be renamed over another.
            was = notes / "was"
            shutil.rmtree(was, ignore_errors=True)
            os.rename(folder / name, was)
        os.replace(ready / name, folder / name)
    sync_folder(folder)
    if os.path.lexists(first):
        os.replace(first, folder / lead)
        sync_folder(folder)
    shutil.rmtree(ready, ignore_errors=True)


def _check_kind(new: Path, old: Path) -> None:
    if not os.path.lexists(old) or new.is_dir() == (old.is_dir() and not old.is_symlink()):
        return
    if new.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file of that name is there", str(old))
    raise IsADirectoryError(errno.EISDIR, "a folder of that name is there", str(old))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder itself, or a file where folders have no locks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            by_file = False
        except OSError as error:
            # NFS locks only what is open for writing, which a folder never is; other mounts know no locks of folders.
            if error.errno not in NO_LOCKS:
                raise
            by_file = True
        if by_file:
            from filelock import FileLock

            with FileLock(folder / ".names.lock"):
                yield
        else:
            yield
    finally:
        os.close(descriptor)
