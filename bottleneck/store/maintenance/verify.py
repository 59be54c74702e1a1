"""Every byte of a store against what was committed. Reads only; what it finds is named, never mended here."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bottleneck.errors import DamagedShard, StoreError
from bottleneck.schema import Record, json_fields
from bottleneck.store.canary import CANARY, canary_values
from bottleneck.store.listing import Listing, list_store
from bottleneck.store.locks import reading
from bottleneck.store.maintenance.structure import StructureChecker
from bottleneck.store.record import hash_block, hash_content, read_file, root_of, superseded

_PIECE = 4 << 20

#: How often the store is listed anew, while what was listed is removed from it.
_LOOKS = 5


class Damage(NamedTuple):
    """One thing that is not as it was committed.

    Attributes
    ----------
    name : str
        The record's (or other) file that is concerned.
    shard : str
        The shard's id, empty where no shard is concerned.
    rows : tuple of int or None
        First and one past the last row that is wrong; None where the whole of it is.
    why : str
    lost : bool
        False where the disk refused to be read: nothing may be removed for that.
    """

    name: str
    shard: str
    rows: tuple[int, int] | None
    why: str
    lost: bool = True


@dataclass(frozen=True)
class Verdict:
    """What `verify` found in one store.

    Attributes
    ----------
    folder : Path
    shards, rows, size : int
        Shards, rows and bytes that were read and hashed.
    damaged : tuple of Damage
    orphans : tuple of str
        Files that no record names, superseded records and unfinished temporaries: harmless, and `store prune` or
        `store compact` removes them.
    digest : str
        sha256 over the sorted lines ``<shard file> <sha256>`` of the sound shards that count.
    remarks : tuple of str
        What is worth knowing and no damage.
    """

    folder: Path
    shards: int
    rows: int
    size: int
    damaged: tuple[Damage, ...]
    orphans: tuple[str, ...]
    digest: str
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Describe the verdict for a program."""
        return {
            **json_fields(self, "shards", "rows"),
            "bytes": self.size,
            **json_fields(self, "digest", "damaged", "orphans", "remarks"),
        }


class ShardRows(NamedTuple):
    """A shard's rows, every byte of its file checked."""

    keys: np.ndarray
    features: np.ndarray


def verify_store(folder: Path, moved: Callable[[int], None] = lambda _: None) -> Verdict:
    """Hash every record, shard and list of block hashes of the store in `folder`, and look at each file's structure.

    What is committed or removed meanwhile is no damage. What went is left out; what came is looked at too, but for what
    comes after the last of five looks.

    Parameters
    ----------
    folder : Path
    moved : callable
        Told how many bytes were read, as they are.

    Returns
    -------
    Verdict

    Raises
    ------
    NewerFormat, StoreError
        Not a store that this version reads; nothing was touched.
    """
    seen: dict[str, tuple[Record, list[Damage]]] = {}
    listing = first = list_store(folder)
    with StructureChecker() as structure:
        for _ in range(_LOOKS):
            for name, record in sorted(listing.records.items()):
                if name not in seen or seen[name][0] != record:
                    seen[name] = record, _check(listing.shards, name, record, structure, moved)
            before, listing = listing, list_store(folder)
            removed = before.records.keys() - listing.records.keys()
            if not removed and listing.records.keys() <= seen.keys():
                break
        if listing.records != first.records:
            # Its files may have been removed under the look at them, and be back.
            with reading(folder):
                listing = list_store(folder)
                for name in [
                    name for name, (_, damage) in seen.items() if damage and name in listing.records
                ]:
                    record = listing.records[name]
                    seen[name] = record, _check(listing.shards, name, record, structure, moved)
    records = {name: record for name, record in listing.records.items() if name in seen}
    damaged = [Damage(name, name[:16], None, why) for name, why in sorted(listing.broken.items())]
    damaged += [item for name in sorted(records) for item in seen[name][1]]
    wrong = {item.name for item in damaged}
    # A record that a damaged one supersedes still counts: `listing` saw sizes only, the hashes are known now.
    away = superseded({name: record for name, record in records.items() if name not in wrong})
    sound = {name: r for name, r in records.items() if name not in wrong and name not in away}
    damaged = [item for item in damaged if item.name not in away]
    canary, remarks = _check_canary(listing)
    orphans = [*listing.orphans, *sorted(away & set(listing.records)), *listing.temporaries]
    with_rows = [record for record in sound.values() if record.rows]
    return Verdict(
        folder,
        len(with_rows),
        sum(record.rows for record in with_rows),
        sum(record.file_bytes for record in with_rows),
        (*damaged, *canary),
        tuple(orphans),
        digest_of(with_rows),
        tuple(remarks),
    )


