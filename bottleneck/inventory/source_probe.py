"""Check that another process sees the same source, by one file."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from bottleneck.contracts import Source
from bottleneck.errors import Rejected
from bottleneck.system.durable import shown

#: First files that are looked at for one that can be read.
_LOOKS = 8


@dataclass(frozen=True)
class SourceProbe:
    """A file as this process sees it.

    Attributes
    ----------
    path : bytes
        Within its source.
    content : bytes
        Its sha256.
    """

    path: bytes
    content: bytes


def probe_source(source: Source, paths: Iterable[bytes]) -> SourceProbe | None:
    """Read the first readable one of the first few `paths`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from bottleneck.sources import open_source
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (root / "b.jpg").write_text("there")
    >>> probe_source(open_source(root), [b"a.jpg", b"b.jpg"]).path
    b'b.jpg'
    """
    for path in islice(paths, _LOOKS):
        try:
            return SourceProbe(path, hashlib.sha256(source.read(path)).digest())
        except (OSError, Rejected):  # it may have vanished since it was listed: nobody's fault
            continue
    return None


def probe_problem(source: Source, probe: SourceProbe) -> str | None:
    """Say how `source` differs here from the probe `probe`, or None."""
    host = f"{platform.node()} (process {os.getpid()})"
    try:
        data = source.read(probe.path)
    except (OSError, Rejected) as error:
        reason = getattr(error, "strerror", None) or error
        return (
            f"the worker on {host} does not see the source: {shown(probe.path)} cannot be read there "
            f"({reason}): images must lie where all workers see them under one path or URL"
        )
    if hashlib.sha256(data).digest() != probe.content:
        return f"the worker on {host} sees another source: {shown(probe.path)} holds other bytes there"
    return None
