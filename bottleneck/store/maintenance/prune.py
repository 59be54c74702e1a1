"""Remove from a store what no source refers to any more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck.errors import DamagedShard
from bottleneck.schema import Record, json_fields
from bottleneck.store.content_index import Index
from bottleneck.store.listing import Listing, list_store, sizes_of
from bottleneck.store.locks import housekeeping
from bottleneck.store.maintenance.removal import Removal, find_leftovers, remove_leftovers
from bottleneck.store.maintenance.rewrite import Keeps, find_superseded, rewrite
from bottleneck.store.maintenance.shard_check import read_contents
from bottleneck.store.record import committed_files
from bottleneck.store.views import CONTENT_BYTES

#: A shard with kept rows is written again when that frees at least this share of them.
SHARE = 0.2


class KeptContents:
    """The contents that sources refer to.

    Parameters
    ----------
    keys : numpy.ndarray
        (n, 32) uint8.

    Examples
    --------
    >>> cat, dog = np.zeros((1, 32), np.uint8), np.ones((1, 32), np.uint8)
    >>> KeptContents(cat).contains(np.concatenate([cat, dog]), 32)
    array([ True, False])
    """

    def __init__(self, keys: np.ndarray) -> None:
        self._keys = keys
        self._indexes: dict[int, Index] = {}

    def contains(self, keys: np.ndarray, width: int) -> np.ndarray:
        """Look `keys` (m, 32) up by their first `width` bytes: (m,) bool."""
        # One index serves all shards.
        if width not in self._indexes:
            self._indexes[width] = Index.of(_cut(self._keys, width))
        return self._indexes[width].find(_cut(keys, width)) >= 0


def _cut(keys: np.ndarray, width: int) -> np.ndarray:
    if width == keys.shape[1]:
        return keys
    cut = keys.copy()
    cut[:, width:] = 0
    return cut


@dataclass(frozen=True)
class Steps:
    """What is to be done to one store.

    Attributes
    ----------
    removed : mapping of str to Record
        Records without a kept content, by name.
    rewritten : mapping of str to Record
        Records of which enough is not kept.
    rows : int
        Rows that would go.
    damaged : mapping of str to str
        Records whose contents cannot be read: they stay.
    leftovers : tuple of str
        Files below the store's folder that no record names and nobody is at work on.
    """

    removed: Mapping[str, Record]
    rewritten: Mapping[str, Record]
    rows: int
    damaged: Mapping[str, str]
    leftovers: tuple[str, ...]


@dataclass(frozen=True)
class Pruning:
    """What was done to one store, or would be.

    Attributes
    ----------
    folder : Path
    done : bool
        False for a dry run.
    rows : int
        Rows removed.
    shards : int
        Shards removed whole.
    rewritten : int
        Shards written again with the kept rows.
    leftovers : tuple of str
    freed : int
        Bytes; an estimate for a dry run.
    damaged : mapping of str to str
        Records that were left alone, and why.
    failed : mapping of str to str
        Files that could not be removed, and why.
    """

    folder: Path
    done: bool
    rows: int
    shards: int
    rewritten: int
    leftovers: tuple[str, ...]
    freed: int
    damaged: Mapping[str, str]
    failed: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Describe the pruning for a program."""
        counts = json_fields(self, "rows", "shards", "rewritten", "leftovers", "freed", "damaged", "failed")
        return {"store": self.folder.name, **counts}


def plan_pruning(listing: Listing, kept: KeptContents | None) -> Steps:
    """Decide what to remove: what neither `kept` nor a record refers to.

    With None only what no record refers to is removed. A record whose contents cannot be read stays.
    """
    # A superseded record's rows are served by another.
    removed, _ = find_superseded(listing)
    rewritten: dict[str, Record] = {}
    damaged = {**listing.broken, **listing.lacking}
    rows = 0
    for name, record in listing.standing.items():
        if kept is None:
            break
        try:
            left, rejected = _count_kept(listing, record, kept)
        except DamagedShard as error:
            if (listing.shards / name).exists():
                damaged[name] = str(error)
            continue  # or removed since it was listed, where this is a dry run
        lost = record.rows - left
        if not left and not rejected:
            removed[name] = record
            rows += lost
        elif record.rows and lost >= SHARE * record.rows:
            rewritten[name] = record
            rows += lost
    return Steps(removed, rewritten, rows, damaged, find_leftovers(listing))


