"""List a source's images and hash their bytes; no base is needed."""

from __future__ import annotations

from bottleneck import catalog
from bottleneck.contracts import Readers, Source
from bottleneck.inventory import scan as scanning
from bottleneck.pipeline.session import PathLike, Session, cache_at, progress_of, team_of
from bottleneck.schema import Inventory
from bottleneck.sources.open import open_source
from bottleneck.system.progress import Progress, Silent


def scan(
    source: PathLike, *, cache: PathLike | None = None, rehash: bool = False, progress: Progress | None = None
) -> Inventory:
    """Which images `source` holds, by content.

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
    return scan_for(source, {"cache": cache, "rehash": rehash, "progress": progress or Silent()})


def opened(source: PathLike, session: Session) -> Source:
    """`source`, with what the session says of where things lie and which hosts may be read from."""
    where = cache_at(session.get("cache"))
    return open_source(source, fetched=where.fetched, allow_host=session.get("allow_host", ()))


def scan_for(source: PathLike, session: Session) -> Inventory:
    """`scan` with a session's options."""
    where = cache_at(session.get("cache"))
    return scanning.scan(
        opened(source, session),
        where.scans,
        rehash=session.get("rehash", False),
        readers=readers_of(session),
        progress=progress_of(session),
    )


def readers_of(session: Session) -> Readers | None:
    """Who reads the files of a scan; None: threads here, which lack nothing where the workers are here too."""
    team = team_of(session) if session.get("address") else None
    if team is None:
        return None
    made: Readers = catalog.load("engine", catalog.READERS, team.engine)(team)
    return made
