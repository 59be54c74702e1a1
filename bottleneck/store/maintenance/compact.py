"""Rewrite many small shards as few. A kill harms nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottleneck.errors import DamagedShard
from bottleneck.schema import Record, json_fields
from bottleneck.store.listing import Listing, list_store
from bottleneck.store.locks import housekeeping
from bottleneck.store.maintenance.removal import Removal
from bottleneck.store.maintenance.rewrite import find_superseded, rewrite
from bottleneck.store.maintenance.shard_check import read_shard
from bottleneck.store.record import committed_files

#: Large enough that a store of millions of rows has hundreds of shards, small enough to be built in memory.
TARGET = 256 << 20

_MOST_REJECTED = 20_000  # a record is read whole


@dataclass(frozen=True)
class Compaction:
    """The result of compacting one store.

    Attributes
    ----------
    folder : Path
    before, after : int
        Records that count.
    rows : int
        Rows that were written again.
    freed : int
        Bytes of files removed less bytes written.
    damaged : mapping of str to str
        Records that were left alone, and why.
    failed : mapping of str to str
        Files that are superseded and could not be removed, and why.
    """

    folder: Path
    before: int
    after: int
    rows: int
    freed: int
    damaged: Mapping[str, str]
    failed: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Describe the compaction for a program."""
        counts = json_fields(self, "before", "after", "rows", "freed", "damaged", "failed")
        return {"store": self.folder.name, **counts}


def plan_compaction(records: Mapping[str, Record], target: int = TARGET) -> list[dict[str, Record]]:
    """Group small records of equal environment and canary, by name.

    Parameters
    ----------
    records : mapping of str to Record
        Those that count, by name.
    target : int
        Bytes of a shard; what has half of that is left as it is.

    Returns
    -------
    list of dict of str to Record
        Groups of two or more.
    """
    alike: dict[object, list[tuple[str, Record]]] = {}
    for name, record in sorted(records.items()):
        if record.file_bytes < target // 2:
            key = (tuple(sorted(record.environment.items())), record.canary)
            alike.setdefault(key, []).append((name, record))
    groups: list[dict[str, Record]] = []
    for members in alike.values():
        group: dict[str, Record] = {}
        size = rejected = 0
        for name, record in members:
            if group and (
                size + record.file_bytes > target or rejected + len(record.rejected) > _MOST_REJECTED
            ):
                groups.append(group)
                group, size, rejected = {}, 0, 0
            group[name] = record
            size += record.file_bytes
            rejected += len(record.rejected)
        groups.append(group)
    return [group for group in groups if len(group) > 1]


def compact_store(
    folder: Path,
    *,
    target: int = TARGET,
    moved: Callable[[int], None] = lambda _: None,
    waiting: Callable[[str], None] = lambda _: None,
) -> Compaction:
    """Rewrite the small shards of the store in `folder` as few.

    A group's new shard and its record, which supersedes the group's, are durable before anything is removed.

    Parameters
    ----------
    folder : Path
    target : int
        Bytes of a shard.
    moved : callable
        Hears how many bytes of shards are done.
    waiting : callable
        Hears what is waited for: another housekeeper of the store.

    Raises
    ------
    NewerFormat, StoreError
        Nothing was touched; or somebody stands still in the store, and what was done stays done.
    OSError
        Disk full and its kin: what was done stays done, and the store is whole.
    """
    with housekeeping(folder, "store compact", waiting):
        return _compacted(folder, target, moved)


def _compacted(folder: Path, target: int, moved: Callable[[int], None]) -> Compaction:
    removed = Removal()
    listing = list_store(folder)
    damaged = {**listing.broken, **listing.lacking}
    before = len(listing.standing)
    # First remove what an earlier compaction left when it was killed.
    old, parts = find_superseded(listing)
    removed.records(listing.shards, old)
    removed.parts(listing.shards, parts)
    written = rows = groups = members = 0
    for group in plan_compaction(listing.standing, target):
        size = sum(record.file_bytes for record in group.values())
        try:
            record = rewrite(listing, group)
        except DamagedShard:
            group = {name: r for name, r in group.items() if _is_sound(listing, name, r, damaged)}
            record = rewrite(listing, group) if len(group) > 1 else None
        if record is not None:
            removed.records(listing.shards, group)
            written += sum(committed_files(record).values())
            rows += record.rows
            groups, members = groups + 1, members + len(group)
        moved(size)
    after = before - members + groups
    return Compaction(folder, before, after, rows, removed.size - written, damaged, dict(removed.failed))


def bytes_to_compact(folder: Path, target: int = TARGET) -> int:
    """Count the bytes of shards that `compact_store` would rewrite."""
    groups = plan_compaction(list_store(folder).standing, target)
    return sum(record.file_bytes for group in groups for record in group.values())


def _is_sound(listing: Listing, name: str, record: Record, damaged: dict[str, str]) -> bool:
    try:
        if record.rows:
            read_shard(listing.shards, record)
    except DamagedShard as error:
        damaged[name] = str(error)
        return False
    return True
