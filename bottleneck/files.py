"""Getting bytes onto a disk so that they are there or not there, never half there."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import unicodedata
from pathlib import Path

_SAFE = re.compile(r"[^A-Za-z0-9_.]+")


def publish(path: Path, data: bytes | memoryview, *, replace: bool = False) -> bool:
    """Write `data` aside, make it durable, and give it its name in one step.

    Temporary in the same folder (O_EXCL, O_NOFOLLOW), preallocated where the system can, written whole, fsynced;
    then linked to its final name, so that a file already there wins; then the folder is fsynced. After a failed
    fsync the temporary is removed and the failure raised: a second fsync of the same pages could lie.

    Parameters
    ----------
    path : Path
        Final name; its folder must exist.
    data : bytes or memoryview
    replace : bool
        Replace a file of that name (configuration, never features). Default False: the first one wins.

    Returns
    -------
    bool
        True when this call made the file, False when one was already there.

    Raises
    ------
    OSError
        Disk full, quota, read-only, input/output error. Nothing is left under the final name.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "note"
    >>> publish(target, b"first"), publish(target, b"second"), target.read_bytes()
    (True, False, b'first')
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666)
    try:
        try:
            _write_durably(descriptor, memoryview(data).cast("B"))
        finally:
            os.close(descriptor)
        made = _name(temporary, path, replace=replace)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    sync_folder(path.parent)
    return made


def _write_durably(descriptor: int, data: memoryview) -> None:
    if len(data) and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, len(data))
        except OSError as error:
            import errno

            # File systems without preallocation say so; a full disk says so too, and that one counts.
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    written = 0
    while written < len(data):
        written += os.write(descriptor, data[written : written + (1 << 30)])
    os.fsync(descriptor)


def _name(temporary: Path, path: Path, *, replace: bool) -> bool:
    if replace:
        os.replace(temporary, path)
        return True
    try:
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError:
        # No hard links here (FAT, some network mounts): look, then rename. The look and the rename are two steps,
        # and two builders of one task make equal bytes, so the loser of that race replaces a file by itself.
        if os.path.lexists(path):
            return False
        os.rename(temporary, path)
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (a no-op where folders cannot be opened, as on Windows)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except (PermissionError, IsADirectoryError):
        if os.name == "nt":
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def safe_name(text: str, *, longest: int = 40) -> str:
    """A file-name part from free text: ASCII letters, digits, ``_`` and ``.``; never empty, never a dot file.

    Examples
    --------
    >>> safe_name("vgg16/block5 pool"), safe_name("..")
    ('vgg16_block5_pool', 'x')
    """
    return _SAFE.sub("_", text).strip("._")[:longest] or "x"


def shown(path: bytes | str) -> str:
    """A path as a person may see it: control, bidirectional and undecodable characters escaped, on one line.

    Examples
    --------
    >>> shown(b"cats/new\\nline-\\xff.png")
    'cats/new\\\\nline-\\\\xff.png'
    """
    text = path.decode("utf-8", "backslashreplace") if isinstance(path, bytes) else path
    return "".join(_escape(c) for c in text)


def _escape(character: str) -> str:
    # C*: control, format (bidi marks), surrogate, unassigned; Zl and Zp break lines.
    if unicodedata.category(character)[0] == "C" or unicodedata.category(character) in ("Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character
