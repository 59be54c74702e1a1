"""Run a .tflite file with TensorFlow.

ai_edge_litert alone is enough: its Interpreter is the same.
"""

import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf


def document(path: str) -> Any:
    """Class names, pixel contract and recipe."""
    with zipfile.ZipFile(path) as archive:  # a .tflite file with a zip behind it
        return json.loads(archive.read("bottleneck.json"))


def open_model(path: str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a function from pixels to named arrays.

    Pixels are (n, height, width, 3), RGB, 0..255; arrays are features, logits, probabilities and, with a score, energy.
    """
    interpreter = tf.lite.Interpreter(path)
    run = interpreter.get_signature_runner("serving_default")

    def model(pixels: np.ndarray) -> dict[str, np.ndarray]:
        rows = [run(image=np.asarray(image[None], np.float32)) for image in pixels]  # one image at a time
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return model
