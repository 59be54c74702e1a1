"""Run model.keras with TensorFlow and Keras alone."""

import json
import zipfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def document(path: str) -> Any:
    """Class names, pixel contract and recipe."""
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("bottleneck.json"))


def open_model(path: str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a function from pixels to named arrays.

    Pixels are (n, height, width, 3), RGB, 0..255; arrays are features, logits, probabilities and, with a score, energy.
    """
    model = keras.saving.load_model(path)  # safe mode: stock layers only
    there = {layer.name for layer in model.layers}
    names = [name for name in ("features", "logits", "probabilities", "energy") if name in there]
    stages = keras.Model(model.inputs[0], {name: model.get_layer(name).output for name in names})
    return stages.predict_on_batch
