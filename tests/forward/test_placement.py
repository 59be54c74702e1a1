"""Where things run, on TensorFlow's logical devices: decoding on the first processor, the base where it is put."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.keras

#: Devices can be set up before TensorFlow's first operation only, hence a process of its own. TensorFlow itself tells
#: where it puts each operation of a graph.
SCRIPT = """
import sys
import numpy as np
import tensorflow as tf

tf.debugging.set_log_device_placement(True)
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from bottleneck.bases.load import load_model
from bottleneck.pixels.decoder import _ONE_PIXEL
from bottleneck.forward.keras_forward import KerasForward
from bottleneck.schema import BaseRequest, Preprocessing
from tests.models.tiny_network import PREPROCESSING, network

request = BaseRequest(
    base="object:toy", preprocessing=Preprocessing.parse(PREPROCESSING), precision=sys.argv[1]
)
# Made and run under one device, as a process does whose default it is.
with tf.device("CPU:1"):
    forward = KerasForward(load_model(network(), [request]), lambda _: 4)
    forward.decode(_ONE_PIXEL)
    forward.features(np.zeros((4, 16, 16, 3), np.float32))
"""

PLACED = re.compile(r"placer\.cc.*\((\w+)\): .*device:(CPU:\d)")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_base_runs_where_it_is_put_and_decoding_on_the_first_processor(precision: str) -> None:
    from bottleneck.bases.precision import here

    if precision != "float32" and here("auto") != precision:
        pytest.skip(f"this processor has no {precision}")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, precision],
        cwd=Path(__file__).parent.parent.parent,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    placed: dict[str, set[str]] = {}
    for kind, device in PLACED.findall(done.stderr):
        placed.setdefault(kind, set()).add(device)
    assert placed["Conv2D"] == {"CPU:1"}
    assert placed["DecodePng"] == placed["DecodeJpeg"] == placed["ResizeBilinear"] == {"CPU:0"}
