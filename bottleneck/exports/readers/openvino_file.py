"""Run openvino/model.xml with OpenVINO alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino

# Float32 as it was trained: where the processor has bfloat16, OpenVINO would use that by itself.
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def document(path: str) -> Any:
    """Class names, pixel contract and recipe."""
    model = openvino.Core().read_model(Path(path) / "model.xml")
    return json.loads(model.get_rt_info(["bottleneck.json"]).astype(str))


def open_model(path: str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a function from pixels to named arrays.

    Pixels are (n, height, width, 3), RGB, 0..255; arrays are features, logits, probabilities and, with a score, energy.
    """
    model = openvino.compile_model(Path(path) / "model.xml", "CPU", EXACT)

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        found = model(np.asarray(pixels, np.float32))
        return {output.any_name: np.array(found[output]) for output in model.outputs}

    return run
