"""Run model.onnx with onnxruntime alone."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

CPU = ["CPUExecutionProvider"]


def document(path: str) -> Any:
    """Class names, pixel contract and recipe."""
    session = onnxruntime.InferenceSession(path, providers=CPU)
    return json.loads(session.get_modelmeta().custom_metadata_map["bottleneck.json"])


def open_model(path: str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a function from pixels to named arrays.

    Pixels are (n, height, width, 3), RGB, 0..255; arrays are features, logits, probabilities and, with a score, energy.
    """
    session = onnxruntime.InferenceSession(path, providers=CPU)
    names = [output.name for output in session.get_outputs()]
    return lambda pixels: dict(
        zip(names, session.run(names, {"image": np.asarray(pixels, np.float32)}), strict=True)
    )
