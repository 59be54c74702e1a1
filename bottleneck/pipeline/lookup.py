"""What there is to compute with: bases and images."""

from __future__ import annotations

from bottleneck.bases import base_named as base_named
from bottleneck.bases import specs
from bottleneck.pipeline.session import PathLike, Session
from bottleneck.schema import BaseSpec, Inventory
from bottleneck.system.progress import Progress


def list_bases() -> list[BaseSpec]:
    """List every base of the catalog, with sizes, cuts and shapes."""
    return list(specs().values())


def scan(
    source: PathLike, *, cache: PathLike | None = None, rehash: bool = False, progress: Progress | None = None
) -> Inventory:
    """List the images of `source`, by content.

    Parameters
    ----------
    source : path
        A folder, a CSV or Parquet table, a zip or a tar file, or the URL of one.
    cache : path, optional
        Where the index of earlier scans lies.
    rehash : bool
        Read every file, whatever the index says.
    progress : Progress, optional
    """
    session = Session.parse({"cache": cache, "rehash": rehash, "progress": progress})
    return session.scan(session.open(source))
