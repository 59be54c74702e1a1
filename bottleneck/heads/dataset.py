"""Cached rows as a `tf.data.Dataset`, shuffled already: ``model.fit(dataset(F.X, codes), shuffle=False)``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from bottleneck.errors import UsageError
from bottleneck.store.batches import batches, epoch_order
from bottleneck.store.rows import Rows


def dataset(
    X: Rows | np.ndarray,
    y: Any = None,
    *,
    batch_size: int = 32,
    seed: int | None = 0,
    skip_rest: bool = False,
) -> Any:
    """Rows, and targets beside them, shuffled over the whole set and anew each epoch; never all of them in memory.

    Parameters
    ----------
    X : Rows or numpy.ndarray
        (n, *shape).
    y : array-like, optional
        (n, …) numbers: codes, one-hot rows, targets of a regression.
    batch_size : int
    seed : int or None
        The order of epoch e depends on this and e alone, counted over the iterators of this dataset. None: as they are.
    skip_rest : bool
        Leave out the last, shorter batch.

    Returns
    -------
    tf.data.Dataset
        Of ``rows`` (b, *shape), or of ``(rows, targets)``; its cardinality is known.

    Raises
    ------
    UsageError
        Targets of another length, or that are no numbers; a batch size below 1.

    Examples
    --------
    >>> X, y = np.zeros((5, 2), np.float32), np.arange(5)
    >>> made = dataset(X, y, batch_size=2)  # doctest: +SKIP
    >>> [targets.numpy().tolist() for _, targets in made]  # doctest: +SKIP
    [[0, 4], [2, 3], [1]]
    """
    if batch_size < 1:
        raise UsageError(f"batch_size {batch_size}: expected 1 or more")
    targets = None if y is None else np.asarray(y)
    if targets is not None and (len(targets) != len(X) or targets.dtype.kind not in "biuf"):
        raise UsageError(
            f"expected {len(X)} numbers as targets, one a row, got {len(targets)} of type {targets.dtype}; "
            "labels as text become numbers by numpy.searchsorted(classes, y)"
        )
    import tensorflow as tf

    rows = len(X) // batch_size * batch_size if skip_rest else len(X)
    epochs = itertools.count(1)

    def batches_of_an_epoch() -> Iterator[Any]:
        # next() on a counter is one step: two iterators at once get two epochs.
        epoch = next(epochs)
        order = np.arange(rows) if seed is None else epoch_order(seed, epoch, len(X))[:rows]
        for part, numbers in batches(X, batch_size, order):
            yield part if targets is None else (part, targets[numbers])

    length = batch_size if rows % batch_size == 0 else None

    def spec(array: Any) -> Any:
        return tf.TensorSpec((length, *array.shape[1:]), tf.as_dtype(array.dtype))

    signature = spec(X) if targets is None else (spec(X), spec(targets))
    made = tf.data.Dataset.from_generator(batches_of_an_epoch, output_signature=signature)
    made = made.apply(tf.data.experimental.assert_cardinality(-(-rows // batch_size)))
    return made.prefetch(2)
