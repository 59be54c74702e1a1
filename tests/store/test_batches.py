"""Batches: a true permutation of the whole set, decided by seed and epoch alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bottleneck.store.batches import batches, epoch_order, gather_rows
from tests.store.known_rows import as_rows


@pytest.fixture
def array() -> np.ndarray:
    return np.arange(300, dtype=np.float32).reshape(100, 3)


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
@pytest.mark.parametrize("gather", [None, 1, 14, 1000])
def test_batches_are_the_rows_in_the_order_whatever_is_gathered_at_once(
    tmp_path: Path, array: np.ndarray, size: int, gather: int | None
) -> None:
    order = epoch_order(3, 2, 100)
    step = None if gather is None else -(-gather // size) * size
    made = list(batches(as_rows(tmp_path, array), size, order, gather=step))
    assert [len(rows) for rows, _ in made] == [size] * (100 // size) + [100 % size] * bool(100 % size)
    # All kept and looked at late: a batch is not written over by a later one.
    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in made]), array[order])
    np.testing.assert_array_equal(np.concatenate([numbers for _, numbers in made]), order)


def test_each_epoch_is_another_permutation_of_the_whole_set(tmp_path: Path, array: np.ndarray) -> None:
    rows = as_rows(tmp_path, array, task_rows=10)

    def seen(seed: int, epoch: int) -> list[int]:
        return [int(n) for _, numbers in rows.batches(8, seed=seed, epoch=epoch) for n in numbers]

    assert sorted(seen(0, 1)) == list(range(100))
    assert seen(0, 1) == seen(0, 1)
    assert seen(0, 1) != seen(0, 2) and seen(0, 1) != seen(1, 1)
    # Not within a shard: the first batch of eight comes from more than a few of ten shards.
    assert len({n // 10 for n in seen(0, 1)[:8]}) >= 4
    in_order = [int(n) for _, numbers in rows.batches(8, seed=None) for n in numbers]
    assert in_order == list(range(100))


def test_arrays_and_stored_rows_give_the_same_batches(tmp_path: Path, array: np.ndarray) -> None:
    order = epoch_order(0, 1, 100)[:90]
    pairs = zip(batches(as_rows(tmp_path, array), 16, order), batches(array, 16, order), strict=True)
    for (rows, numbers), (expected, same) in pairs:
        np.testing.assert_array_equal(rows, expected)
        np.testing.assert_array_equal(numbers, same)


@pytest.mark.parametrize(("width", "batch"), [(4, 64), (2048, 64), (4 << 20, 32), (2048, 5000)])
def test_a_gather_is_whole_batches_and_bounded(tmp_path: Path, width: int, batch: int) -> None:
    class Wide:
        dtype, shard_count = np.dtype(np.float32), 1000

    Wide.width = width  # type: ignore[attr-defined]
    rows = gather_rows(Wide(), batch)  # type: ignore[arg-type]
    assert rows % batch == 0 and rows >= batch
    assert rows == batch or rows * width * 4 <= 32 << 20