def _check(
    folder: Path, name: str, record: Record, structure: StructureChecker, moved: Callable[[int], None]
) -> list[Damage]:
    found = check_shard(folder, name, record, moved)
    if not found and record.rows:
        why = structure.check(folder, record)
        found = [Damage(name, record.id, None, why)] if why else []
    return found


def bytes_of(folder: Path) -> int:
    """How many bytes of shards `verify_store` will read there; 0 where nothing can be listed."""
    with contextlib.suppress(StoreError):
        return sum(record.file_bytes for record in list_store(folder).records.values())
    return 0


def digest_of(records: list[Record]) -> str:
    """One sha256 for the set of shard files that `records` stand for.

    Examples
    --------
    >>> digest_of([]) == hashlib.sha256(b"").hexdigest()
    True
    """
    lines = sorted({f"{record.shard} {record.file_sha256}\n" for record in records})
    return hashlib.sha256("".join(lines).encode("ascii")).hexdigest()


def check_shard(folder: Path, name: str, record: Record, moved: Callable[[int], None]) -> list[Damage]:
    """What of `record`'s files is not what was committed: the whole file, each block, contents, block hashes."""
    if not record.rows:
        return []

    def damage(why: str, rows: tuple[int, int] | None = None, lost: bool = True) -> Damage:
        return Damage(name, record.id, rows, why, lost)

    blocks = -(-record.rows // record.block_rows)
    try:
        listing = read_file(folder, record.blocks, 32 * blocks)
    except (OSError, StoreError) as error:
        return [damage(_reason(error, record.blocks), lost=_is_lost(error))]
    hashes = [listing[start : start + 32] for start in range(0, len(listing), 32)]
    if root_of(hashes) != record.blocks_root:
        return [damage(f"{record.blocks} is not what was committed")]
    found: list[Damage] = []
    whole = hashlib.sha256()
    try:
        with _opened(folder, record) as descriptor:
            for start, stop, block in _pieces(record):
                data = _read(descriptor, start, stop)
                whole.update(data)
                moved(len(data))
                if block is not None and hash_block(record.id, block, data) != hashes[block]:
                    first = block * record.block_rows
                    rows = (first, min(first + record.block_rows, record.rows))
                    found.append(damage(f"rows {rows[0]} to {rows[1] - 1} are not what was committed", rows))
            content = _read(descriptor, record.content_offset, record.content_offset + record.rows * 32)
    except (OSError, StoreError) as error:
        return [damage(_reason(error, record.shard), lost=_is_lost(error))]
    if hash_content(record.id, content) != record.content_sha256:
        found.append(damage("its content column is not what was committed"))
    if not found and whole.hexdigest() != record.file_sha256:
        found.append(damage("its file is not what was committed, though its rows are"))
    return _joined(found)


def read_shard(folder: Path, record: Record) -> ShardRows:
    """The rows of one shard, after the hash of its whole file was found right.

    Raises
    ------
    DamagedShard
        It was not, or the file is not there or cannot be read.
    """
    try:
        data = read_file(folder, record.shard, record.file_bytes)
    except (OSError, StoreError) as error:
        raise DamagedShard(f"shard {record.id}: {_reason(error, record.shard)}") from error
    if hashlib.sha256(data).hexdigest() != record.file_sha256:
        raise DamagedShard(f"shard {record.id} in {folder}: its file is not what was committed")
    count = record.rows * int(np.prod(record.shape, dtype=np.int64))
    features = np.frombuffer(data, np.dtype(record.dtype).newbyteorder("<"), count, record.features_offset)
    keys = np.frombuffer(data, np.uint8, record.rows * 32, record.content_offset)
    return ShardRows(keys.reshape(-1, 32), features.reshape(record.rows, *record.shape))


def read_contents(folder: Path, record: Record) -> np.ndarray:
    """(rows, 32) uint8, checked against the record. Raises `DamagedShard`."""
    if not record.rows:
        return np.zeros((0, 32), np.uint8)
    try:
        with _opened(folder, record) as descriptor:
            raw = _read(descriptor, record.content_offset, record.content_offset + record.rows * 32)
    except (OSError, StoreError) as error:
        raise DamagedShard(f"shard {record.id}: {_reason(error, record.shard)}") from error
    if hash_content(record.id, raw) != record.content_sha256:
        raise DamagedShard(f"shard {record.id} in {folder}: its content column is not what was committed")
    return np.frombuffer(raw, np.uint8).reshape(-1, 32)


def _check_canary(listing: Listing) -> tuple[list[Damage], list[str]]:
    """`canary.f32`: its size, finite values, and that some record was made with it."""
    remedy = "remove that one file, and the next `extract` makes it anew"
    try:
        data = read_file(listing.folder, CANARY, 4 * canary_values(listing.header.spec))
    except FileNotFoundError:
        return [], ["canary.f32 is not there; the next `extract` makes it"] if listing.records else []
    except (OSError, StoreError) as error:
        return [Damage(CANARY, "", None, f"{error}; {remedy}", _is_lost(error))], []
    if not np.isfinite(np.frombuffer(data, "<f4")).all():
        return [Damage(CANARY, "", None, f"it holds values that are no numbers; {remedy}")], []
    known = {record.canary for record in listing.records.values()}
    if known and hashlib.sha256(data).hexdigest() not in known:
        return [], ["no shard that is there was made with the very canary.f32 of this store"]
    return [], []


def _pieces(record: Record) -> Iterator[tuple[int, int, int | None]]:
    """The file from its first byte to its last: blocks of rows each in one piece, the rest in bounded ones."""
    row = int(np.prod(record.shape, dtype=np.int64)) * np.dtype(record.dtype).itemsize
    first, end = record.features_offset, record.features_offset + record.rows * row
    for start in range(0, first, _PIECE):
        yield start, min(start + _PIECE, first), None
    step = record.block_rows * row
    for block, start in enumerate(range(first, end, step)):
        yield start, min(start + step, end), block
    for start in range(end, record.file_bytes, _PIECE):
        yield start, min(start + _PIECE, record.file_bytes), None


@contextlib.contextmanager
def _opened(folder: Path, record: Record) -> Iterator[int]:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(folder / record.shard, flags)
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise StoreError(f"{record.shard} is no regular file")
        if state.st_size != record.file_bytes:
            raise StoreError(f"{record.shard} has {state.st_size} bytes; {record.file_bytes} were committed")
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int, start: int, stop: int) -> bytes:
    parts: list[bytes] = []
    while start < stop:
        part = os.pread(descriptor, stop - start, start)
        if not part:
            raise StoreError("its file ended while it was read")
        parts.append(part)
        start += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _joined(found: list[Damage]) -> list[Damage]:
    """Neighbouring runs of wrong rows as one."""
    joined: list[Damage] = []
    for item in found:
        last = joined[-1] if joined else None
        if last is not None and last.rows and item.rows and last.rows[1] == item.rows[0]:
            rows = (last.rows[0], item.rows[1])
            why = f"rows {rows[0]} to {rows[1] - 1} are not what was committed"
            joined[-1] = last._replace(rows=rows, why=why)
        else:
            joined.append(item)
    return joined


def _is_lost(error: Exception) -> bool:
    """False for a disk that refused: the bytes may be there yet."""
    return not isinstance(error, OSError) or isinstance(error, FileNotFoundError)


def _reason(error: Exception, name: str) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{name} is gone"
    if isinstance(error, OSError):
        return f"{name} could not be read: {error.strerror or error}"
    return str(error)
