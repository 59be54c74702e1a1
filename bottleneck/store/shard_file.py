"""Read a shard's files and hash each block before its first use."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck.errors import DamagedShard, ReadFailure, StoreError
from bottleneck.schema import Record
from bottleneck.store.record import READ_FLAGS, count_blocks, hash_block, hash_content, read_file, read_range

TYPES: Mapping[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}

#: Python keeps a descriptor for each map before 3.13: then maps take a quarter of those that the process may have.
MAPS_NEED_DESCRIPTORS = sys.version_info < (3, 13)


def is_absence(error: OSError) -> bool:
    """Tell whether the file is absent (or no file), not unreadable."""
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR)


class ShardFile:
    """The files of one record, opened only while they are read.

    Parameters
    ----------
    folder : Path
        The store's ``shards/``.
    record : Record
    mapped : bool
        False reads blocks of rows with pread, for file systems that cannot be mapped or may fail under a map.
    """

    def __init__(self, folder: Path, record: Record, *, mapped: bool = True) -> None:
        self.folder, self.record, self.mapped = folder, record, mapped
        self._width = int(np.prod(record.shape, dtype=np.int64))

    @property
    def block_count(self) -> int:
        """Number of its hashed blocks."""
        return count_blocks(self.record)

    def content(self) -> np.ndarray:
        """Read the contents of the rows, (rows, 32) uint8, checked."""
        record = self.record
        with self._open() as file:
            raw = self._pread(file, record.rows * 32, record.content_offset)
        if hash_content(record.id, raw) != record.content_sha256:
            raise self.damaged("its content column is not what was committed")
        return np.frombuffer(raw, np.uint8).reshape(-1, 32)

    def check_sizes(self) -> None:
        """Check its files' sizes: no claim of a record is believed before.

        Raises
        ------
        DamagedShard
        """
        if not self.record.rows:
            return
        for what, name, expected in self._parts():
            try:
                size = (self.folder / name).lstat().st_size
            except FileNotFoundError as error:
                raise self._gone(what) from error
            if size != expected:
                raise self.damaged(f"its {what} has {size} bytes; {expected} were committed")

    def check(self, blocks: Sequence[int]) -> None:
        """Hash these blocks of rows. Raises `DamagedShard` for the first wrong one."""
        record = self.record
        listing = self._listing()
        block_bytes = record.block_rows * self._width * TYPES[record.dtype].itemsize
        end = record.rows * self._width * TYPES[record.dtype].itemsize
        with self._open() as file:
            for block in blocks:
                start = block * block_bytes
                # By pread, not through the map: a bad sector then raises an error instead of a signal.
                data = self._pread(file, min(block_bytes, end - start), record.features_offset + start)
                if hash_block(record.id, block, data) != listing[32 * block : 32 * block + 32]:
                    first = block * record.block_rows
                    stop = min(first + record.block_rows, record.rows)
                    raise self.damaged(f"rows {first} to {stop - 1} are not what was committed", first, stop)

    def map(self) -> np.ndarray | None:
        """Map the rows (rows, width); None where the file cannot be mapped."""
        record = self.record
        if not self.mapped:
            return None
        options: dict[str, Any] = {} if MAPS_NEED_DESCRIPTORS else {"trackfd": False}
        with self._open() as file:
            try:
                whole = mmap.mmap(file, 0, access=mmap.ACCESS_READ, **options)
            except OSError:
                self.mapped = False
                return None
        flat = np.frombuffer(whole, TYPES[record.dtype], record.rows * self._width, record.features_offset)
        return flat.reshape(record.rows, self._width)

    def read(self, first: int, stop: int) -> np.ndarray:
        """Read rows `first` to `stop` by pread: (n, width)."""
        dtype = TYPES[self.record.dtype]
        row_bytes = self._width * dtype.itemsize
        with self._open() as file:
            data = self._pread(
                file, (stop - first) * row_bytes, self.record.features_offset + first * row_bytes
            )
        return np.frombuffer(data, dtype).reshape(-1, self._width)

    def damaged(self, what: str, first: int = 0, stop: int | None = None) -> DamagedShard:
        """Make the error that names this shard and its rows, or all."""
        return DamagedShard(
            f"shard {self.record.id} in {self.folder}: {what}. No such row is served; "
            "`bottleneck store verify --repair SOURCE` recomputes just these rows",
            shard=self.record.id,
            rows=(first, self.record.rows if stop is None else stop),
        )

    def _gone(self, what: str) -> DamagedShard:
        """Make the error for a lost or rightly removed file."""
        if any(self.folder.glob(f"{self.record.id}*.json")):
            return self.damaged(f"its {what} is gone")
        return DamagedShard(
            f"shard {self.record.id} in {self.folder} was removed since the store was opened, as `store compact`, "
            "`store prune` and repairs do. No such row is served; open the store again (run the same command again)",
            shard=self.record.id,
            rows=(0, self.record.rows),
        )

    def _listing(self) -> bytes:
        record = self.record
        try:
            listing = read_file(self.folder, record.blocks, 32 * self.block_count)
        except OSError as error:
            if is_absence(error):
                raise self._gone("list of block hashes") from error
            raise ReadFailure.of(self.folder / record.blocks, error) from error
        except StoreError as error:
            raise self.damaged(str(error)) from error
        if hashlib.sha256(listing).hexdigest() != record.blocks_root:
            raise self.damaged("its list of block hashes is not what was committed")
        return listing

    def _parts(self) -> list[tuple[str, str, int]]:
        """List what must be here: in words, name and bytes."""
        return [
            ("list of block hashes", self.record.blocks, 32 * self.block_count),
            ("file", self.record.shard, self.record.file_bytes),
        ]

    def _before_opening(self) -> None:
        """Fetch the shard, where it is not here yet."""

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        self._before_opening()
        path = self.folder / self.record.shard
        try:
            descriptor = os.open(path, READ_FLAGS)
        except OSError as error:
            if is_absence(error):
                raise self._gone("file") from error
            raise ReadFailure.of(path, error) from error
        try:
            size = os.fstat(descriptor).st_size
            if size != self.record.file_bytes:
                raise self.damaged(f"its file has {size} bytes; {self.record.file_bytes} were committed")
            yield descriptor
        finally:
            os.close(descriptor)

    def _pread(self, descriptor: int, count: int, offset: int) -> bytes:
        try:
            return read_range(descriptor, offset, offset + count)
        except OSError as error:  # a read that fails proves no damage
            raise ReadFailure.of(self.folder / self.record.shard, error) from error
