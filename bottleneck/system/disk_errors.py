"""Say which file a disk error is about, and what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

#: What helps, by error number.
_ADVICE: Mapping[int, str] = {
    errno.ENOSPC: "free space or inodes there, or give a folder on another disk",
    errno.EDQUOT: "free some of your quota there, or give a folder on another disk",
    errno.EROFS: "make it writable, or give another folder",
    errno.EACCES: "make it accessible to you, or give another folder",
    errno.EPERM: "make it accessible to you, or give another folder",
    errno.EIO: "look at the disk and its mount (`dmesg`) before you trust it again",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`), or give a folder on another disk",
}


@contextlib.contextmanager
def about(path: str | os.PathLike[str], aside: str | os.PathLike[str] = "") -> Iterator[None]:
    """Name `path` in an `OSError` that names no file.

    Those of writes and syncs name none. One about the temporary `aside`, or a file below it, is about `path`, or that
    file below it, for whoever reads it.

    Examples
    --------
    >>> try:
    ...     with about("features.npy"):
    ...         raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    ... except OSError as error:
    ...     print(error)
    [Errno 28] No space left on device: 'features.npy'
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.filename2 is None and error.errno is not None:
            error.filename = os.fspath(path)
        for name in ("filename", "filename2") if aside else ():
            named = getattr(error, name)
            if isinstance(named, str | bytes) and Path(os.fsdecode(named)).is_relative_to(aside):
                setattr(error, name, str(path / Path(os.fsdecode(named)).relative_to(aside)))
        raise


def refusal(error: OSError) -> str:
    """Say what was refused, of which file, and what to do.

    Examples
    --------
    >>> refusal(OSError(errno.EROFS, "Read-only file system", "/srv/model.keras"))
    'Read-only file system: /srv/model.keras; make it writable, or give another folder'
    """
    # A file that could not be renamed is named twice; the second is the name that it should have got.
    named = error.filename2 if error.filename2 is not None else error.filename
    where = "" if named is None or isinstance(named, int) else f": {os.fsdecode(named)}"
    advice = _advice(error, os.fsdecode(named) if where else "")
    return f"{error.strerror or error}{where}" + (f"; {advice}" if advice else "")


def _advice(error: OSError, named: str) -> str:
    if isinstance(error, FileNotFoundError) and "temporary directory" in str(error.strerror):
        return "free space in one of them, or set TMPDIR to a folder that has some"
    advice = _ADVICE.get(error.errno or 0, "")
    if not advice:
        return ""
    if not named:
        # Libraries that write for us do not always say which file it was.
        return f"it is not said of which file: look at --out, --run, --cache and {_temporary()}, {advice}"
    if Path(os.path.abspath(named)).is_relative_to(os.path.abspath(_temporary())):
        return f"{advice} (TMPDIR says where temporary files go)"
    return advice


def _temporary() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:  # no folder for temporary files can be written
        return os.environ.get("TMPDIR", "/tmp")
