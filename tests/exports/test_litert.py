"""LiteRT files: sizes, the zip behind them, examples for those that are rounded by example."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bottleneck.errors import ExportError
from bottleneck.exports import litert
from bottleneck.exports.bare import run_bare
from tests.exports import tiny_model

pytestmark = pytest.mark.keras

KINDS = [litert.Float32, litert.Float16, litert.Dynamic, litert.Int16x8, litert.Int8]


@pytest.fixture(scope="module")
def wide() -> Any:
    """A net whose weights outweigh everything around them."""
    import keras
    from keras import layers

    image = keras.Input((tiny_model.SIZE, tiny_model.SIZE, 3), name="image")
    x = layers.Rescaling(1 / 128, offset=-1.0)(image)
    for _ in range(3):
        x = layers.Conv2D(64, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Identity(name="features")(x)
    x = layers.Dense(3, name="logits")(x)
    return keras.Model(image, layers.Activation("softmax", name="probabilities")(x))


def test_small_kinds_are_small(wide: Any, tmp_path: Path) -> None:
    sizes = {k.kind: k().write(wide, tmp_path, tiny_model.making(4)).stat().st_size for k in KINDS}
    assert sizes["litert"] > 4 * wide.count_params()
    assert sizes["litert-float16"] <= 0.55 * sizes["litert"]
    for kind in ("litert-dynamic", "litert-int16x8", "litert-int8"):
        assert sizes[kind] <= 0.35 * sizes["litert"], kind


def test_a_zip_behind_the_file_names_its_classes(tmp_path: Path) -> None:
    path = litert.Float32().write(tiny_model.merged(), tmp_path, tiny_model.making())
    assert path.read_bytes()[4:8] == b"TFL3"
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["bottleneck.json", "labels.txt"]
        assert json.loads(archive.read("bottleneck.json")) == tiny_model.DOCUMENT
        assert archive.read("labels.txt").decode("utf-8").splitlines() == tiny_model.CLASSES


@pytest.mark.parametrize("kind", [litert.Int16x8, litert.Int8])
def test_without_examples_there_is_nothing_to_round_by(tmp_path: Path, kind: Any) -> None:
    none = dataclasses.replace(tiny_model.making(), sample=tiny_model.making().sample[:0])
    with pytest.raises(ExportError, match=f"{kind.kind} is quantized by the ranges .* on example images"):
        kind().write(tiny_model.merged(), tmp_path, none)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings(r"ignore:\s*Warning. tf.lite.Interpreter is deprecated:UserWarning")
def test_the_ranges_come_from_the_examples(tmp_path: Path) -> None:
    """Black images teach a range into which no other image fits."""
    from bottleneck.exports.readers.litert import open_model

    pixels = tiny_model.images(6)
    wanted = tiny_model.stages(tiny_model.merged(), pixels)["features"]
    black = dataclasses.replace(tiny_model.making(), sample=tiny_model.making(2).sample * 0)
    kind, gaps = litert.Int8(), list[float]()
    for making in (tiny_model.making(), black):
        path = kind.write(tiny_model.merged(), tmp_path, making)
        gaps.append(tiny_model.apart(wanted, open_model(str(path))(pixels)["features"]))
    assert gaps[0] < 0.5 < gaps[1]


def test_one_that_was_cut_off_is_named(tmp_path: Path) -> None:
    path = litert.Float32().write(tiny_model.merged(), tmp_path, tiny_model.making())
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ExportError, match=r"model\.tflite does not run in a process without this package"):
        run_bare(litert.Float32.reader, path, pixels=tiny_model.images(1))
