"""Tiny networks with weights from NumPy, so that no initializer is part of a golden digest."""

from __future__ import annotations

from typing import Any

import numpy as np


def fill(model: Any, seed: int = 0) -> Any:
    # By shape and not by turn: a dropped layer changes the order of `model.weights`.
    for weight in model.weights:
        draw = np.random.Generator(np.random.PCG64([seed, *weight.shape]))
        values = (draw.random(weight.shape) - 0.5) + 0.6 * (len(weight.shape) == 1)
        weight.assign(values.astype("float32"))
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return model


def plain(
    *, size: int | None = 16, prefix: str = "", rate: float = 0.25, strides: int = 2, activation: str = "relu",
    swapped: bool = False, dropout: bool = True, regularized: bool = False,
) -> Any:  # fmt: skip
    """Two branches, a sum, dropout, noise and a head."""
    import keras
    from keras import layers

    def named(name: str) -> str | None:
        return prefix + name if prefix else None

    image = keras.Input((size, size, 3))
    options = {"kernel_regularizer": "l2", "kernel_initializer": "he_normal"} if regularized else {}
    x = layers.Conv2D(
        4, 3, strides=strides, padding="same", activation=activation, name=named("a"), **options
    )(image)
    x = layers.BatchNormalization(name=named("b"), momentum=0.5 if regularized else 0.99)(x)
    left = layers.Conv2D(4, 1, name=named("left"))(x)
    right = layers.DepthwiseConv2D(3, padding="same", name=named("right"))(x)
    if dropout:
        right = layers.Dropout(rate, name=named("drop"))(right)
        right = layers.GaussianNoise(rate, name=named("noise"))(right)
    x = layers.Concatenate(name=named("join"))([right, left] if swapped else [left, right])
    x = keras.ops.relu(x)
    x = layers.GlobalAveragePooling2D(name=named("pool"))(x)
    x = layers.Dense(5, name=named("head"))(x)
    return fill(keras.Model(image, x))


def nested() -> Any:
    """A network inside a network: ``inner/c1``."""
    import keras
    from keras import layers

    inside = keras.Input((16, 16, 3))
    y = layers.Conv2D(4, 3, padding="same", name="c1")(inside)
    y = layers.ReLU(name="r1")(y)
    y = layers.Conv2D(6, 3, padding="same", name="c2")(y)
    inner = keras.Model(inside, y, name="inner")
    image = keras.Input((16, 16, 3))
    x = layers.Rescaling(0.5, name="scale")(image)
    x = inner(x)
    x = layers.GlobalMaxPooling2D(name="gmp")(x)
    return fill(keras.Model(image, x, name="outer"), 3)


def inlined() -> Any:
    """What `nested` computes, without nesting."""
    import keras
    from keras import layers

    image = keras.Input((16, 16, 3))
    x = layers.Rescaling(0.5)(image)
    x = layers.Conv2D(4, 3, padding="same")(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(6, 3, padding="same")(x)
    return fill(keras.Model(image, layers.GlobalMaxPooling2D()(x)), 3)


def stock() -> Any:
    """Layers that hold layers, functions and rates, and bare operations: all of it Keras' own."""
    import keras
    from keras import layers, ops

    image = keras.Input((16, 16, 3))
    x = layers.Pipeline([layers.RandomFlip(), layers.Rescaling(0.5)])(image)
    x = layers.Conv2D(4, 3, activation="gelu")(x)
    x = layers.Activation(layers.LeakyReLU(0.2))(layers.Activation(keras.activations.silu)(x))
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True, dropout=0.2))(layers.Reshape((14, 56))(x))
    x = layers.TimeDistributed(layers.Dense(4, activation="relu"))(
        layers.TimeDistributed(layers.Dropout(0.3))(x)
    )
    x = layers.MultiHeadAttention(2, 2, dropout=0.1)(x, x)
    x = layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], return_sequences=True)(x)
    x = layers.SpectralNormalization(layers.Dense(3))(x)
    x = ops.einsum("bij->bji", ops.softmax(x * 2.0 + 1)[:, 1:])
    return fill(keras.Model(image, ops.pad(x, ((0, 0), (1, 1), (0, 0)))))
