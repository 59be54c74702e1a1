"""Put bytes on a disk whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import hashlib
import os
import secrets
import unicodedata
from pathlib import Path

from bottleneck.system.addresses import redact_text
from bottleneck.system.disk_errors import about

#: With these a file system says that it has no locks; never that one is taken.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)


def publish(path: Path, data: bytes | memoryview, *, replace: bool = False) -> bool:
    """Write `data` aside, make it durable, and name it in one step.

    Temporary in the same folder (O_EXCL, O_NOFOLLOW), preallocated where the system can, written whole, fsynced;
    then linked to its final name, so that a file already there wins (where links are refused: a rename that does
    not replace); then the folder is fsynced. After a failed fsync the temporary is removed and the failure raised:
    a second fsync of the same pages could lie. A temporary that is swept away under way is written once more.

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
    try:
        is_new = _publish(path, data, replace=replace)
    except FileNotFoundError:
        # Another process took the temporary for a leftover. Once is bad luck; twice is a folder that is gone.
        if not replace and os.path.lexists(path):
            return False
        is_new = _publish(path, data, replace=replace)
    sync_folder(path.parent)
    return is_new


def _publish(path: Path, data: bytes | memoryview, *, replace: bool) -> bool:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with about(path, temporary):
        descriptor = os.open(temporary, flags, 0o666)
        try:
            try:
                _write_durably(descriptor, memoryview(data).cast("B"))
            finally:
                os.close(descriptor)
            return _name(temporary, path, replace=replace)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def publish_file(temporary: Path, path: Path) -> bool:
    """Make `temporary`, beside `path`, durable and name it; the first one wins.

    Returns
    -------
    bool
        False when a file of that name was there already. `temporary` is gone either way.

    Raises
    ------
    OSError
        As `publish`.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "aside").write_bytes(b"whole")
    >>> publish_file(folder / "aside", folder / "name"), [path.name for path in folder.iterdir()]
    (True, ['name'])
    """
    with about(path, temporary):
        descriptor = os.open(temporary, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        is_new = _name(temporary, path, replace=False)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    sync_folder(path.parent)
    return is_new


def _write_durably(descriptor: int, data: memoryview) -> None:
    if len(data) and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, len(data))
        except OSError as error:
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
        return True
    except FileExistsError:
        # A network mount may answer a repeated request, whose first try was done, with "exists".
        return os.path.samestat(os.lstat(temporary), os.lstat(path))
    except OSError as error:
        # FAT, some network mounts and containers have no hard links. Every other failure is a failure.
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EXDEV, errno.EOPNOTSUPP):
            raise
    return _rename(temporary, path)


def _renameat2(one: Path, other: Path, how: int) -> int:
    """Rename in one step as `how` says; 0 or the error number."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # not Linux, or an old C library
        return errno.ENOSYS
    here = -100
    return ctypes.get_errno() if renameat2(here, os.fsencode(one), here, os.fsencode(other), how) else 0


def _rename(temporary: Path, path: Path) -> bool:
    no_replace = 1
    number = _renameat2(temporary, path, no_replace)
    if not number:
        return True
    if number == errno.EEXIST:
        return False
    if number not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV):
        raise OSError(number, os.strerror(number), str(path))
    # Look, then rename. These are two steps, and two builders of one task make equal bytes, so the loser of that
    # race replaces a file by itself.
    if os.path.lexists(path):
        return False
    os.rename(temporary, path)
    return True


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal.

    Raises
    ------
    OSError
        It is not there or cannot be read; nor is a pipe, which nobody may ever write to.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "file"
    >>> _ = path.write_bytes(b"abc")
    >>> sha256_of(path)[:8]
    'ba7816bf'
    """
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "no file is there", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, where folders can be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except (PermissionError, IsADirectoryError):
        if os.name == "nt":
            return
        raise
    try:
        with about(folder):
            os.fsync(descriptor)
    except OSError as error:
        # Some network mounts have no fsync of folders, and say that it cannot be, not that it failed.
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make every file below `folder`, and every name, durable."""
    for place, _, names in os.walk(folder):
        for name in names:
            file = os.path.join(place, name)
            descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                with about(file):
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(place))


def swap(new: Path, target: Path) -> Path | None:
    """Give the folder `new` the name `target` in the same parent.

    Where the system can exchange two names it is one step, so that at every moment a whole folder is there. Elsewhere
    it is two renames: killed between them, the folder that was there lies beside under the name that `recover` looks
    for.

    Returns
    -------
    Path or None
        Where the folder that had the name lies now; None where there was none.

    Raises
    ------
    OSError
        Nothing was changed.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp())
    >>> (place / "old").mkdir(), (place / "new").mkdir(), (place / "new" / "file").touch()
    (None, None, None)
    >>> was = swap(place / "new", place / "old")
    >>> [path.name for path in (place / "old").iterdir()], list(was.iterdir())
    (['file'], [])
    """
    if not os.path.lexists(target):
        os.rename(new, target)
        sync_folder(target.parent)
        return None
    exchange = 2
    number = _renameat2(new, target, exchange)
    if not number:
        sync_folder(target.parent)
        return new
    if number not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV):
        raise OSError(number, os.strerror(number), str(target))
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.was")
    os.rename(target, aside)
    try:
        os.rename(new, target)
    except BaseException:
        os.rename(aside, target)
        raise
    sync_folder(target.parent)
    return aside


def recover(target: Path) -> bool:
    """Undo a `swap` that was killed half way; True if one was."""
    left = sorted(target.parent.glob(f".{glob.escape(target.name)}.????????.was"))
    if os.path.lexists(target) or len(left) != 1:
        return False
    os.rename(left[0], target)
    sync_folder(target.parent)
    return True


def shown(path: bytes | str) -> str:
    """Write a path or URL on one line, for a person.

    Control, bidirectional and undecodable characters are escaped; a URL's passwords and signatures are left out.

    Examples
    --------
    >>> shown(b"cats/new\\nline-\\xff.png")
    'cats/new\\\\nline-\\\\xff.png'
    """
    text = path.decode("utf-8", "backslashreplace") if isinstance(path, bytes) else path
    if "://" in text:
        text = redact_text(text)
    return "".join(_escape(c) for c in text)


def _escape(character: str) -> str:
    # C*: control, format (bidi marks), surrogate, unassigned; Zl and Zp break lines.
    if unicodedata.category(character)[0] == "C" or unicodedata.category(character) in ("Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character
