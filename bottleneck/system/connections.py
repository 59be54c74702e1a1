"""Connections to what lies behind a URL, one for each service and process. The only door to fsspec."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from bottleneck.errors import RemoteError
from bottleneck.system.addresses import WEB, redact_text
from bottleneck.system.durable import shown
from bottleneck.system.web_client import client_factory

#: What installs a protocol that the extra does not bring.
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

#: Connected file systems live as long as the process (a connection takes tenths of a second); a fork starts anew.
_connected: dict[tuple[object, ...], Any] = {}
_connecting = threading.Lock()


def protocol_of(url: str) -> str:
    """``https`` of ``HTTPS://…``."""
    return url.partition("://")[0].lower()


def connect(url: str, allowed: Sequence[str] = ()) -> tuple[Any, Any]:
    """The connected file system of `url`, and what it calls that place.

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
    """Time limits in each protocol's own words; a client of our own for HTTP."""
    if protocol in WEB:
        return {"get_client": client_factory(allowed, _SILENCE, LARGEST)}
    if protocol in ("s3", "s3a"):
        return {"config_kwargs": {"connect_timeout": _SILENCE, "read_timeout": _SILENCE}}
    return {}


def read_bytes(system: Any, path: Any, start: int | None, end: int | None) -> bytes:
    """The bytes of one object of `system`, within a time limit where fsspec knows one."""
    if not getattr(system, "async_impl", False):
        return bytes(system.cat_file(path, start=start, end=end))
    from fsspec.asyn import sync

    return bytes(sync(system.loop, system._cat_file, path, start=start, end=end, timeout=_DEADLINE))


def size_limit(url: str, most: int) -> Any:
    """What fsspec tells how many bytes of `url` came, and what stops it (EFBIG) after `most`."""
    from fsspec.callbacks import Callback

    def stop(_: int | None, came: int) -> None:
        if came > most:
            raise OSError(errno.EFBIG, f"more than the limit of {most:,} bytes", url)

    return Callback(hooks={"limit": stop})
