"""A store opened: the sound records at this moment, an index from content to row, and rows that are checked first."""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck.errors import DamagedShard, NewerFormat, StoreError
from bottleneck.schema import Cache, Record, RejectedContent, StoreSpec
from bottleneck.store.header import Header, find_store
from bottleneck.store.record import RECORD_NAME, hash_block, hash_content, read_file, read_record, root_of
from bottleneck.strict import MalformedDocument

_TYPES: Mapping[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


class ShardFile:
    """One shard's rows behind a memory map; every block is hashed before its first use in this process."""

    def __init__(self, folder: Path, record: Record) -> None:
        self.record = record
        self._folder = folder
        self._map: np.ndarray | None = None
        self._blocks: list[bytes] = []
        self._checked = np.zeros(-(-record.rows // record.block_rows), bool)

    def content(self) -> np.ndarray:
        """Contents of the rows, (rows, 32) uint8, checked against the record."""
        record = self.record
        descriptor = self._descriptor()
        try:
            raw = os.pread(descriptor, record.rows * 32, record.content_offset)
        finally:
            os.close(descriptor)
        if hash_content(record.id, raw) != record.content_sha256:
            raise self._damaged("its content column is not what was committed")
        return np.frombuffer(raw, np.uint8).reshape(-1, 32)

    def take(self, rows: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
        """Copy `rows` of this shard to `places` of `out`."""
        features = self._open()
        needed = np.unique(rows // self.record.block_rows)
        for block in needed[~self._checked[needed]]:
            self._check(int(block), features)
        out[places] = features[rows]

    def check_blocks(self) -> None:
        """That the list of block hashes is there whole, by its size. Raises `DamagedShard`."""
        if not self.record.rows:
            return
        path = self._folder / self.record.blocks
        try:
            size = path.lstat().st_size
        except FileNotFoundError as error:
            raise self._damaged("its list of block hashes is gone") from error
        if size != 32 * len(self._checked):
            raise self._damaged(f"its list of block hashes has {size} bytes")

    def _descriptor(self) -> int:
        path = self._folder / self.record.shard
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError as error:
            raise self._damaged("its file is gone") from error
        size = os.fstat(descriptor).st_size
        if size != self.record.file_bytes:
            os.close(descriptor)
            raise self._damaged(f"its file has {size} bytes; {self.record.file_bytes} were committed")
        return descriptor

    def _open(self) -> np.ndarray:
        if self._map is not None:
            return self._map
        record = self.record
        try:
            listing = read_file(self._folder, record.blocks, 32 * len(self._checked))
        except FileNotFoundError as error:
            raise self._damaged("its list of block hashes is gone") from error
        except StoreError as error:
            raise self._damaged(str(error)) from error
        blocks = [listing[start : start + 32] for start in range(0, len(listing), 32)]
        if root_of(blocks) != record.blocks_root:
            raise self._damaged("its list of block hashes is not what was committed")
        descriptor = self._descriptor()
        try:
            whole = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
        count = record.rows * int(np.prod(record.shape, dtype=np.int64))
        flat = np.frombuffer(whole, _TYPES[record.dtype], count, record.features_offset)
        self._blocks, self._map = blocks, flat.reshape(record.rows, *record.shape)
        return self._map

    def _check(self, block: int, features: np.ndarray) -> None:
        start = block * self.record.block_rows
        data = features[start : start + self.record.block_rows].tobytes()
        if hash_block(self.record.id, block, data) != self._blocks[block]:
            stop = min(start + self.record.block_rows, self.record.rows)
            raise self._damaged(f"rows {start} to {stop - 1} are not what was committed")
        self._checked[block] = True

    def _damaged(self, what: str) -> DamagedShard:
        return DamagedShard(
            f"shard {self.record.id} in {self._folder}: {what}. No such row is served; "
            f"remove {self.record.shard} there and run `bottleneck extract` again: its images are computed anew"
        )


@dataclass(frozen=True, eq=False)
class Store:
    """The sound records of one recipe, as they were when the store was opened.

    Attributes
    ----------
    folder : Path
    header : Header
    shards : tuple of ShardFile
    rejected : mapping of bytes to RejectedContent
        By content, (32,) bytes.
    damaged : mapping of str to str
        Record name to what is wrong with it: its images count as missing.
    """

    folder: Path
    header: Header
    shards: tuple[ShardFile, ...]
    rejected: Mapping[bytes, RejectedContent]
    damaged: Mapping[str, str] = field(default_factory=dict)
    _prefix: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64), repr=False)
    _keys: np.ndarray = field(default_factory=lambda: np.zeros((0, 32), np.uint8), repr=False)
    _shard: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32), repr=False)
    _row: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32), repr=False)

    @property
    def spec(self) -> StoreSpec:
        """What the rows are."""
        return self.header.spec

    def __len__(self) -> int:
        """How many rows there are, by content."""
        return len(self._prefix)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Where each content's row is.

        Parameters
        ----------
        keys : numpy.ndarray
            (n, 32) uint8.

        Returns
        -------
        numpy.ndarray
            (n,) int64 positions for `gather`, -1 where the store has no row.
        """
        return _lookup(self._prefix, self._keys, keys)

    def known(self, keys: np.ndarray) -> np.ndarray:
        """(n,) bool: a row, or a rejection, is there for the content."""
        known = self.find(keys) >= 0
        if self.rejected:
            missing = np.flatnonzero(~known)
            known[missing] = [keys[i].tobytes() in self.rejected for i in missing]
        return known

    def gather(self, positions: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Rows in the order asked for, each block checked before its first use.

        Parameters
        ----------
        positions : numpy.ndarray
            (n,) from `find`, none of them -1.
        out : numpy.ndarray, optional
            (n, *shape) to write to; its dtype may differ from the stored one.

        Returns
        -------
        numpy.ndarray
            (n, *shape) of the storage dtype, or `out`.

        Raises
        ------
        DamagedShard
            Names the shard and its rows.
        """
        if len(positions) and positions.min() < 0:
            raise StoreError(
                f"{int((positions < 0).sum())} of {len(positions)} contents have no row in {self.folder}"
            )
        if out is None:
            out = np.empty((len(positions), *self.spec.shape), _TYPES[self.spec.recipe.dtype])
        shard, row = self._shard[positions], self._row[positions]
        order = np.argsort(shard, kind="stable")
        edges = np.flatnonzero(np.diff(shard[order], prepend=-1, append=-1))
        for start, stop in itertools.pairwise(edges):
            places = order[start:stop]
            self.shards[shard[places[0]]].take(row[places], out, places)
        return out


