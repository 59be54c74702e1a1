"""From a location as a person types it to the source that reads it."""

from __future__ import annotations

import os
import re

from bottleneck import catalog
from bottleneck.contracts import Source
from bottleneck.errors import SourceError
from bottleneck.files import shown
from bottleneck.sources.layout import LAYOUTS

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


def open_source(location: str | os.PathLike[str]) -> Source:
    """The source at `location`: the first kind in `catalog.SOURCES` that claims its absolute path.

    Parameters
    ----------
    location : str or path
        A folder, a CSV or Parquet table, a zip or a tar; ``~`` is the home folder. Links are kept as they are
        written, so one spelling is one source.

    Returns
    -------
    Source
        Picklable; `location` is the absolute path.

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
    if not text:
        raise SourceError(f"the source is empty text; expected {LAYOUTS}")
    if _URL.match(text):
        raise SourceError(f"{shown(text)}: addresses are not read; copy the images first; expected {LAYOUTS}")
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
    tried = ", ".join(catalog.SOURCES)
    raise SourceError(f"{shown(path)}: none of the known kinds ({tried}) reads this; expected {LAYOUTS}")


def _nearest(path: str) -> str:
    """Where the path stops to exist: most such mistakes are a typing error in one part."""
    if os.path.lexists(path):
        return " (a link that leads nowhere)"
    parent = os.path.dirname(path)
    while parent != os.path.dirname(parent) and not os.path.isdir(parent):
        parent = os.path.dirname(parent)
    return f" (the nearest folder that exists is {shown(parent)})"
