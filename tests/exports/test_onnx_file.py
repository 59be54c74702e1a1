"""ONNX: what the file says of itself, a network that Keras' own export breaks, and libraries that are not there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck.errors import ExportError
from bottleneck.exports.bare import run_bare
from bottleneck.exports.onnx_file import OnnxFile
from tests.exports import tiny_model

pytestmark = pytest.mark.keras


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return OnnxFile().write(tiny_model.merged(), tmp_path_factory.mktemp("onnx"), tiny_model.making())


def test_it_states_its_operators_inputs_and_outputs(path: Path) -> None:
    import onnx

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {item.domain: item.version for item in model.opset_import}[""] == 18
    (image,) = model.graph.input
    assert image.name == "image"
    dims = image.type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["n", tiny_model.SIZE, tiny_model.SIZE, 3]
    assert [output.name for output in model.graph.output] == ["energy", "features", "logits", "probabilities"]
    assert [output.type.tensor_type.shape.dim[0].dim_param for output in model.graph.output] == ["n"] * 4


def efficientnet() -> Any:
    """EfficientNetB0 at 64 px with random weights, and statistics of its own normalization that count."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    base = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(64, 64, 3))
    image = keras.Input((64, 64, 3), name="image")
    x = layers.GlobalAveragePooling2D()(base(image))
    # Random weights give features that are tiny and nearly equal; statistics of some images give them a spread.
    norm = layers.BatchNormalization(name="features")
    x = layers.Dense(3, name="logits")(norm(x))
    model = keras.Model(image, layers.Activation("softmax", name="probabilities")(x))
    rows = keras.Model(base.input, layers.GlobalAveragePooling2D()(base.output)).predict(
        _noise(16), verbose=0
    )
    norm.set_weights([np.ones(1280), np.zeros(1280), rows.mean(0), rows.var(0)])
    norm.epsilon = 0.0
    return model


def _noise(count: int) -> np.ndarray:
    draw = np.random.default_rng(1)
    return (draw.integers(0, 256, (count, 1, 1, 3)) * draw.random((count, 64, 64, 1))).astype(np.float32)


def test_efficientnet_runs(tmp_path: Path) -> None:
    model = efficientnet()
    path = OnnxFile().write(model, tmp_path, tiny_model.making())
    pixels = _noise(5)
    wanted = tiny_model.stages(model, pixels)
    ran = run_bare(OnnxFile.reader, path, pixels=pixels, batch=4)
    for name, values in wanted.items():
        assert tiny_model.apart(values, ran.outputs[name]) <= 1e-4, name


def test_without_its_converter_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(
        ExportError, match=r"onnx needs tf2onnx, .* pip install 'bottleneck-features\[onnx\]'"
    ):
        OnnxFile().write(tiny_model.merged(), tmp_path, tiny_model.making())
    assert not list(tmp_path.iterdir())


def test_one_that_was_cut_off_is_named(path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    data = path.read_bytes()
    broken.write_bytes(data[: len(data) // 2])
    with pytest.raises(ExportError, match=r"model\.onnx does not run in a process without this package"):
        run_bare(OnnxFile.reader, broken, pixels=tiny_model.images(1))
