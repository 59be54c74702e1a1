"""Activations of Keras, in NumPy."""

from __future__ import annotations

import numpy as np


def activate(name: str, value: np.ndarray) -> np.ndarray:
    """The activation as Keras computes it, on float32.

    Examples
    --------
    >>> activate("relu", np.array([-1.0, 2.0], np.float32)).tolist()
    [0.0, 2.0]
    """
    from scipy.special import erf, expit

    one = np.float32(1)
    result: np.ndarray
    if name == "relu":
        result = np.maximum(value, np.float32(0))
    elif name == "tanh":
        result = np.tanh(value)
    elif name == "sigmoid":
        result = expit(value)
    elif name == "silu":
        result = value * expit(value)
    elif name == "gelu":
        result = value * (one + erf(value / np.float32(np.sqrt(2)))) / np.float32(2)
    else:
        negative = np.expm1(np.minimum(value, np.float32(0)))
        scale, alpha = (1.0507009873554805, 1.6732632423543772) if name == "selu" else (1.0, 1.0)
        result = np.float32(scale) * (np.maximum(value, np.float32(0)) + np.float32(alpha) * negative)
    return result
