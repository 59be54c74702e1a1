"""Scan a source: hash each file that the index does not know."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from bottleneck.contracts import Readers, Source
from bottleneck.errors import Rejected
from bottleneck.inventory import index
from bottleneck.inventory.hashing import FileRead, hash_files
from bottleneck.inventory.index import IMAGE, OTHER, UNKNOWN
from bottleneck.inventory.listing import SourceListing, collect_listing, fixed_binary
from bottleneck.pixels.header import IMAGE_SUFFIXES
from bottleneck.schema import Inventory, Rejection
from bottleneck.sources.reading import reason_of
from bottleneck.system.durable import shown
from bottleneck.system.progress import Progress, Silent

#: A file changed this shortly before the scan may change again within one tick of the file system's clock.
_SETTLED_NS = 2_000_000_000
_CHUNK = 4096


def scan_source(
    source: Source,
    index_folder: Path | None,
    *,
    rehash: bool = False,
    keep: bool = True,
    workers: int | None = None,
    readers: Readers | None = None,
    progress: Progress | None = None,
) -> Inventory:
    """List the images that `source` holds, by content.

    A file whose signature is the recorded one is not read. The others are read by a pool of threads, at most
    a few files each in memory, and hashed. A file is image-like when a table names it, when it begins with an
    image's signature, or when its suffix is an image's; the rest is ignored and counted.

    Parameters
    ----------
    source : Source
    index_folder : Path, optional
        Where indexes lie (`Cache.scans`); made if need be. None: neither read nor written. A folder that
        cannot be written is no error: the next scan then reads again.
    rehash : bool
        Read everything, whatever the index says.
    keep : bool
        Write what was read to the index.
    workers : int, optional
        Threads; default: twice the processors, 32 at most (reading waits on the disk).
    readers : Readers, optional
        Processes elsewhere that read in the place of those threads, where there are thousands of files to read.
    progress : Progress, optional

    Returns
    -------
    Inventory
        Sorted by path bytes. `unreadable` names image-like files (and folders) that could not be read, by
        path.

    Raises
    ------
    SourceError
        From `source.entries()`: a layout or table that cannot be.
    EngineError
        `readers` cannot be had, or do not see the source.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from bottleneck.sources import open_source
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (root / "notes.txt").write_text("no image")
    >>> _ = (root / "broken.jpg").write_text("called one")
    >>> inventory = scan_source(open_source(root), None)
    >>> [record.path for record in inventory], dict(inventory.ignored)
    ([b'broken.jpg'], {'not an image': 1})
    """
    progress = progress or Silent()
    started = time.time_ns()
    with progress.bar("scan", None, "files", brief=True) as bar:
        listing = collect_listing(source.entries(), bar.update)
    ignored = Counter(source.passed_over())
    contents = np.zeros((len(listing), 32), np.uint8)
    states = np.zeros(len(listing), np.uint8)
    file = index_file(index_folder, source.location) if index_folder is not None else None
    recorded = 0
    if file is not None and not rehash:
        recorded = index.look_up(file, listing, contents, states)
    unknown = np.flatnonzero(states == UNKNOWN)
    problems: dict[int, Rejected] = {}

    def take(row: int, read: FileRead) -> None:
        if read.problem is not None:
            problems[row] = read.problem
        else:
            contents[row] = np.frombuffer(read.content, np.uint8)
            states[row] = read.state

    if len(unknown):
        with progress.bar("hash", len(unknown), "files", brief=True) as bar:
            hash_files(source, listing, unknown, take, bar, threads=workers, readers=readers)
    if file is not None and keep and (len(unknown) or recorded != len(listing)):
        try:
            index.save_index(file, listing, contents, states, trusted(listing.signatures, started))
        except OSError as error:
            with progress.bar("index", 0, "files") as bar:
                bar.note(f"not written: {reason_of(error)}")
    unreadable = _rejections(listing, problems, ignored)
    kept = _image_like(listing, states)
    others = len(listing) - len(problems) - int(np.count_nonzero(kept))
    if others:
        ignored["not an image"] += others
    table = _table(listing, contents, kept)
    return Inventory(table, source.location, unreadable, dict(sorted(ignored.items())))


def trusted(signatures: Sequence[np.ndarray], now: int) -> np.ndarray:
    """Mark files whose signature would change with their content, (n,) bool.

    Not: what nothing vouches for (volume 0); files changed less than two seconds before `now`, in ns; and files that
    share their change time, to the ns, with more than half of their file system's. The kernel gives such times one
    after the other, so whoever built that image set them, and would set the same for other bytes.
    """
    _, modified, changed, _, volumes = signatures
    believed = (volumes != 0) & (modified < now - _SETTLED_NS) & (changed < now - _SETTLED_NS)
    for volume in pa.array(volumes[volumes > 0]).unique().to_pylist():
        here = volumes == volume
        times = changed[here]
        middle = len(times) // 2
        shared = times == np.partition(times, middle)[middle]
        if 2 * int(np.count_nonzero(shared)) > len(times) > 1:
            believed[here] &= ~shared
    return np.asarray(believed)


def _suffix(path: bytes) -> str:
    stem, dot, suffix = path.rpartition(b"/")[2].rpartition(b".")
    return (dot + suffix).decode("latin-1").lower() if stem else ""


def _image_like(listing: SourceListing, states: np.ndarray) -> np.ndarray:
    """Mark images by first bytes, table entry or name, (n,) bool."""
    kept = (states == IMAGE) | ((states == OTHER) & listing.named)
    doubtful = np.flatnonzero((states == OTHER) & ~kept)
    for start in range(0, len(doubtful), _CHUNK):
        rows = doubtful[start : start + _CHUNK]
        paths = listing.paths.take(pa.array(rows)).to_pylist()
        kept[rows] = [_suffix(path) in IMAGE_SUFFIXES for path in paths]
    return kept


def _rejections(
    listing: SourceListing, problems: dict[int, Rejected], ignored: Counter[str]
) -> tuple[Rejection, ...]:
    """Turn problems into rejections; count files that are no images by name."""
    rejections = []
    for row, problem in sorted(problems.items(), key=lambda one: one[0]):
        path = listing.paths[row].as_py()
        suffix = _suffix(path)
        if suffix and suffix not in IMAGE_SUFFIXES and not listing.named[row]:
            ignored["not an image by its name, and unreadable"] += 1
            continue
        rejections.append(
            Rejection(path=shown(path), stage=problem.stage, reason=problem.reason, retry=problem.retry)
        )
    return tuple(rejections)


def _table(listing: SourceListing, contents: np.ndarray, kept: np.ndarray) -> pa.Table:
    columns = {
        "path": listing.paths,
        "content": fixed_binary(contents),
        "label": listing.labels,
        "group": listing.groups,
        "split": listing.splits,
    }
    table = pa.table(columns)
    # Nearly always everything is kept: no second copy then.
    return table if kept.all() else table.filter(pa.array(kept))


def index_file(folder: Path, location: str) -> Path:
    """Name the index file of a source by its location's hash.

    Examples
    --------
    >>> index_file(Path("scans"), "/data/cats").name
    'f31f1633549aae93.parquet'
    """
    return folder / f"{hashlib.sha256(os.fsencode(location)).hexdigest()[:16]}.parquet"
