"""Check a shard's files against the record they were committed with."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bottleneck.errors import DamagedShard, StoreError
from bottleneck.schema import Record
from bottleneck.store.record import (
    READ_FLAGS,
    count_blocks,
    hash_block,
    hash_content,
    read_file,
    read_range,
    root_of,
)

_PIECE = 4 << 20


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


class ShardRows(NamedTuple):
    """A shard's rows, every byte of its file checked."""

    keys: np.ndarray
    features: np.ndarray


def check_shard(folder: Path, name: str, record: Record, moved: Callable[[int], None]) -> list[Damage]:
    """List what of `record`'s files is not what was committed."""
    if not record.rows:
        return []

    def damage(why: str, rows: tuple[int, int] | None = None, lost: bool = True) -> Damage:
        return Damage(name, record.id, rows, why, lost)

    try:
        listing = read_file(folder, record.blocks, 32 * count_blocks(record))
    except (OSError, StoreError) as error:
        return [damage(_reason(error, record.blocks), lost=_is_lost(error))]
    hashes = [listing[start : start + 32] for start in range(0, len(listing), 32)]
    if root_of(hashes) != record.blocks_root:
        return [damage(f"{record.blocks} is not what was committed")]
    damages: list[Damage] = []
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
                    damages.append(
                        damage(f"rows {rows[0]} to {rows[1] - 1} are not what was committed", rows)
                    )
            content = _read(descriptor, record.content_offset, record.content_offset + record.rows * 32)
    except (OSError, StoreError) as error:
        return [damage(_reason(error, record.shard), lost=_is_lost(error))]
    if hash_content(record.id, content) != record.content_sha256:
        damages.append(damage("its content column is not what was committed"))
    if not damages and whole.hexdigest() != record.file_sha256:
        damages.append(damage("its file is not what was committed, though its rows are"))
    return _joined(damages)


def read_shard(folder: Path, record: Record) -> ShardRows:
    """Read the rows of one shard, after checking its whole file.

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
    """Read and check a shard's contents, (rows, 32) uint8. Raises `DamagedShard`."""
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


def _pieces(record: Record) -> Iterator[tuple[int, int, int | None]]:
    """Cut a shard's file into its blocks of rows and bounded pieces."""
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
    descriptor = os.open(folder / record.shard, READ_FLAGS)
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
    data = read_range(descriptor, start, stop)
    if len(data) < stop - start:
        raise StoreError("its file ended while it was read")
    return data


def _joined(damages: list[Damage]) -> list[Damage]:
    joined: list[Damage] = []
    for item in damages:
        last = joined[-1] if joined else None
        if last is not None and last.rows and item.rows and last.rows[1] == item.rows[0]:
            rows = (last.rows[0], item.rows[1])
            why = f"rows {rows[0]} to {rows[1] - 1} are not what was committed"
            joined[-1] = last._replace(rows=rows, why=why)
        else:
            joined.append(item)
    return joined


def _is_lost(error: Exception) -> bool:
    return not isinstance(error, OSError) or isinstance(error, FileNotFoundError)


def _reason(error: Exception, name: str) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{name} is gone"
    if isinstance(error, OSError):
        return f"{name} could not be read: {error.strerror or error}"
    return str(error)
