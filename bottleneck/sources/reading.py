"""Read one file safely: regular, at any depth, within bounds, never blocking."""

from __future__ import annotations

import errno
import os
import stat

from bottleneck.errors import Rejected
from bottleneck.schema import Signature
from bottleneck.sources.volumes import NOWHERE
from bottleneck.system import connections

#: No image file is larger; what is, is not read into memory (an archive can declare any size it likes).
LARGEST = connections.LARGEST

#: Longest path that is handed to the kernel whole: PATH_MAX is 4,096 with room for one more name.
LONGEST = 3800
_O_BINARY = getattr(os, "O_BINARY", 0)
FILE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | _O_BINARY
FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)

#: Signature of an entry that could be listed but not looked at; never equal to one on record.
UNSEEN = Signature(-1, 0, 0, 0, NOWHERE)
_INT64 = (1 << 63) - 1


def signature(status: os.stat_result, volume: int) -> Signature:
    """Make the signature of a file on `volume`, in 64-bit signed numbers.

    A time of zero is none: some tool set it, as it would set it for other bytes. Such a file lies `NOWHERE`, so that
    it is read at every scan.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     before = signature(os.stat(file.name), 5)
    ...     os.utime(file.name, (0, 0))
    ...     before.volume, signature(os.stat(file.name), 5).volume
    (5, 0)
    """
    return Signature(
        status.st_size,
        max(-_INT64, min(_INT64, status.st_mtime_ns)),
        max(-_INT64, min(_INT64, status.st_ctime_ns)),
        status.st_ino & _INT64,
        volume if status.st_mtime_ns and status.st_ctime_ns else NOWHERE,
    )


def is_long(path: bytes) -> bool:
    """Test whether `path` plus one more name may exceed the kernel's limit."""
    return len(path) > LONGEST


def open_long(path: bytes, flags: int) -> int:
    """Open a path of any length, folder after folder where needed.

    The caller closes the descriptor. Raises OSError.
    """
    if not is_long(path):
        return os.open(path, flags)
    here: int | None = None
    rest = path
    try:
        while is_long(rest):
            cut = rest.rindex(b"/", 0, LONGEST)
            step = os.open(rest[:cut] or b"/", FOLDER, dir_fd=here)
            if here is not None:
                os.close(here)
            here, rest = step, rest[cut + 1 :]
        return os.open(rest, flags, dir_fd=here)
    finally:
        if here is not None:
            os.close(here)


def read_regular(path: bytes, *, largest: int = LARGEST) -> bytes:
    """Read all bytes of a regular file; links are followed.

    Parameters
    ----------
    path : bytes
        Absolute, of any length.
    largest : int
        Size from which a file is refused.

    Raises
    ------
    OSError
        As the system says it.
    Rejected
        The path is now a folder, a FIFO or a device (opened without blocking and closed at once), or the file
        is larger than `largest`.

    Examples
    --------
    >>> import os, tempfile
    >>> name = os.path.join(os.fsencode(tempfile.mkdtemp()), b"x")
    >>> with open(name, "wb") as file:
    ...     _ = file.write(b"abc")
    >>> read_regular(name)
    b'abc'
    """
    descriptor = open_long(path, FILE)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Rejected("read", "not a regular file", retry=True)
        if status.st_size > largest:
            raise too_large(status.st_size, largest)
        parts: list[bytes] = []
        held = 0
        # The size is a hint: the file may grow or shrink under us, and /proc and some mounts say 0.
        while block := os.read(descriptor, max(1 << 16, status.st_size - held + 1)):
            held += len(block)
            if held > largest:
                raise too_large(held, largest)
            parts.append(block)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(descriptor)


def too_large(size: int, largest: int = LARGEST) -> Rejected:
    """Make the rejection of a file that is over the size limit."""
    return Rejected("read", f"{size:,} bytes, more than the limit of {largest:,}", retry=True)


def reason_of(error: OSError) -> str:
    """Put an OSError in a few words, without its path."""
    if error.errno == errno.ENOENT:
        return "vanished between the listing and the reading"
    return (error.strerror or str(error) or type(error).__name__).lower()
