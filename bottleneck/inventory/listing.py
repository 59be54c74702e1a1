"""Files of a source as sorted columns, 100 bytes a file."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bottleneck.schema import Entry, Signature

_BATCH = 1 << 14
#: Arrow's plain binary type counts bytes in 32 bits; rows are given out in pieces far below that.
_PIECE = 1 << 20


@dataclass
class SourceListing:
    """The entries of one scan, in order of their path's bytes.

    Attributes
    ----------
    paths : pyarrow.LargeBinaryArray
    signatures : tuple of numpy.ndarray
        A column of (n,) int64 for each field of `Signature`.
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


def collect_listing(
    entries: Iterable[Entry], moved: Callable[[int], object] = lambda count: None
) -> SourceListing:
    """Sort entries into a `SourceListing`; call `moved` with each batch's size.

    Examples
    --------
    >>> listing = collect_listing([Entry(b"b", (1, 2, 3, 4, 9)), Entry(b"a", (5, 6, 7, 8, 9), "cat")])
    >>> listing.paths.to_pylist(), listing.labels.to_pylist(), listing.signatures[0].tolist()
    ([b'a', b'b'], ['cat', None], [5, 1])
    """
    paths, numbers, named = _Texts(), array("q"), bytearray()
    words = [_Texts(), _Texts(), _Texts()]
    stream = iter(entries)
    while batch := list(islice(stream, _BATCH)):
        path, signature, *columns, name = zip(*batch, strict=True)
        paths.extend(path)
        numbers.extend(chain.from_iterable(signature))
        for word, column in zip(words, columns, strict=True):
            word.extend([None if text is None else text.encode("utf-8") for text in column])
        named.extend(name)
        moved(len(batch))
    # One column at a time, its unsorted form let go at once, the paths last: the peak is then one column's copy.
    unsorted = paths.take_out()
    order = pc.sort_indices(unsorted)
    at = order.to_numpy()
    table = np.frombuffer(numbers, np.int64).reshape(-1, len(Signature._fields))
    signatures = tuple(table[at, column] for column in range(len(Signature._fields)))
    del table, numbers
    labels, groups, splits = (_sorted_strings(words.pop(0).take_out(), order) for _ in range(3))
    by_table = np.frombuffer(named, np.bool_)[at]
    return SourceListing(unsorted.take(order), signatures, labels, groups, splits, by_table)


class _Texts:
    """A column of bytes or nulls in buffers that grow.

    Thousands of small arrays, joined at the end, cost twice the column and leave the heap in pieces.
    """

    def __init__(self) -> None:
        self._data, self._lengths = bytearray(), array("i")

    def extend(self, values: Sequence[bytes | None]) -> None:
        self._lengths.extend([-1 if value is None else len(value) for value in values])
        self._data += b"".join(value for value in values if value is not None)

    def take_out(self) -> pa.LargeBinaryArray:
        """Give the column over this object's own bytes, closed to additions."""
        lengths = np.frombuffer(self._lengths, np.int32)
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(np.maximum(lengths, 0), out=offsets[1:])
        there = pa.py_buffer(np.packbits(lengths >= 0, bitorder="little"))
        return pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(lengths), [there, pa.py_buffer(offsets), pa.py_buffer(self._data)]
        )


def _sorted_strings(column: pa.LargeBinaryArray, order: pa.Array) -> pa.ChunkedArray:
    pieces = [
        column.take(order.slice(start, _PIECE)).cast(pa.binary()).cast(pa.string())
        for start in range(0, len(order), _PIECE)
    ]
    return pa.chunked_array(pieces, pa.string())


def plain_paths(paths: pa.LargeBinaryArray) -> pa.ChunkedArray:
    """Copy paths to 32-bit offsets, in as many pieces as needed."""
    pieces = [
        pa.concat_arrays([paths.slice(start, _PIECE)]).cast(pa.binary())
        for start in range(0, len(paths), _PIECE)
    ]
    return pa.chunked_array(pieces, pa.binary())


def fixed_binary(rows: np.ndarray) -> pa.FixedSizeBinaryArray:
    """Wrap (n, 32) uint8 as an Arrow column, without a copy."""
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))]
    )
