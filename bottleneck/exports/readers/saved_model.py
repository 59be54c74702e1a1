"""Run the SavedModel with TensorFlow alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf


def document(path: str) -> Any:
    """Class names, pixel contract and recipe."""
    return json.loads((Path(path) / "assets.extra" / "bottleneck.json").read_text("utf-8"))


def open_model(path: str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a function from pixels to named arrays.

    Pixels are (n, height, width, 3), RGB, 0..255; arrays are features, logits, probabilities and, with a score, energy.
    """
    model = tf.saved_model.load(path)

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        # Looked up here: a signature alone does not keep its weights alive.
        found = model.signatures["stages"](image=tf.cast(pixels, tf.float32))
        return {name: value.numpy() for name, value in found.items()}

    return run


def open_files(path: str) -> Callable[[list[bytes]], dict[str, np.ndarray]]:
    """Map contents of image files to probabilities and, with a score, energy."""
    model = tf.saved_model.load(path)

    def run(files: list[bytes]) -> dict[str, np.ndarray]:
        found = model.signatures["serve_bytes"](image_bytes=tf.constant(files, tf.string))
        return {name: value.numpy() for name, value in found.items()}

    return run
