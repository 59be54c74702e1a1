"""What a source lists, as columns: 100 bytes a file instead of an object each, sorted by path."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bottleneck.schema import Entry

_BATCH = 1 << 14
#: Arrow's plain binary type counts bytes in 32 bits; rows are given out in pieces far below that.
_PIECE = 1 << 20


@dataclass
class Listing:
    """The entries of one scan, in order of their path's bytes.

    Attributes
    ----------
    paths : pyarrow.LargeBinaryArray
    signatures : tuple of numpy.ndarray
        Four columns of (n,) int64: see `Entry`.
    labels, groups, splits : pyarrow.ChunkedArray of string
    named : numpy.ndarray
        (n,) bool: a table names the file.
    """

    paths: pa.LargeBinaryArray
    signatures: tuple[np.ndarray, ...]
    labels: pa.ChunkedArray
    groups: pa.ChunkedArray
    splits: pa.ChunkedArray
    named: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)


def collect(entries: Iterable[Entry], moved: Callable[[int], object] = lambda count: None) -> Listing:
    """Entries in any order as a `Listing`; `moved` is told how many came, batch by batch.

    Examples
    --------
    >>> listing = collect([Entry(b"b", (1, 2, 3, 4)), Entry(b"a", (5, 6, 7, 8), "cat")])
    >>> listing.paths.to_pylist(), listing.labels.to_pylist(), listing.signatures[0].tolist()
    ([b'a', b'b'], ['cat', None], [5, 1])
    """
    paths: list[pa.Array] = []
    numbers: tuple[list[np.ndarray], ...] = ([], [], [], [])
    texts: tuple[list[pa.Array], ...] = ([], [], [])
    named: list[np.ndarray] = []
    stream = iter(entries)
    while batch := list(islice(stream, _BATCH)):
        path, signature, *words, name = zip(*batch, strict=True)
        paths.append(pa.array(path, pa.large_binary()))
        rows = np.fromiter(chain.from_iterable(signature), np.int64, 4 * len(batch)).reshape(-1, 4)
        for column, kept in enumerate(numbers):
            kept.append(rows[:, column].copy())
        for word, texts_kept in zip(words, texts, strict=True):
            texts_kept.append(pa.array(word, pa.string()))
        named.append(np.array(name, bool))
        moved(len(batch))
    # One column at a time, its parts let go as soon as they are joined: the peak is then one column's copy.
    joined = _joined(paths, pa.large_binary())
    order = pc.sort_indices(joined)
    at = order.to_numpy()
    joined = joined.take(order)
    signatures = tuple(_gathered(kept, at, np.int64) for kept in numbers)
    labels, groups, splits = (pa.chunked_array([_joined(kept, pa.string()).take(order)]) for kept in texts)
    return Listing(joined, signatures, labels, groups, splits, _gathered(named, at, np.bool_))


def _joined(parts: list[pa.Array], kind: pa.DataType) -> pa.Array:
    whole = pa.concat_arrays(parts) if parts else pa.array([], kind)
    parts.clear()
    return whole


def _gathered(parts: list[np.ndarray], at: np.ndarray, kind: type[np.generic]) -> np.ndarray:
    whole = np.concatenate(parts) if parts else np.zeros(0, kind)
    parts.clear()
    return whole[at]


def plain_paths(paths: pa.LargeBinaryArray) -> pa.ChunkedArray:
    """The same values with 32-bit offsets, in as many pieces as these allow."""
    pieces = [
        pa.concat_arrays([paths.slice(start, _PIECE)]).cast(pa.binary())
        for start in range(0, len(paths), _PIECE)
    ]
    return pa.chunked_array(pieces, pa.binary())


def fixed_binary(rows: np.ndarray) -> pa.FixedSizeBinaryArray:
    """(n, 32) uint8 as an Arrow column, without a copy."""
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))]
    )
