"""Rows that act like an array and stay on disk until used."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from bottleneck.store.batches import batches, epoch_order
from bottleneck.store.mapped import Shards
from bottleneck.system.memory import budget, rows_budget

#: Bytes of the pieces in which rows are walked through.
_PIECE = 8 << 20


class Rows:
    """(n, *shape) rows over a store's maps, in any order, copies repeated.

    Indexing works as on an array and gives arrays: ``X[3]``, ``X[2:9]``, ``X[[5, 1]]``, ``X[mask]``, ``X[rows, ...]``;
    `select` gives rows that are again not read. ``np.asarray(X)`` reads all of them. Picklable: another process maps
    the same shards. scikit-learn takes it as it is.

    Parameters
    ----------
    shards : Shards
    numbers : numpy.ndarray
        (n,) row numbers in `shards`.
    shape : tuple of int
        Of one row.

    Attributes
    ----------
    shape, dtype, ndim, size, nbytes
        As of the array that ``np.asarray`` would give.
    """

    def __init__(self, shards: Shards, numbers: np.ndarray, shape: tuple[int, ...]) -> None:
        self._shards, self._numbers = shards, numbers
        self.shape = (len(numbers), *shape)
        self.dtype = shards.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the array that ``np.asarray`` would give."""
        return self.size * self.dtype.itemsize

    @property
    def width(self) -> int:
        """Values of one row."""
        return self._shards.width

    @property
    def shard_count(self) -> int:
        """Number of shards they may lie in."""
        return len(self._shards.files)

    @property
    def flat(self) -> Rows:
        """The same rows, each flattened in C order: (n, d)."""
        return Rows(self._shards, self._numbers, (self.width,))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Rows({self.shape}, {self.dtype.name}, over {self.shard_count} shards)"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows on disk cannot become an array without a copy")
        wanted = self.dtype if dtype is None else np.dtype(dtype)
        return self.read(np.empty(self.shape, wanted))

    def __iter__(self) -> Iterator[np.ndarray]:
        for piece in self.pieces():
            yield from piece

    def __getitem__(self, key: Any) -> Any:
        first: Any = key
        rest: tuple[Any, ...] = ()
        if isinstance(key, tuple):
            first, rest = (key[0], key[1:]) if key else (slice(None), ())
        if first is Ellipsis:
            missing = self.ndim - (len(key) - 1 if isinstance(key, tuple) else 0)
            first, rest = slice(None), (*(slice(None),) * (missing - 1), *rest) if missing > 0 else rest
        if first is None:
            return np.asarray(self)[key]
        if isinstance(first, (int, np.integer)):
            row = self.select([first]).read()[0]
            return row[rest] if rest else row
        chosen = self.select(first)
        if not rest or (len(rest) == 1 and rest[0] is Ellipsis):
            return chosen.read()
        if not all(isinstance(part, (int, np.integer, slice)) or part is Ellipsis for part in rest):
            # Lists beside lists are paired, which only the whole array can do.
            return np.asarray(self)[key]
        return np.concatenate([piece[(slice(None), *rest)] for piece in chosen.pieces()])

    def select(self, key: Any) -> Rows:
        """Pick rows by a slice, numbers or a mask (n,); read nothing.

        Raises
        ------
        IndexError
            A row that is not there, a mask of another length.
        """
        if not isinstance(key, slice):
            key = np.asarray(key)
            if not key.size and key.dtype != bool:
                key = key.astype(np.intp)
        chosen = self._numbers[key]
        if chosen.ndim != 1:
            raise IndexError(f"rows are picked by one axis of numbers, got {np.ndim(key)} axes")
        return Rows(self._shards, chosen, self.shape[1:])

    def stored_order(self) -> np.ndarray:
        """Sort these rows' numbers (n,) as they lie on disk."""
        order: np.ndarray = np.argsort(self._numbers, kind="stable")
        return order

    def read(self, out: np.ndarray | None = None) -> np.ndarray:
        """Read all of them, or into `out` (n, *shape), of any type.

        Raises
        ------
        DamagedShard
            Names the shard and its rows.
        ReadFailure
            The disk refused the read.
        """
        if out is None:
            out = np.empty(self.shape, self.dtype)
        if out.shape != self.shape or not out.flags.c_contiguous:
            raise ValueError(f"expected a C-contiguous array of shape {self.shape}, got {out.shape}")
        self._shards.gather(self._numbers, out.reshape(len(self), self.width))
        return out

    def pieces(self, size: int = _PIECE) -> Iterator[np.ndarray]:
        """Iterate over arrays of about `size` bytes, at least one."""
        step = max(1, size // max(1, self.width * self.dtype.itemsize))
        for start in range(0, max(1, len(self)), step):
            yield self[start : start + step]

    def batches(
        self, size: int, *, seed: int | None = 0, epoch: int = 1
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Iterate over batches, shuffled each epoch; in order when `seed` is None.

        Yields
        ------
        rows : numpy.ndarray
            (size, *shape); the last one as short as it comes out.
        numbers : numpy.ndarray
            (size,) which rows they are: for their labels.
        """
        return batches(self, size, None if seed is None else epoch_order(seed, epoch, len(self)))

    def check(self) -> None:
        """Hash every block not yet hashed in this process. Raises `DamagedShard`."""
        self._shards.check_all()


def loaded(X: Rows | np.ndarray, memory: int | str | None = None) -> Rows | np.ndarray:
    """Read `X` if it takes at most `memory` (`rows_budget` by default)."""
    if isinstance(X, np.ndarray) or X.nbytes > (rows_budget() if memory is None else budget(memory)):
        return X
    return X.read()


def why_loaded(X: Rows) -> str:
    """Say why `loaded` reads these rows, or leaves them on disk."""
    return f"{X.nbytes / (1 << 20):,.0f} MiB of rows; up to {rows_budget() / (1 << 20):,.0f} MiB are loaded"


def picked(X: Any, key: Any) -> Any:
    """Pick rows of `X` by `key` without reading those on disk."""
    return X.select(key) if isinstance(X, Rows) else X[key]
