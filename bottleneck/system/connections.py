"""Connect to what lies behind URLs. The only door to fsspec."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bottleneck.errors import RemoteError
from bottleneck.system.addresses import WEB, has_no_secret, redact, redact_text
from bottleneck.system.durable import shown
from bottleneck.system.web_client import client_factory

#: The package of a protocol that the extra does not install.
_PACKAGES: Mapping[str, str] = {
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "sftp": "paramiko",
}

#: Bytes of one object that are taken into memory at most.
LARGEST = 1 << 30
#: Seconds without a byte until a connection is given up.
_SILENCE = 60
#: Seconds for all of one small object.
_DEADLINE = 300

#: Connected file systems live as long as the process (a connection takes tenths of a second); a fork connects again.
_connected: dict[tuple[object, ...], Any] = {}
_connecting = threading.Lock()


def protocol_of(url: str) -> str:
    """``https`` of ``HTTPS://…``."""
    return url.partition("://")[0].lower()


def connect(url: str, allowed: Sequence[str] = ()) -> tuple[Any, Any]:
    """Connect to the file system of `url`, and give its path there.

    Raises
    ------
    RemoteError
        The protocol is unknown, or its package is not installed.
    """
    protocol = protocol_of(url)
    try:
        import fsspec
    except ImportError as error:
        raise RemoteError(
            f'{shown(url)}: addresses need fsspec: pip install "bottleneck-features[remote]"'
        ) from error
    try:
        kind = fsspec.get_filesystem_class(protocol)
        options = kind._get_kwargs_from_urls(url)
        key = (os.getpid(), protocol, repr(sorted(options.items())), tuple(allowed))
        with _connecting:
            system = _connected.get(key)
            if system is None:
                # Without `skip_instance_cache` each thread would get, and connect, one of its own.
                given = {**_settings(protocol, allowed), **options}
                system = kind(use_listings_cache=False, skip_instance_cache=True, **given)
                _connected[key] = system
        return system, kind._strip_protocol(url)
    except ImportError as error:
        package = _PACKAGES.get(protocol, '"bottleneck-features[remote]"')
        raise RemoteError(f"{shown(url)}: {redact_text(str(error), url)}: pip install {package}") from error
    except ValueError as error:
        text = redact_text(str(error), url)
        raise RemoteError(f"{shown(url)}: {text}; expected s3://, gs://, https:// or the like") from None


def _settings(protocol: str, allowed: Sequence[str]) -> dict[str, Any]:
    if protocol in WEB:
        return {"get_client": client_factory(allowed, _SILENCE, LARGEST)}
    if protocol in ("s3", "s3a"):
        return {"config_kwargs": {"connect_timeout": _SILENCE, "read_timeout": _SILENCE}}
    return {}


def read_bytes(system: Any, path: Any, start: int | None, end: int | None) -> bytes:
    """Read one object of `system`, within a time limit where possible."""
    if not getattr(system, "async_impl", False):
        return bytes(system.cat_file(path, start=start, end=end))
    from fsspec.asyn import sync

    return bytes(sync(system.loop, system._cat_file, path, start=start, end=end, timeout=_DEADLINE))


def size_limit(url: str, most: int) -> Any:
    """Make the callback that stops a download (EFBIG) after `most` bytes."""
    from fsspec.callbacks import Callback

    def stop(_: int | None, came: int) -> None:
        if came > most:
            raise OSError(errno.EFBIG, f"more than the limit of {most:,} bytes", url)

    return Callback(hooks={"limit": stop})


@contextlib.contextmanager
def as_os_error(url: str) -> Iterator[None]:
    """Raise any error within as an OSError about `url`, without secrets.

    A `RemoteError` goes through.

    Examples
    --------
    >>> with as_os_error("s3://bucket/1.png"):
    ...     raise RuntimeError("the service is confused")
    Traceback (most recent call last):
    OSError: [Errno 5] the service is confused: 's3://bucket/1.png'
    """
    try:
        yield
    except (RemoteError, NotImplementedError):
        raise
    except Exception as error:
        if isinstance(error.__cause__, RemoteError):  # fsspec takes what its client raises for a missing page
            raise error.__cause__ from None
        if isinstance(error, OSError) and error.errno is not None and has_no_secret(url):
            raise
        numbered = _numbered(error, url)
        # With its cause, a traceback would print what the message leaves out.
        raise numbered from (error if has_no_secret(url) else None)


def _numbered(error: Exception, url: str) -> OSError:
    here = redact(url)
    status = getattr(error, "status", None)
    cause = error.__cause__
    text = " ".join(redact_text(str(error), url).split()) or type(error).__name__
    why = redact_text(str(cause), url)
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, redact_text(error.strerror or text, url), here)
    if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in type(error).__name__:
        return PermissionError(errno.EACCES, f"not allowed ({text})", here)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        # Over HTTP a server that cannot be reached looks like one that has no such page.
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            return OSError(errno.EHOSTUNREACH, f"it cannot be reached ({why})", here)
        if getattr(cause, "status", None) in (401, 403):
            return PermissionError(errno.EACCES, f"not allowed ({why})", here)
        if (getattr(cause, "status", None) or 0) >= 500:
            return OSError(errno.EIO, f"its server failed ({why})", here)
        return FileNotFoundError(errno.ENOENT, "nothing is there", here)
    if isinstance(error, TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, "no answer in time", here)
    return OSError(errno.EIO, text, here)