def prune_store(
    folder: Path,
    kept: KeptContents | None,
    *,
    done: bool = False,
    moved: Callable[[int], None] = lambda _: None,
    waiting: Callable[[str], None] = lambda _: None,
) -> Pruning:
    """Remove what `kept` does not refer to; a dry run unless `done`.

    Parameters
    ----------
    folder : Path
    kept : Kept or None
        None: only what no record refers to goes.
    done : bool
        Do it.
    moved : callable
        Hears how many shards are done.
    waiting : callable
        Hears what is waited for: another housekeeper of the store.

    Returns
    -------
    Pruning
        With what could not be removed; the rest went nevertheless.

    Raises
    ------
    NewerFormat, StoreError
        Nothing was touched; or somebody stands still in the store, and what was done stays done.
    OSError
        Disk full and its kin while a shard was written anew; the store is whole.
    """
    if not done:
        return _pruned(folder, kept, done, moved)
    with housekeeping(folder, "store prune", waiting):
        return _pruned(folder, kept, done, moved)


def _pruned(folder: Path, kept: KeptContents | None, done: bool, moved: Callable[[int], None]) -> Pruning:
    listing = list_store(folder)
    steps = plan_pruning(listing, kept)
    removed, damaged, written, rewritten = Removal(), dict(steps.damaged), 0, 0
    keeps = keeper(listing, kept)
    if done:
        # First, since a shard written below may have the name of a file that a killed prune left.
        remove_leftovers(listing, steps.leftovers, removed)
        removed.records(listing.shards, steps.removed)
        moved(len(steps.removed))
        for name, record in steps.rewritten.items():
            try:
                fresh = rewrite(listing, {name: record}, keeps)
            except DamagedShard as error:
                damaged[name] = str(error)
                continue
            finally:
                moved(1)
            removed.records(listing.shards, {name: record})
            written += fresh.file_bytes if fresh else 0
            rewritten += 1
        freed = removed.size - written
    else:
        rewritten = len(steps.rewritten)
        freed = _estimate(listing, steps, keeps)
    return Pruning(
        folder,
        done,
        steps.rows,
        len([name for name in steps.removed if name not in listing.superseded]),
        rewritten,
        steps.leftovers,
        freed,
        damaged,
        dict(removed.failed),
    )


def _count_kept(listing: Listing, record: Record, kept: KeptContents) -> tuple[int, int]:
    """Count the kept rows and the kept rejections of a record."""
    keeps = keeper(listing, kept)
    rows = int(keeps(read_contents(listing.shards, record)).sum())
    rejected = np.frombuffer(bytes.fromhex("".join(r.content for r in record.rejected)), np.uint8)
    return rows, int(keeps(rejected.reshape(-1, 32)).sum())


def keeper(listing: Listing, kept: KeptContents | None) -> Keeps:
    """Make the test whether keys are of kept contents."""
    width = CONTENT_BYTES if listing.header.spec.views else 32
    return lambda keys: np.ones(len(keys), bool) if kept is None else kept.contains(keys, width)


def _estimate(listing: Listing, steps: Steps, keeps: Keeps) -> int:
    """Estimate the bytes to be freed, without headers of new shards."""
    parts = [name for record in steps.removed.values() for name in committed_files(record)]
    size = sizes_of(listing.shards, [*parts, *steps.removed]) + sizes_of(listing.folder, steps.leftovers)
    row = listing.header.spec.row_bytes + 32
    for record in steps.rewritten.values():
        with contextlib.suppress(DamagedShard):  # removed since it was listed
            size += row * int((~keeps(read_contents(listing.shards, record))).sum())
    return size
