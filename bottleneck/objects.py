"""Objects behind a URL: list, look at, read, fetch and write them. The only door to fsspec.

Who is asking and where the service lies is the business of the protocol's own settings (``AWS_ENDPOINT_URL``,
``AWS_PROFILE``, …): there are none of our own. Listings are never taken from memory, since what is behind a URL
changes without telling us. Whatever a protocol raises comes out as an OSError with a number (`object_errors`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from bottleneck.errors import RemoteError
from bottleneck.files import publish_file, shown
from bottleneck.object_errors import as_os_error
from bottleneck.object_facts import Found, described

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_HTTP = ("http", "https")
#: Where folders have to be made before files; object stores know none.
_HAVE_FOLDERS = ("file", "local", "memory", "sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs")
#: What installs a protocol that the extra does not bring.
_PACKAGES: Mapping[str, str] = {
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "sftp": "paramiko",
}

#: Seconds without a byte until a connection is given up, and for all of one small object.
_SILENCE = 60
_DEADLINE = 300
_ABANDONED = 24 * 3600
_PIECE = 64 << 20

#: Connected file systems live as long as the process (a connection takes tenths of a second); a fork starts anew.
_connected: dict[tuple[int, str, str], Any] = {}
_connecting = threading.Lock()


def is_url(text: str) -> bool:
    """Whether `text` is a URL (and not a path, with a drive or without).

    Examples
    --------
    >>> is_url("s3://bucket/photos"), is_url("C:\\\\photos"), is_url("photos")
    (True, False, False)
    """
    return _URL.match(text) is not None


def join(url: str, name: str) -> str:
    """`url` with a relative path of plain names below it.

    Examples
    --------
    >>> join("s3://bucket/photos/", "a b/1.png"), join("https://host/photos", "a b/1.png")
    ('s3://bucket/photos/a b/1.png', 'https://host/photos/a%20b/1.png')
    """
    if _protocol(url) in _HTTP:
        name = quote(name.encode("utf-8", "surrogateescape"), safe="/~!$&'()*+,;=:@")
    above = url.rstrip("/")
    return f"{url if above.endswith(':') else above + '/'}{name}"


def parts(url: str) -> tuple[str, str]:
    """Host or bucket as a URL, and the path below it as `join` takes it; a query belongs to neither.

    Examples
    --------
    >>> parts("s3://bucket/a b/1.png"), parts("https://host/a%20b?token=1"), parts("file:///a/b")
    (('s3://bucket/', 'a b/1.png'), ('https://host/', 'a b'), ('file:///', 'a/b'))
    """
    protocol, _, rest = url.partition("://")
    web = _protocol(url) in _HTTP
    host, _, path = (rest.partition("?")[0] if web else rest).partition("/")
    return f"{protocol}://{host}/", unquote(path, errors="surrogateescape") if web else path


def children(url: str) -> Iterator[Found]:
    """Objects and folders directly below `url`; the order is the service's.

    Over HTTP these are the links of the page at `url`, without size and version (see `look`).

    Raises
    ------
    OSError
        Nothing is there (ENOENT), not allowed (EACCES), no answer (ETIMEDOUT), or whatever else (EIO).
    RemoteError
        The protocol is unknown or its package is not installed.

    Examples
    --------
    >>> write("memory://shelf/cats/1.png", b"...")
    >>> list(children("memory://shelf"))
    [Found(name='cats', folder=True, size=-1, tag='', modified_ns=0)]
    """
    system, path = _system(url)
    web = _protocol(url) in _HTTP
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
        yield Found(last, True) if folder else described(last, item)


def look(url: str) -> Found:
    """What lies at `url`. Raises as `children` does.

    Examples
    --------
    >>> write("memory://shelf/1.png", b"...")
    >>> look("memory://shelf/1.png").size, look("memory://shelf").folder
    (3, True)
    """
    system, path = _system(url)
    with as_os_error(url):
        info = system.info(path)
    name = url.partition("?")[0].rstrip("/").rpartition("/")[2]
    return Found(name, True) if info.get("type") == "directory" else described(name, info)


def read(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """The bytes of one object, or those from `start` to before `end` (as many as the service gives).

    Safe from several threads. Raises as `children` does.

    Examples
    --------
    >>> write("memory://shelf/1.txt", b"abcdef")
    >>> read("memory://shelf/1.txt"), read("memory://shelf/1.txt", 1, 3)
    (b'abcdef', b'bc')
    """
    system, path = _system(url)
    with as_os_error(url):
        if not getattr(system, "async_impl", False):
            return bytes(system.cat_file(path, start=start, end=end))
        from fsspec.asyn import sync

        return bytes(sync(system.loop, system._cat_file, path, start=start, end=end, timeout=_DEADLINE))


def read_whole(url: str, size: int) -> bytes:
    """An object of a known size, in pieces that have a time limit each.

    Raises as `children` does; ENODATA when it has another size.
    """
    if size <= _PIECE:
        data = read(url)
    else:
        data = b"".join(read(url, start, min(start + _PIECE, size)) for start in range(0, size, _PIECE))
    if len(data) != size:
        raise OSError(errno.ENODATA, f"{len(data)} bytes came where {size} were expected", url)
    return data


def fetch(url: str, file: Path, check: Callable[[Path], None] = lambda _: None) -> bool:
    """Bring one object to `file`, whose folder exists: aside first, checked, then named; the first one wins.

    Parameters
    ----------
    url : str
    file : Path
    check : callable
        Is given the file under its temporary name, and raises where it is not what was meant.

    Returns
    -------
    bool
        False when a file of that name was there already.

    Raises
    ------
    OSError, RemoteError
        As `children`; or the disk is full. Whatever `check` raises. Nothing is left under the final name.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> write("memory://shelf/1.txt", b"abcdef")
    >>> fetch("memory://shelf/1.txt", folder / "here"), (folder / "here").read_bytes()
    (True, b'abcdef')
    """
    system, path = _system(url)
    _sweep(file.parent)
    aside = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with as_os_error(url):
            system.get_file(path, str(aside))
        check(aside)
        return publish_file(aside, file)
    finally:
        aside.unlink(missing_ok=True)


def write(url: str, data: bytes) -> None:
    """Put one object in place of whatever is there. Raises as `children` does."""
    system, path = _system(url)
    with as_os_error(url):
        if _protocol(url) in _HAVE_FOLDERS:
            system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.pipe_file(path, data)


def _protocol(url: str) -> str:
    return url.partition("://")[0].lower()


def _system(url: str) -> tuple[Any, Any]:
    """The connected file system of `url`, and what it calls that place."""
    protocol = _protocol(url)
    try:
        import fsspec
    except ImportError as error:
        raise RemoteError(
            f'{shown(url)}: addresses need fsspec: pip install "bottleneck-features[remote]"'
        ) from error
    try:
        kind = fsspec.get_filesystem_class(protocol)
        options = kind._get_kwargs_from_urls(url)
        key = (os.getpid(), protocol, repr(sorted(options.items())))
        with _connecting:
            system = _connected.get(key)
            if system is None:
                # Without `skip_instance_cache` each thread would get, and connect, one of its own.
                given = {**_settings(protocol), **options}
                system = kind(use_listings_cache=False, skip_instance_cache=True, **given)
                _connected[key] = system
        return system, kind._strip_protocol(url)
    except ImportError as error:
        package = _PACKAGES.get(protocol, '"bottleneck-features[remote]"')
        raise RemoteError(f"{shown(url)}: {error}: pip install {package}") from error
    except ValueError as error:
        raise RemoteError(f"{shown(url)}: {error}; expected s3://, gs://, https:// or the like") from error


def _settings(protocol: str) -> dict[str, Any]:
    """Time limits in each protocol's own words."""
    if protocol in _HTTP:
        import aiohttp

        patience = aiohttp.ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)
        return {"client_kwargs": {"timeout": patience}}
    if protocol in ("s3", "s3a"):
        return {"config_kwargs": {"connect_timeout": _SILENCE, "read_timeout": _SILENCE}}
    return {}


def _sweep(folder: Path) -> None:
    """Remove what downloads that were killed a day ago or earlier left behind."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > _ABANDONED:
                path.unlink()
