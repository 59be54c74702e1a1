"""Copy a store to another cache. A kill harms nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bottleneck.errors import ForeignEnvironment, NewerFormat, StoreError
from bottleneck.schema import Record
from bottleneck.schema.strict_json import MalformedDocument
from bottleneck.store.canary import CANARY, CANARY_IMAGES, canary_distance, canary_tolerance
from bottleneck.store.header import StoreHeader
from bottleneck.store.locations import RECIPE, SHARDS, StoreLocation, locate_store, location_header
from bottleneck.store.record import RECORD_NAME, check_fits, committed_files, parse_record, superseded

#: How often the source is listed again, while what was listed is removed from it.
_LOOKS = 10


@dataclass(frozen=True)
class Copied:
    """The result of `copy_store`.

    Attributes
    ----------
    source, target : str
        Paths or URLs of the two folders.
    shards, rows, size : int
        Shards, rows and bytes that were written.
    present : int
        Shards that were there already.
    damaged : mapping of str to str
        Name of a record that was not copied, and why.
    """

    source: str
    target: str
    shards: int = 0
    rows: int = 0
    size: int = 0
    present: int = 0
    damaged: Mapping[str, str] = field(default_factory=dict)


def copy_store(
    source: StoreLocation,
    cache: str,
    moved: Callable[[int], None] = lambda _: None,
    waiting: Callable[[str], None] = lambda _: None,
) -> Copied:
    """Copy a store to the cache at a path or a URL.

    First come `recipe.json` and the canary, then shard after shard: its file, its block hashes, and the record that
    makes them count. Every byte is checked on its way against the record; a damaged shard is passed over and named.
    What is there already is not written again: by its bytes on a disk, by its size and its record behind a URL.

    During a copy to a disk nobody else keeps house in the target, and nothing there is removed. Behind a URL there are
    no locks, and none are needed: nothing there is ever removed. What is compacted in the source meanwhile is looked
    for again.

    Parameters
    ----------
    source : StoreLocation
    cache : str
        Root of the cache to copy to.
    moved : callable
        Hears how many bytes of shards are done.
    waiting : callable
        Hears what is waited for: another housekeeper of the target.

    Returns
    -------
    Copied

    Raises
    ------
    NewerFormat
        The store, or a record in it, is of a newer version.
    ForeignEnvironment
        There are rows of another machine there, whose canary differs by more than rounding.
    StoreError
        One of the two cannot be read or written.
    """
    header = location_header(source)
    if header is None:
        raise StoreError(f"{source.name} has no recipe.json: it is no store")
    target, header_there = locate_store(cache, header.spec)
    if header_there is None:
        target.write(RECIPE, source.read(RECIPE) or b"")
    with target.housekeeping("store copy", waiting):
        _copy_canary(source, target, header)
        return _copied(source, target, header, moved)


def _copied(
    source: StoreLocation, target: StoreLocation, header: StoreHeader, moved: Callable[[int], None]
) -> Copied:
    present = dict(target.sizes())
    shards = rows = size = skipped = 0
    done: set[str] = set()
    for _ in range(_LOOKS):
        records, damaged, gone = _standing(source, header)
        for name, record in records.items():
            if name in done:
                continue
            try:
                copied = _copy_shard(source, target, name, record, present)
            except _Damaged as error:
                if source.read(f"{SHARDS}/{name}") is None:
                    gone.append(name)  # with its files: its rows are in another by now, or needed no more
                else:
                    damaged[name] = str(error)
                continue
            finally:
                moved(record.file_bytes)
            done.add(name)
            if copied:
                shards, rows, size = shards + 1, rows + record.rows, size + record.file_bytes
            else:
                skipped += 1
        if not gone:
            break
    else:
        raise StoreError(
            f"{source.name}: shards were removed from it again and again while it was copied; let `store compact` or "
            "`store prune` there end, then run this again. What was copied is whole"
        )
    return Copied(source.name, target.name, shards, rows, size, skipped, damaged)


def _standing(
    source: StoreLocation, header: StoreHeader
) -> tuple[dict[str, Record], dict[str, str], list[str]]:
    """Give records that count, damaged ones with reasons, and vanished ones."""
    records: dict[str, Record] = {}
    damaged: dict[str, str] = {}
    gone: list[str] = []
    sizes = source.sizes()
    for name in sorted(filter(RECORD_NAME.fullmatch, sizes)):
        try:
            data = source.read(f"{SHARDS}/{name}")
            if data is None:
                gone.append(name)
                continue
            records[name] = parse_record(name, data, f"{source.name}/{SHARDS}/{name}")
            check_fits(records[name], header.spec)
        except NewerFormat:
            raise
        except (MalformedDocument, StoreError) as error:
            records.pop(name, None)
            damaged[name] = str(error)
    whole = {
        name: record
        for name, record in records.items()
        if all(sizes.get(p) in (n, -1) for p, n in committed_files(record).items())
    }
    away = superseded(whole)
    return {name: record for name, record in records.items() if name not in away}, damaged, gone


class _Damaged(Exception):
    """This shard cannot be copied."""


def _copy_shard(
    source: StoreLocation, target: StoreLocation, name: str, record: Record, present: Mapping[str, int]
) -> bool:
    """Copy one shard; False if there. Raises `_Damaged` at wrong bytes."""
    if name in present and _holds(target, name, record, present):
        return False
    hashes = (record.file_sha256, record.blocks_root)
    ready: list[tuple[str, bytes]] = []
    for (part, size), wanted in zip(committed_files(record).items(), hashes, strict=False):
        if present.get(part) == size and (not target.local or _hash(target, part) == wanted):
            continue
        try:
            data = source.read(f"{SHARDS}/{part}", size)
        except StoreError as error:
            raise _Damaged(str(error)) from error
        if data is None:
            raise _Damaged(f"{part} is gone")
        if hashlib.sha256(data).hexdigest() != wanted:
            raise _Damaged(f"{part} is not what was committed")
        ready.append((part, data))
    sealed = source.read(f"{SHARDS}/{name}")
    if sealed is None or parse_record(name, sealed, name) != record:
        raise _Damaged("its record changed while it was copied")
    with target.committing():
        return _write_shard(target, name, record, present, ready, sealed)


def _write_shard(
    target: StoreLocation,
    name: str,
    record: Record,
    present: Mapping[str, int],
    ready: Sequence[tuple[str, bytes]],
    sealed: bytes,
) -> bool:
    for part, data in ready:
        # A file of this name that holds other bytes is damaged: its name promises these.
        target.write(f"{SHARDS}/{part}", data, replace=part in present)
    identity = record.id
    names = [name] if not target.local else [name, *(f"{identity}.{k}.json" for k in range(1, 1000))]
    for free in names:
        if target.write(f"{SHARDS}/{free}", sealed) or _record(target, free) == record:
            return True
    raise StoreError(f"shard {identity}: 1,000 damaged records in {target.name}; look at the disk")


def _holds(target: StoreLocation, name: str, record: Record, present: Mapping[str, int]) -> bool:
    """Tell whether a whole record of this task and its files exist."""
    existing = _record(target, name)
    if existing is None or any(present.get(part) != size for part, size in committed_files(existing).items()):
        return False
    if not target.local:
        return True
    hashes = (existing.file_sha256, existing.blocks_root)
    return all(
        _hash(target, part) == wanted for part, wanted in zip(committed_files(existing), hashes, strict=False)
    )


def _record(target: StoreLocation, name: str) -> Record | None:
    try:
        data = target.read(f"{SHARDS}/{name}")
        return None if data is None else parse_record(name, data, f"{target.name}/{SHARDS}/{name}")
    except MalformedDocument:
        return None


def _hash(target: StoreLocation, part: str) -> str:
    return hashlib.sha256(target.read(f"{SHARDS}/{part}") or b"").hexdigest()


def _copy_canary(source: StoreLocation, target: StoreLocation, header: StoreHeader) -> None:
    ours, theirs = source.read(CANARY), target.read(CANARY)
    if ours is None or ours == theirs:
        return
    if theirs is None:
        target.write(CANARY, ours)
        return
    a, b = (np.frombuffer(data[: len(data) // 4 * 4], "<f4") for data in (ours, theirs))
    if len(a) != len(b) or len(a) % CANARY_IMAGES:
        raise StoreError(
            f"{target.name}/{CANARY} has {len(theirs)} bytes, {len(ours)} were expected: it is damaged"
        )
    largest = canary_distance(b, a)
    tolerance = canary_tolerance(header.spec)
    if not largest <= tolerance:
        raise ForeignEnvironment(
            f"{source.name} and {target.name} hold features of machines that differ by {largest:.2g} of their spread "
            f"({tolerance:g} is rounding): mixing them would not be one set. Copy {header.spec.base} to "
            "another cache"
        )
