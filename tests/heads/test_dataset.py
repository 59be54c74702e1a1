"""Batches of cached rows for a training loop of one's own."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import UsageError
from bottleneck.heads.dataset import dataset
from bottleneck.store.batches import epoch_order
from tests.store.known_rows import as_rows

pytestmark = pytest.mark.keras

X = np.arange(150, dtype=np.float16).reshape(50, 3)
Y = np.arange(50)


def test_each_epoch_has_every_row_with_its_own_target_in_another_order(tmp_path: Path) -> None:
    import tensorflow as tf

    made = dataset(as_rows(tmp_path, X), Y, batch_size=8, seed=4)
    assert made.element_spec == (
        tf.TensorSpec((None, 3), tf.float16),
        tf.TensorSpec((None,), tf.as_dtype(Y.dtype)),
    )
    assert int(made.cardinality()) == 7
    for epoch in (1, 2):
        batches = list(made.as_numpy_iterator())
        order = epoch_order(4, epoch, 50)
        np.testing.assert_array_equal(np.concatenate([targets for _, targets in batches]), order)
        np.testing.assert_array_equal(np.concatenate([rows for rows, _ in batches]), X[order])


def test_without_targets_without_shuffling_and_without_the_rest(tmp_path: Path) -> None:
    made = dataset(as_rows(tmp_path, X), batch_size=8, seed=None, skip_rest=True)
    assert int(made.cardinality()) == 6 and made.element_spec.shape == (8, 3)
    np.testing.assert_array_equal(np.concatenate(list(made.as_numpy_iterator())), X[:48])


def test_keras_fits_on_it_without_a_warning(tmp_path: Path) -> None:
    import keras

    rows = as_rows(tmp_path, X)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(50, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = model.fit(dataset(rows, Y, batch_size=8), epochs=3, shuffle=False, verbose=0)
        chances = model.predict(dataset(rows, batch_size=8, seed=None), verbose=0)
    assert len(history.history["loss"]) == 3 and chances.shape == (50, 50)


def test_an_array_in_memory_gives_the_same(tmp_path: Path) -> None:
    pairs = zip(
        dataset(as_rows(tmp_path, X), Y, batch_size=8).as_numpy_iterator(),
        dataset(X, Y, batch_size=8).as_numpy_iterator(),
        strict=True,
    )
    for (rows, targets), (expected, same) in pairs:
        np.testing.assert_array_equal(rows, expected)
        np.testing.assert_array_equal(targets, same)


def test_targets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="expected 50 numbers"):
        dataset(X, Y[:-1])
    with pytest.raises(UsageError, match="searchsorted"):
        dataset(X, np.array(["a"] * 50))
    with pytest.raises(UsageError, match="batch_size 0"):
        dataset(X, Y, batch_size=0)
