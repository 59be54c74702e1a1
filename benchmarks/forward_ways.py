"""Run one frozen network in each way that is compared."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 16


@dataclass(frozen=True)
class Ways:
    """Return makers of functions from pixels to rows, by name.

    Attributes
    ----------
    pixels : ndarray
    makers : dict of str to callable
    """

    pixels: np.ndarray
    makers: dict[str, Callable[[], Callable[[Any], Any]]]


def arguments() -> argparse.ArgumentParser:
    """Options that name the network."""
    parser = argparse.ArgumentParser()
    for name in ("--base", "--weights", "--cut", "--pooling", "--cache"):
        parser.add_argument(name)
    parser.add_argument("--size", type=int)
    return parser


def ways(given: dict[str, Any], *, count: bool = False) -> Ways:
    """Make the way that `given` names, in this process."""
    import tensorflow as tf

    from bottleneck.bases.load import load_base
    from bottleneck.bases.precision import here
    from bottleneck.forward.frozen_graph import freeze_graph
    from bottleneck.forward.keras_forward import prepare_process
    from bottleneck.pixels.probes import probes
    from bottleneck.schema import BaseRequest, Cache, Precision

    prepare_process()
    base = load_base(
        BaseRequest(**{k: v for k, v in given.items() if k != "cache"}), Cache(Path(given["cache"]))
    )
    model, pixels = base.features_model, base.spec.recipe.pixels
    shape = (BATCH, pixels.height, pixels.width, 3)

    def traced(**options: Any) -> Callable[[Any], Any]:
        signature = [tf.TensorSpec(shape, tf.float32)]
        call: Callable[[Any], Any] = tf.function(
            lambda x: model(x, training=False), input_signature=signature, **options
        )
        return call

    def frozen(precision: Precision) -> Callable[[Any], Any]:
        call = freeze_graph(model, shape, precision)
        return lambda x: call(x)[0]

    makers: dict[str, Callable[[], Callable[[Any], Any]]] = {
        "keras": traced,
        "frozen": lambda: frozen("float32"),
        "xla": lambda: traced(jit_compile=True),
        "openvino": lambda: OpenVino(model, shape, "f32", count),
    }
    reduced = here("auto")
    if reduced == "bfloat16":
        makers["frozen bfloat16"] = lambda: frozen("bfloat16")
        makers["openvino bfloat16"] = lambda: OpenVino(model, shape, "bf16", count)
    return Ways(probes(BATCH, pixels.height, pixels.width), makers)


class OpenVino:
    """Compile the network in OpenVINO for one shape.

    Parameters
    ----------
    model : keras.Model
    shape : tuple of int
    precision : {"f32", "bf16"}
        Of its kernels, where they have it.
    count : bool
        Whether passes keep count of their time, which costs some.
    """

    def __init__(self, model: Any, shape: tuple[int, ...], precision: str, count: bool) -> None:
        import openvino
        import tensorflow as tf

        signature = [tf.TensorSpec(shape, tf.float32)]
        call = tf.function(lambda x: model(x, training=False), input_signature=signature)
        module = tf.Module()
        module.weights = [weight.value for weight in model.weights]
        core = openvino.Core()
        settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": count}
        with tempfile.TemporaryDirectory() as folder:
            tf.saved_model.save(module, folder, signatures={"serving_default": call.get_concrete_function()})
            compiled = core.compile_model(core.read_model(folder), "CPU", settings)
        self._request = compiled.create_infer_request()

    def __call__(self, pixels: Any) -> np.ndarray:
        return np.array(next(iter(self._request.infer([np.asarray(pixels)]).values())))

    def spent(self) -> dict[str, float]:
        """Seconds of the last pass by kind of node."""
        found: dict[str, float] = {}
        for node in self._request.get_profiling_info():
            found[node.node_type] = found.get(node.node_type, 0.0) + node.real_time.total_seconds()
        return found
