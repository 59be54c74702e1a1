"""Small feature-like rows that a head can learn: ReLU'd clusters, some features dead or far from zero."""

from __future__ import annotations

import numpy as np


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
