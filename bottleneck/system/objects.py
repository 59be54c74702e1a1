"""Objects behind a URL: list, look at, read, fetch and write them.

Who is asking and where the service lies is the business of the protocol's own settings (``AWS_ENDPOINT_URL``,
``AWS_PROFILE``, …): there are none of our own. Listings are never taken from memory, since what is behind a URL
changes without telling us. Whatever a protocol raises comes out as an OSError with a number (`connections`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from bottleneck.errors import UsageError
from bottleneck.system.addresses import LOCAL, WEB
from bottleneck.system.connections import LARGEST, as_os_error, connect, protocol_of, read_bytes, size_limit
from bottleneck.system.durable import publish_file, shown
from bottleneck.system.object_info import ObjectInfo, parse_object_info

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
#: Where folders have to be made before files; object stores know none.
_HAVE_FOLDERS = ("file", "local", "memory", "sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs")
_ABANDONED = 24 * 3600
_PIECE = 64 << 20


def is_url(text: str) -> bool:
    """Tell whether `text` is a URL and not a path.

    Examples
    --------
    >>> is_url("s3://bucket/photos"), is_url("C:\\\\photos"), is_url("photos")
    (True, False, False)
    """
    return URL.match(text) is not None


def local_path(path: str | os.PathLike[str], option: str) -> Path:
    """Give the path of `option`, and refuse a URL.

    Examples
    --------
    >>> local_path("out/features", "--out").name
    'features'
    """
    # A `Path` has lost one of the slashes.
    if re.match(URL.pattern.removesuffix("/"), os.fspath(path)):
        raise UsageError(
            f"{option} {shown(os.fspath(path))} is a URL; expected a path on this machine: give one, and copy what is "
            "written there afterwards"
        )
    return Path(path)


def join_url(url: str, name: str) -> str:
    """`url` with a relative path of plain names below it.

    Examples
    --------
    >>> join_url("s3://bucket/photos/", "a b/1.png"), join_url("https://host/photos", "a b/1.png")
    ('s3://bucket/photos/a b/1.png', 'https://host/photos/a%20b/1.png')
    """
    if protocol_of(url) in WEB:
        name = quote(name.encode("utf-8", "surrogateescape"), safe="/~!$&'()*+,;=:@")
    above = url.rstrip("/")
    return f"{url if above.endswith(':') else above + '/'}{name}"


def split_url(url: str) -> tuple[str, str]:
    """Split a URL into host or bucket and path, without its query.

    Examples
    --------
    >>> split_url("s3://bucket/a b/1.png"), split_url("https://host/a%20b?token=1"), split_url("file:///a/b")
    (('s3://bucket/', 'a b/1.png'), ('https://host/', 'a b'), ('file:///', 'a/b'))
    """
    protocol, _, rest = url.partition("://")
    web = protocol_of(url) in WEB
    host, _, path = (rest.partition("?")[0] if web else rest).partition("/")
    return f"{protocol}://{host}/", unquote(path, errors="surrogateescape") if web else path


def list_objects(url: str, allowed: Sequence[str] = ()) -> Iterator[ObjectInfo]:
    """Objects and folders directly below `url`; the order is the service's.

    Over HTTP these are the links of the page at `url`, without size and version (see `stat_object`).

    Parameters
    ----------
    url : str
    allowed : sequence of str
        Hosts that an answer may lead to besides the one that is asked (here and in the other functions).

    Raises
    ------
    OSError
        Nothing is there (ENOENT), not allowed (EACCES), no answer (ETIMEDOUT), too large (EFBIG), or whatever else
        (EIO). Its text has no secrets of the URL.
    RemoteError
        The protocol is unknown, its package is not installed, or an answer leads to a host that nobody named.

    Examples
    --------
    >>> write_object("memory://cupboard/cats/1.png", b"...")
    >>> list(list_objects("memory://cupboard"))
    [ObjectInfo(name='cats', folder=True, size=-1, tag='', modified_ns=0)]
    """
    system, path = connect(url, allowed)
    web = protocol_of(url) in WEB
    with as_os_error(url):
        listed = system.ls(path, detail=True)
    start = str(path).rstrip("/")
    folders = {str(item["name"]).rstrip("/") for item in listed if item.get("type") == "directory"}
    for item in listed:
        whole = str(item["name"])
        name = whole.rstrip("/")
        head, _, last = name.rpartition("/")
        # Not its own marker, no sort links ("?C=N") and nothing deeper; one page may link anywhere.
        if name == start or head.lstrip("/") != start.lstrip("/") or (web and ("?" in last or "#" in last)):
            continue
        if web:
            last = unquote(last, errors="surrogateescape")
            if "/" in last:
                continue
        if last in ("", ".", "..") or "\0" in last:
            continue
        folder = item.get("type") == "directory" or whole.endswith("/")
        if not folder and not item.get("size", 1) and name in folders:
            continue  # an empty object that stands for the folder
        yield ObjectInfo(last, True) if folder else parse_object_info(last, item)


def stat_object(url: str, allowed: Sequence[str] = ()) -> ObjectInfo:
    """Describe what lies at `url`. Raises as `list_objects` does.

    Examples
    --------
    >>> write_object("memory://shelf/1.png", b"...")
    >>> stat_object("memory://shelf/1.png").size, stat_object("memory://shelf").folder
    (3, True)
    """
    system, path = connect(url, allowed)
    with as_os_error(url):
        info = system.info(path)
    name = url.partition("?")[0].rstrip("/").rpartition("/")[2]
    return ObjectInfo(name, True) if info.get("type") == "directory" else parse_object_info(name, info)


def read_object(
    url: str, start: int | None = None, end: int | None = None, *, allowed: Sequence[str] = ()
) -> bytes:
    """Read one object, or its bytes from `start` to before `end`.

    Safe from several threads; never more than `LARGEST` bytes. Raises as `list_objects` does.

    Examples
    --------
    >>> write_object("memory://shelf/1.txt", b"abcdef")
    >>> read_object("memory://shelf/1.txt"), read_object("memory://shelf/1.txt", 1, 3)
    (b'abcdef', b'bc')
    """
    system, path = connect(url, allowed)
    with as_os_error(url):
        if protocol_of(url) in LOCAL:
            data = _read_file(str(path), start or 0, LARGEST + 1 if end is None else end)
        elif start is None and end is None and protocol_of(url) not in WEB:  # there the client counts
            data = _start_of(system, path)
        else:
            data = read_bytes(system, path, start, end)
        if len(data) > LARGEST:
            raise OSError(errno.EFBIG, f"more than the limit of {LARGEST:,} bytes", url)
    return data


def _start_of(system: Any, path: Any) -> bytes:
    try:
        return read_bytes(system, path, 0, LARGEST + 1)
    except (FileNotFoundError, PermissionError, TimeoutError):
        raise
    except Exception:  # services have many words for "an empty object has no first byte"
        if system.info(path).get("size") != 0:
            raise
        return b""


def _read_file(path: str, start: int, end: int) -> bytes:
    """Read part of a regular file, waiting for nobody."""
    flags = (
        os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    )
    with open(path, "rb", buffering=0, opener=lambda name, _: os.open(name, flags)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        file.seek(start)
        pieces = []
        # A piece at a time: a file may be longer than it says, and then has no end.
        while start < end and (piece := file.read(min(_PIECE, end - start))):
            pieces.append(piece)
            start += len(piece)
    return b"".join(pieces)


def read_sized_object(url: str, size: int) -> bytes:
    """Read an object of a known size, in pieces with time limits.

    Raises as `list_objects` does; ENODATA when it has another size.
    """
    if size <= _PIECE:
        data = read_object(url)
    else:
        data = b"".join(
            read_object(url, start, min(start + _PIECE, size)) for start in range(0, size, _PIECE)
        )
    if len(data) != size:
        raise OSError(errno.ENODATA, f"{len(data)} bytes came where {size} were expected", url)
    return data


def fetch_object(
    url: str,
    file: Path,
    check: Callable[[Path], None] = lambda _: None,
    *,
    allowed: Sequence[str] = (),
    most: int | None = None,
) -> bool:
    """Download one object to `file`: aside, checked, then named; the first wins.

    Parameters
    ----------
    url : str
    file : Path
    check : callable
        Is given the file under its temporary name, and raises where it is not what was meant.
    allowed : sequence of str
    most : int, optional
        Bytes after which it is given up (EFBIG).

    Returns
    -------
    bool
        False when a file of that name was there already.

    Raises
    ------
    OSError, RemoteError
        As `list_objects`; or the disk is full. Whatever `check` raises. Nothing is left under the final name.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> write_object("memory://shelf/1.txt", b"abcdef")
    >>> fetch_object("memory://shelf/1.txt", folder / "here"), (folder / "here").read_bytes()
    (True, b'abcdef')
    """
    system, path = connect(url, allowed)
    _sweep(file.parent)
    aside = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with as_os_error(url):
            system.get_file(path, str(aside), **({} if most is None else {"callback": size_limit(url, most)}))
        check(aside)
        return publish_file(aside, file)
    finally:
        aside.unlink(missing_ok=True)


def write_object(url: str, data: bytes) -> None:
    """Write one object over whatever is there. Raises as `list_objects` does."""
    system, path = connect(url)
    with as_os_error(url):
        if protocol_of(url) in _HAVE_FOLDERS:
            system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.pipe_file(path, data)


def _sweep(folder: Path) -> None:
    """Remove what downloads left that were killed a day ago."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > _ABANDONED:
                path.unlink()
