"""The SavedModel: weights once, any number of images, and files decoded as they were for training."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bottleneck.errors import ExportError
from bottleneck.exports.bare import run_bare
from bottleneck.exports.saved_model import SavedModel
from tests.exports import tiny_model

pytestmark = pytest.mark.keras

ANSWERS = ("probabilities", "energy")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SavedModel().write(tiny_model.merged(), tmp_path_factory.mktemp("saved"), tiny_model.making())


@pytest.fixture(scope="module")
def loaded(path: Path) -> Any:
    import tensorflow as tf

    return tf.saved_model.load(str(path))


def encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """Of five kinds and many sizes, turned ones among them."""
    draw = np.random.default_rng(3)
    turned = Image.Exif()
    turned[0x0112] = 6
    found = []
    for height, width in [(24, 24), (90, 61), (200, 131), (17, 300)]:
        pixels = draw.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
        found += [encoded(pixels, kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP")]
        found.append(encoded(pixels, "JPEG", exif=turned))
        found.append(encoded(pixels[..., 0], "JPEG"))
    return found


def test_it_holds_every_weight_once(path: Path) -> None:
    parameters = sum(int(np.prod(weight.shape)) for weight in tiny_model.merged().weights)
    stored = sum(p.stat().st_size for p in (path / "variables").iterdir())
    assert 4 * parameters <= stored < 4 * parameters * 1.2 + 4096


def test_files_give_what_their_decoded_pixels_give(path: Path, files: list[bytes]) -> None:
    import tensorflow as tf

    from bottleneck.pixels.contract.decode import decoder

    decode = decoder(tiny_model.SIZE, tiny_model.SIZE)
    pixels = np.stack([decode(tf.constant(data)).numpy() for data in files])
    wanted = tiny_model.stages(tiny_model.merged(), pixels)
    ran = run_bare(SavedModel.reader, path, files=files, wanted=ANSWERS, batch=8)
    assert set(ran.outputs) == set(ANSWERS)
    for name in ANSWERS:
        assert np.abs(ran.outputs[name] - wanted[name]).max() <= 1e-6
        assert np.ptp(wanted[name], axis=0).max() > 0.05  # these images are told apart


def test_signatures_are_named_as_servers_want_them(loaded: Any) -> None:
    inputs = {name: s.structured_input_signature[1] for name, s in loaded.signatures.items()}
    assert {name: list(spec) for name, spec in inputs.items()} == {
        "serving_default": ["image"],
        "stages": ["image"],
        "serve_bytes": ["image_bytes"],
    }
    for name in ("serving_default", "serve_bytes"):
        assert set(loaded.signatures[name].structured_outputs) == set(ANSWERS)


@pytest.mark.parametrize("name", ["serving_default", "stages", "serve_bytes"])
def test_no_images_give_no_rows(loaded: Any, name: str) -> None:
    import tensorflow as tf

    nothing = (
        {"image_bytes": tf.constant([], tf.string)}
        if name == "serve_bytes"
        else {"image": tf.zeros((0, tiny_model.SIZE, tiny_model.SIZE, 3))}
    )
    for rows in loaded.signatures[name](**nothing).values():
        assert rows.shape[0] == 0
        assert rows.dtype == tf.float32


def test_one_damaged_file_fails_the_request_with_its_reason(loaded: Any, files: list[bytes]) -> None:
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError, match="not a JPEG, PNG, GIF, BMP or WebP image"):
        loaded.signatures["serve_bytes"](image_bytes=tf.constant([files[0], b"<html>"]))


def test_its_document_and_labels_travel_with_it(path: Path) -> None:
    extra = path / "assets.extra"
    assert json.loads((extra / "bottleneck.json").read_text("utf-8")) == tiny_model.DOCUMENT
    assert (extra / "labels.txt").read_text("utf-8") == "cat\ndog\nweiß\n"


@pytest.mark.parametrize("part", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
def test_one_that_was_cut_off_is_named(path: Path, tmp_path: Path, part: str) -> None:
    import shutil

    broken = tmp_path / "saved_model"
    shutil.copytree(path, broken)
    data = (broken / part).read_bytes()
    (broken / part).write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ExportError, match="saved_model does not run in a process without this package"):
        run_bare(SavedModel.reader, broken, pixels=tiny_model.images(1))
