"""Small feature-like rows that a head can learn: ReLU'd clusters, some features dead or far from zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from bottleneck.heads.inputs import class_weights
from bottleneck.heads.scaling import scaling_of
from bottleneck.store.rows import Rows


def clusters(n: int, shape: tuple[int, ...], classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, *shape) float32 rows and (n,) string labels; neighbours overlap a little."""
    random = np.random.default_rng(seed)
    codes = np.arange(n) % classes
    d = int(np.prod(shape))
    centres = np.random.default_rng(99).normal(size=(classes, d))
    X = np.maximum(centres[codes] + random.normal(size=(n, d)) * 1.5, 0)
    X[:, 0] = 3.0  # constant
    X[:, 1] = 0.0  # dead
    X[:, 2] = 500 + X[:, 2]  # far from zero
    names = np.array([f"class {chr(ord('a') + i)}" for i in range(classes)])
    return X.reshape(n, *shape).astype(np.float32), names[codes]


class FakeShards:
    """What `Rows` asks of a store's maps, over an array."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.dtype, self.width, self.files = array, array.dtype, array.shape[1], [None]

    def gather(self, numbers: np.ndarray, out: np.ndarray) -> None:
        """Copy rows into `out`."""
        out[...] = self.array[numbers]


def fake_rows(array: np.ndarray, order: np.ndarray | None = None) -> Rows:
    """Rows of a store that is none; the rows lie in another `order` there."""
    numbers = np.arange(len(array)) if order is None else order
    held = np.empty_like(array)
    held[numbers] = array
    return Rows(FakeShards(held), numbers, array.shape[1:])  # type: ignore[arg-type]


def objective(head: Any, X: np.ndarray, y: np.ndarray, views: int = 1) -> float:
    """What is minimised, of any fitted head: plain NumPy in float64, from the weights on raw rows."""
    _, inverse = scaling_of(X, divide=head.standardize).pair
    codes = np.searchsorted(head.classes_, y)
    weights = class_weights(head.class_weight, head.classes_, codes)
    kernel = head.arrays_["kernel"].astype(np.float64)
    logits = X.astype(np.float64) @ kernel + head.arrays_["bias"]
    if head.rest_ is not None:
        logits += head.rest_
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), codes]
    losses *= 1 if weights is None else weights[codes]
    spread = np.divide(1.0, inverse, out=np.zeros_like(inverse), where=inverse > 0)
    return float(losses.mean() + np.square(kernel * spread[:, None]).sum() * views / (2 * head.C * len(y)))