def open_store(cache: Cache, spec: StoreSpec) -> Store:
    """The store of `spec` as it is now; an empty one where nothing was ever stored. Writes nothing.

    A record that is not sound, or whose files are not there whole, is left out and named in `Store.damaged`.

    Raises
    ------
    NewerFormat
        The store was written by a newer version.
    StoreError
        Its folder cannot be read.
    """
    folder, header = find_store(cache, spec)
    shards: list[ShardFile] = []
    contents: list[np.ndarray] = []
    rejected: dict[bytes, RejectedContent] = {}
    damaged: dict[str, str] = {}
    for name in _record_names(folder / "shards"):
        try:
            record = read_record(folder / "shards", name)
            _check_fits(record, spec)
            shard = ShardFile(folder / "shards", record)
            shard.check_blocks()
            content = shard.content() if record.rows else np.zeros((0, 32), np.uint8)
        except NewerFormat:
            raise
        except (MalformedDocument, StoreError, OSError) as error:
            damaged[name] = str(error)
            continue
        if record.rows:
            shards.append(shard)
            contents.append(content)
        for item in record.rejected:
            rejected[bytes.fromhex(item.content)] = item
    keys, where, row = _index(contents)
    return Store(folder, header, tuple(shards), rejected, damaged, _prefix(keys), keys, where, row)


def _record_names(folder: Path) -> list[str]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{folder} cannot be listed: {error.strerror}") from error
    return sorted(name for name in names if RECORD_NAME.fullmatch(name))


def _check_fits(record: Record, spec: StoreSpec) -> None:
    if record.recipe != spec.recipe.fingerprint:
        raise MalformedDocument(f"of recipe {record.recipe[:12]}, not {spec.recipe.fingerprint[:12]}")
    if record.shape != spec.shape or record.dtype != spec.recipe.dtype:
        raise MalformedDocument(
            f"rows of {record.shape} {record.dtype}, not {spec.shape} {spec.recipe.dtype}"
        )
    end = record.features_offset + record.rows * spec.row_bytes
    if max(end, record.content_offset + record.rows * 32) > record.file_bytes:
        raise MalformedDocument("its offsets lie outside of its file")


def _index(contents: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys sorted by prefix, each once (the first record's row wins), with shard and row numbers."""
    if not contents:
        return np.zeros((0, 32), np.uint8), np.zeros(0, np.int32), np.zeros(0, np.int32)
    keys = np.concatenate(contents)
    shard = np.repeat(np.arange(len(contents), dtype=np.int32), [len(c) for c in contents])
    row = np.concatenate([np.arange(len(c), dtype=np.int32) for c in contents])
    order = np.argsort(_prefix(keys), kind="stable")
    keys, shard, row = keys[order], shard[order], row[order]
    if len(keys) > 1:
        same = np.flatnonzero((keys[1:] == keys[:-1]).all(axis=1)) + 1
        if len(same):
            keys, shard, row = (np.delete(a, same, axis=0) for a in (keys, shard, row))
    return keys, shard, row


def _prefix(keys: np.ndarray) -> np.ndarray:
    """The first eight bytes as one big-endian number."""
    return np.ascontiguousarray(keys[:, :8]).view(">u8").ravel().astype(np.uint64)


def _lookup(prefix: np.ndarray, sorted_keys: np.ndarray, keys: np.ndarray) -> np.ndarray:
    wanted = _prefix(keys)
    found = np.full(len(keys), -1, np.int64)
    place = np.searchsorted(prefix, wanted)
    pending = np.arange(len(keys))
    # One round is the rule; more only where two contents share their first eight bytes.
    while len(pending):
        pending = pending[place[pending] < len(prefix)]
        pending = pending[prefix[place[pending]] == wanted[pending]]
        equal = (sorted_keys[place[pending]] == keys[pending]).all(axis=1)
        found[pending[equal]] = place[pending[equal]]
        pending = pending[~equal]
        place[pending] += 1
    return found
