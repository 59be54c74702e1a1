"""A location as a person types it, opened as a source."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottleneck import catalog
from bottleneck.contracts import Source
from bottleneck.errors import SourceError
from bottleneck.schema import Cache
from bottleneck.sources.layout import LAYOUTS
from bottleneck.system import objects
from bottleneck.system.addresses import LOCAL, VARIABLE, Address, remember_url, unredacted_url
from bottleneck.system.connections import protocol_of
from bottleneck.system.durable import shown


def open_source(
    location: str | os.PathLike[str], *, fetched: Path | None = None, allow_host: Sequence[str] = ()
) -> Source:
    """Open `location` with the first catalog source that claims it.

    Parameters
    ----------
    location : str or path
        A folder, a CSV or Parquet table, a zip or a tar, or one of these behind a URL (``s3://``, ``https://``,
        …); ``~`` is the home folder. Links are kept as they are written, so one spelling is one source. A ``file://``
        URL is the path that it names.
    fetched : Path, optional
        Folder (`Cache.fetched`) for tables and archives that have to be fetched; by default the user's cache.
    allow_host : sequence of str
        Hosts (``host``, ``host:port``, a bucket, or ``protocol://host``) that a table behind a URL may name, and an
        answer may lead to, besides its own.

    Returns
    -------
    Source
        Picklable; `location` is the absolute path, or the URL without passwords, signatures and other queries. Such a
        location opens the same source again in this process, or where ``$BOTTLENECK_SOURCE`` has the whole URL.

    Raises
    ------
    SourceError
        Nothing is there, no kind claims it, or the kind that does cannot use it as it stands.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> (root / "cats").mkdir()
    >>> _ = (root / "cats" / "1.png").write_bytes(b"...")
    >>> [(entry.path, entry.label) for entry in open_source(root).entries()]
    [(b'cats/1.png', 'cats')]
    """
    text = os.fspath(location)
    if objects.URL.match(text) and protocol_of(text) in LOCAL:
        text = text.partition("://")[2]
    if not text:
        raise SourceError(f"the source is empty text; expected {LAYOUTS}")
    if objects.URL.match(text):
        return _open_url(text, fetched or Cache.at(None).fetched, tuple(allow_host))
    path = os.path.abspath(os.path.expanduser(text))
    try:
        there = os.path.exists(path)
    except ValueError:  # a NUL character: no file system has such a name
        there = False
    if not there:
        raise SourceError(f"{shown(path)}: nothing is there{_nearest(path)}; expected {LAYOUTS}")
    for reference in catalog.SOURCES.values():
        kind: type[Source] = catalog.resolve(reference)
        if kind.claims(path):
            return kind.open(path)
    folder, *files = catalog.SOURCES
    tried = ", ".join([*files, folder])
    raise SourceError(f"{shown(path)}: none of the known kinds ({tried}) reads this; expected {LAYOUTS}")


def _open_url(text: str, fetched: Path, allowed: tuple[str, ...]) -> Source:
    url = unredacted_url(text)
    if url is None:
        raise SourceError(
            f"{shown(text)}: *** stands for a password or a query, which is kept nowhere: give the source again; "
            f"where a command takes none, put the whole URL into ${VARIABLE}"
        )
    remember_url(url)
    for reference in catalog.REMOTE_SOURCES.values():
        kind: Any = catalog.resolve(reference)
        if kind.claims(url):
            opened: Source = kind.open(Address(url, allowed), fetched)
            return opened
    raise SourceError(f"{shown(url)}: no kind reads this; expected {LAYOUTS}")


def _nearest(path: str) -> str:
    """Name the folder where a mistyped path stops to exist."""
    if os.path.lexists(path):
        return " (a link that leads nowhere)"
    parent = os.path.dirname(path)
    while parent != os.path.dirname(parent) and not os.path.isdir(parent):
        parent = os.path.dirname(parent)
    return f" (the nearest folder that exists is {shown(parent)})"
