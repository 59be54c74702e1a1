"""Iterate over rows in batches, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bottleneck.store.rows import Rows

#: Bytes of one gather. Small enough for the processor's cache, and for the allocator to hand the same pages out again.
_GATHER_BYTES = 4 << 20

#: No gather is larger than this, however many shards there are.
_MOST_GATHER_BYTES = 32 << 20

#: Rows of each shard that a gather should have, or these bytes of them: with less, finding the shards costs more than
#: copying the rows.
_ROWS_A_SHARD, _BYTES_A_SHARD = 8, 32 << 10


def epoch_order(seed: int, epoch: int, rows: int) -> np.ndarray:
    """Shuffle the rows of epoch number `epoch` (from 1): (rows,) int64.

    Examples
    --------
    >>> sorted(epoch_order(0, 1, 4).tolist()), bool((epoch_order(0, 1, 4) == epoch_order(0, 1, 4)).all())
    ([0, 1, 2, 3], True)
    """
    return np.random.default_rng([seed, epoch]).permutation(rows)


def gather_rows(rows: Rows, batch: int) -> int:
    """Choose how many rows to gather at once, in whole batches."""
    row_bytes = max(1, rows.dtype.itemsize * rows.width)
    a_shard = min(_ROWS_A_SHARD, _BYTES_A_SHARD // row_bytes)
    wanted = max(_GATHER_BYTES // row_bytes, a_shard * rows.shard_count)
    return max(1, min(wanted, _MOST_GATHER_BYTES // row_bytes) // batch) * batch


def batches(
    X: Rows | np.ndarray, size: int, order: np.ndarray | None = None, *, gather: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Iterate over batches of `X` in the order given.

    Parameters
    ----------
    X : Rows or numpy.ndarray
        (n, *shape).
    size : int
        Rows of a batch.
    order : numpy.ndarray, optional
        (m,) row numbers; all rows as they are by default. `epoch_order` gives a shuffled one.
    gather : int, optional
        Rows to gather at once; the batches do not depend on it.

    Yields
    ------
    rows : numpy.ndarray
        (size, *shape), a view of what was gathered: nobody writes to it again.
    numbers : numpy.ndarray
        (size,) which rows of `X` they are.

    Examples
    --------
    >>> X = np.arange(5)[:, None]
    >>> [rows.ravel().tolist() for rows, _ in batches(X, 2, np.array([4, 0, 1, 2, 3]))]
    [[4, 0], [1, 2], [3]]
    """
    if order is None:
        order = np.arange(len(X))
    if isinstance(X, np.ndarray):
        # Gathering first would only move the rows twice.
        for start in range(0, len(order), size):
            numbers = order[start : start + size]
            yield X[numbers], numbers
        return
    step = gather or gather_rows(X, size)
    gathered: Any = None
    for start in range(0, len(order), size):
        at = start % step
        if not at:
            # Let go first, so that the allocator can hand out the same pages.
            gathered = None
            gathered = X[order[start : start + step]]
        yield gathered[at : at + size], order[start : start + size]
