"""Read and hash files, on threads here or by other processes."""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from bottleneck.contracts import Readers, Source
from bottleneck.errors import EngineError, Rejected
from bottleneck.inventory.index import IMAGE, OTHER, UNKNOWN
from bottleneck.inventory.listing import SourceListing
from bottleneck.inventory.source_probe import SourceProbe, probe_problem, probe_source
from bottleneck.pixels.header import looks_like_image
from bottleneck.sources.reading import LARGEST, reason_of, too_large
from bottleneck.system.progress import Bar

#: Files that are read in one go: here, and elsewhere, where each go is a message there and back.
_HERE, _ELSEWHERE = 32, 512

#: Of fewer files nobody elsewhere is asked.
_FEW = 2048

_HEAD = 4096


class FileRead(NamedTuple):
    """The sha256 and index state of one file, or its problem."""

    content: bytes = b""
    state: int = UNKNOWN
    problem: Rejected | None = None


def hash_files(
    source: Source,
    listing: SourceListing,
    rows: np.ndarray,
    take: Callable[[int, FileRead], None],
    bar: Bar,
    *,
    threads: int | None = None,
    readers: Readers | None = None,
) -> None:
    """Read the files of `rows`; pass results to `take` in any order.

    Files that another process cannot read are read once more here, so that no row is lost.

    Parameters
    ----------
    source : Source
    listing : SourceListing
    rows : numpy.ndarray
        (n,) rows of `listing`.
    take : callable
        Called with a row and its `FileRead`.
    bar : Bar
        Counts files.
    threads : int, optional
        Default: twice the processors, 32 at most (reading waits on the disk).
    readers : Readers, optional
        Processes that read where there are many files.

    Raises
    ------
    EngineError
        Processes elsewhere do not see the source, or break.
    """
    if readers is not None and len(rows) >= _FEW:
        rows = _hash_elsewhere(source, listing, rows, take, bar, readers)
    with _Threads(threads or min(32, 2 * (os.cpu_count() or 1))) as here:
        for some, reads in _pieces(here, functools.partial(_read, source), listing, rows, _HERE):
            for row, read in zip(some.tolist(), reads, strict=True):
                take(row, read)
            bar.update(len(some))


def _hash_elsewhere(
    source: Source,
    listing: SourceListing,
    rows: np.ndarray,
    take: Callable[[int, FileRead], None],
    bar: Bar,
    readers: Readers,
) -> np.ndarray:
    """Let `readers` read the files, and return the rows they could not."""
    left: list[int] = []
    probe = probe_source(source, (listing.paths[int(row)].as_py() for row in rows))
    if probe is None:
        return rows  # nor is there anything that would show that they see it
    with readers:
        work = functools.partial(_read_elsewhere, secrets.token_hex(8), source, probe)
        for some, reads in _pieces(readers, work, listing, rows, _ELSEWHERE):
            if isinstance(reads, str):
                if probe_problem(source, probe) is None:
                    raise EngineError(reads)
                # That file changed here too while it was compared: nobody's fault, and nothing to compare by.
                left += some.tolist()
                continue
            for row, (content, state) in zip(some.tolist(), reads, strict=True):
                if content:
                    take(row, FileRead(content, state))
                    bar.update(1)
                else:
                    left.append(row)
    return np.array(left, rows.dtype)


def _pieces(
    readers: Readers,
    work: Callable[[list[bytes], list[int]], Any],
    listing: SourceListing,
    rows: np.ndarray,
    size: int,
) -> Iterator[tuple[np.ndarray, Any]]:
    """Yield rows with the result of `work` for them, as done."""
    running: dict[Future[Any], np.ndarray] = {}

    def done() -> list[tuple[np.ndarray, Any]]:
        finished = wait(running, return_when=FIRST_COMPLETED).done
        return [(running.pop(future), future.result()) for future in finished]

    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        if len(running) >= readers.room:
            yield from done()
        paths = listing.paths.take(pa.array(some)).to_pylist()
        running[readers.submit(work, paths, listing.signatures[0][some].tolist())] = some
    while running:
        yield from done()


def _read(source: Source, paths: Sequence[bytes], sizes: Sequence[int]) -> list[FileRead]:
    return [_read_one(source, path, size) for path, size in zip(paths, sizes, strict=True)]


def _read_elsewhere(
    scan: str, source: Source, probe: SourceProbe, paths: Sequence[bytes], sizes: Sequence[int]
) -> list[tuple[bytes, int]] | str:
    """Read files in another process, or say why it sees another source.

    A file that cannot be read has an empty sha256.
    """
    source = _first_copy(scan, source)
    # Looked at every time: the process may have been started a moment ago, in the place of one that died.
    return probe_problem(source, probe) or [
        (read.content, read.state) for read in _read(source, paths, sizes)
    ]


@functools.lru_cache(maxsize=1)
def _first_copy(scan: str, source: Source) -> Source:
    """Keep one copy of `source` a scan: archives are indexed once."""
    return source


def _read_one(source: Source, path: bytes, size: int) -> FileRead:
    if size > LARGEST:
        return FileRead(problem=too_large(size))
    try:
        data = source.read(path)
    except Rejected as rejected:
        return FileRead(problem=rejected)
    except OSError as error:
        return FileRead(problem=Rejected("read", reason_of(error), retry=True))
    return FileRead(hashlib.sha256(data).digest(), IMAGE if looks_like_image(data[:_HEAD]) else OTHER)


class _Threads:
    def __init__(self, count: int) -> None:
        self.room = 2 * count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="scan")

    def __enter__(self) -> _Threads:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        return self._pool.submit(work, *arguments)
