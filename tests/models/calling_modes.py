"""Every way that somebody calls a Keras model, as a plain script would: no word of this package is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def every_call(model: Any, pixels: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What `model` gives for `pixels`, by how it was called; each way may leave its traces for the next."""
    import keras

    yield "predict", model.predict(pixels, verbose=0)
    yield "called", np.asarray(model(pixels))
    yield "called again", np.asarray(model(pixels))
    yield "in inference mode", np.asarray(model(pixels, training=False))
    yield "in training mode", np.asarray(model(pixels, training=True))
    yield "one at a time", np.concatenate([np.asarray(model(one[None])) for one in pixels[:2]])
    image = keras.Input(pixels.shape[1:])
    yield "in another model", np.asarray(keras.Sequential([image, model])(pixels))


def before_and_after(model: Any, again: Any, pixels: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Calls in memory, `every_call` of what its file gave back, and of that after a network around it was trained."""
    yield "in memory, called", np.asarray(model(pixels))
    yield "in memory, in training mode", np.asarray(model(pixels, training=True))
    for way, found in every_call(again, pixels):
        yield f"loaded, {way}", found
    state = state_of(again)
    train_around(again, pixels)
    for way, found in every_call(again, pixels):
        yield f"trained around, {way}", found
    assert state_of(again) == state
    assert not [variable.path for variable in again.variables if variable.trainable]


def train_around(model: Any, pixels: np.ndarray) -> None:
    """Two steps of a network with `model` in it."""
    import keras

    image = keras.Input(pixels.shape[1:])
    outer = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(model(image))))
    outer.compile(keras.optimizers.Adam(0.1), "mse", run_eagerly=True)
    outer.fit(pixels, np.ones((len(pixels), 2), "f4"), epochs=2, verbose=0)


def state_of(model: Any) -> list[tuple[str, bytes]]:
    """Every variable of `model`, states of random generators included."""
    return [(variable.path, np.asarray(variable.numpy()).tobytes()) for variable in model.variables]
