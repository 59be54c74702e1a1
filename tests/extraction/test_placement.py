"""Where things run, on TensorFlow's logical devices: decoding on the first processor, the base where it is put."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.keras

#: Devices can be set up before TensorFlow's first operation only, hence a process of its own.
SCRIPT = """
import json, sys
import numpy as np
import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from bottleneck.bases.load import load_model
from bottleneck.extraction.forward import KerasForward
from bottleneck.schema import BaseRequest, Preprocessing
from tests.models.toys import PREPROCESSING, network

found = {}
model = network()
for precision in sys.argv[1].split(","):
    request = BaseRequest(
        base="object:toy", preprocessing=Preprocessing.parse(PREPROCESSING), precision=precision
    )
    forward = KerasForward(load_model(model, [request]), lambda _: 4)
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype(np.float32)
    rows = {}
    for device in ("CPU:0", "CPU:1"):
        with tf.device(device):
            (made,) = forward._call(tf.constant(pixels))
        rows[device] = np.asarray(made)
        found[f"{precision} on {device}"] = made.device[-5:]
    found[f"{precision} alike"] = bool(np.array_equal(rows["CPU:0"], rows["CPU:1"]))
graph = forward._decode.get_concrete_function().graph
found["decoding"] = sorted(
    {node.device[-5:] for node in graph.get_operations() if node.type in ("If", "Case", "StringJoin")}
)
print(json.dumps(found))
"""


def test_the_base_runs_where_it_is_put_and_decoding_on_the_first_processor() -> None:
    from bottleneck.bases.precision import here

    precisions = ["float32"] if here("auto") == "float32" else ["float32", here("auto")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, ",".join(precisions)],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["decoding"] == ["CPU:0"]
    for precision in precisions:
        assert found[f"{precision} on CPU:0"] == "CPU:0"
        assert found[f"{precision} on CPU:1"] == "CPU:1"
        assert found[f"{precision} alike"]
