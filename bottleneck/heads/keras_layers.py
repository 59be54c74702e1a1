"""Build Keras layers with weights, and their activations in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np


def dense(name: str, kernel: np.ndarray, bias: np.ndarray, activation: str | None = None) -> Any:
    """Build a Dense layer of `kernel` (d, units) and `bias` (units,)."""
    import keras

    # Seeded, since an initializer without a seed would draw from the process's random state.
    layer = keras.layers.Dense(
        kernel.shape[1],
        activation=activation,
        kernel_initializer=keras.initializers.GlorotUniform(seed=0),
        dtype="float32",
        name=name,
    )
    layer.build((None, kernel.shape[0]))
    layer.set_weights([kernel, bias])
    return layer


def batch_norm(name: str, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> Any:
    """A built BatchNormalization layer with these weights and statistics, each (units,)."""
    import keras

    layer = keras.layers.BatchNormalization(name=name, dtype="float32")
    layer.build((None, len(gamma)))
    layer.set_weights([gamma, beta, mean, variance])
    return layer


def dropout(rate: float, seed: int, number: int) -> Any:
    """Build the Dropout after hidden layer `number`."""
    import keras

    return keras.layers.Dropout(rate, seed=seed, dtype="float32", name=f"head_dropout_{number}")


def layer_seed(seed: int, position: int) -> int:
    """A seed for the layer at `position`, unlike its neighbours'."""
    return int(np.random.SeedSequence([seed, position]).generate_state(1)[0] & 0x7FFFFFFF)


def ending(feature_shape: tuple[int, ...], layers: list[Any]) -> list[Any]:
    """Put `layers` between a Flatten and the softmax.

    Rows with axes are flattened in C order, as ``reshape`` does. Everything is float32 whatever the process's
    policy: a head is small, and its probabilities should not be rounded to bfloat16.
    """
    import keras

    flatten = []
    if len(feature_shape) > 1:
        flatten = [keras.layers.Flatten(name="head_flatten", dtype="float32")]
    return [*flatten, *layers, keras.layers.Activation("softmax", name="probabilities", dtype="float32")]


def activate(name: str, value: np.ndarray) -> np.ndarray:
    """Compute the activation as Keras does, on float32.

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
