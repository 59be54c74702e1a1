"""A small merged model that has what breaks formats, and what is needed to export it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from bottleneck.contracts import Making
from bottleneck.models.energy import energy_output
from bottleneck.models.outputs import output_names
from bottleneck.schema import Pixels

SIZE = 24
CLASSES = ["cat", "dog", "weiß"]
DOCUMENT = {"format": 1, "classes": CLASSES, "recipe": "ab" * 32}


@cache
def merged() -> Any:
    """Channels swapped, an offset a channel, BatchNorm with statistics of its own, a map flattened, three classes and
    a score."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(7)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = keras.ops.flip(image, axis=-1)
    x = layers.Rescaling(1 / 64, offset=[-1.6, -1.8, -1.9])(x)
    x = layers.Normalization(mean=[0.1, -0.2, 0.3], variance=[0.9, 1.1, 1.3])(x)
    x = layers.Conv2D(12, 3, strides=2, padding="same", use_bias=False)(x)
    norm = layers.BatchNormalization()
    x = layers.Activation("swish")(norm(x))
    x = layers.Dropout(0.0)(x)
    x = layers.MaxPooling2D(3)(x)
    x = layers.Identity(name="features")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(len(CLASSES), name="logits")(x)
    answers = {
        "probabilities": layers.Activation("softmax", name="probabilities")(x),
        "energy": energy_output(x),
    }
    model = keras.Model(image, answers, name="bottleneck_merged")
    draw = np.random.default_rng(7)
    norm.set_weights([draw.uniform(0.5, 1.5, 12).astype(np.float32) for _ in range(4)])
    model.trainable = False
    return model


def images(count: int, seed: int = 0) -> np.ndarray:
    """(n, SIZE, SIZE, 3) uint8: flat colours under noise, each of another kind than the one before it."""
    draw = np.random.default_rng(seed)
    colours = draw.integers(30, 226, (count, 1, 1, 3))
    return np.clip(colours + draw.normal(0, 20, (count, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


def making(count: int = 24) -> Making:
    return Making(DOCUMENT, Pixels(height=SIZE, width=SIZE), images(count, seed=1).astype(np.float32))


def stages(model: Any, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What `model` gives by the names of its layers: the reference for every format."""
    import keras

    names = output_names(model)
    parts = keras.Model(model.inputs[0], [model.get_layer(name).output for name in names])
    found = parts.predict_on_batch(np.asarray(pixels, np.float32))
    return dict(zip(names, (np.asarray(part) for part in found), strict=True))


def apart(reference: np.ndarray, other: np.ndarray) -> float:
    """The largest difference as a share of the spread between images."""
    assert reference.shape == other.shape
    spread = np.sqrt(reference.reshape(len(reference), -1).var(axis=0).mean())
    return float(np.abs(reference - other).max() / spread)
