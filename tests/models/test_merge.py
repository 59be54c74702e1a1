"""One model again, on real Keras bases: equal to the cached head, frozen whatever happens outside, plain to load."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bottleneck
from bottleneck import runs
from bottleneck.errors import BaseError, ParityError, UsageError
from bottleneck.exports.merged_file import MergedModel
from tests.fakes import write_images
from tests.faults.private_mounts import memory, private_mounts
from tests.faults.reference_stores import snapshot
from tests.in_process import caller

pytestmark = pytest.mark.keras

CASES = [
    pytest.param("squeezenet", "logistic", {}, id="squeezenet"),
    pytest.param("mobilenetv2", "dense", {}, id="mobilenetv2-batchnorm"),
    pytest.param("vgg16", "dense", {"cut": "block3_pool"}, id="vgg16-map"),
    pytest.param("efficientnetb0", "logistic", {"resize": "pad"}, id="efficientnetb0-own-preprocessing"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(
        tmp_path_factory.mktemp("images") / "in", {"red": 12, "green": 12, "blue": 12}, size=(40, 50)
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


def trained(images: Path, place: Path, base: str, head: str = "logistic", **options: object) -> Path:
    run = place / f"run-{base}-{head}"
    settings = {"hidden": (8,), "dropout": 0.5, "batch_norm": True, "epochs": 3} if head == "dense" else {}
    bottleneck.train(
        images,
        base,
        head,
        run=run,
        settings=settings,
        weights="random:0",
        size=32,
        cache=place / "cache",
        **options,
    )
    return run


@pytest.mark.parametrize(("base", "head", "options"), CASES)
def test_a_merged_model_is_certified(images: Path, place: Path, base: str, head: str, options: dict) -> None:
    run = trained(images, place, base, head, **options)
    done = bottleneck.merge(run, place / f"{base}-{head}" / "model.keras")
    certificate = done.certificate
    assert certificate.verdict == "certified"
    ways = {c.form for c in certificate.forms}
    assert {"merged model", "reloaded .keras", "reloaded .keras, called in training mode"} < ways
    assert {c.images for c in certificate.forms} == {"probes", "own images"}
    twins = {c.form for c in certificate.twins}
    assert "channels reversed" in twins
    assert ("BatchNorm in training mode" in twins) == (base in ("mobilenetv2", "efficientnetb0"))
    assert ("pixels divided by 255" in twins) == (base == "efficientnetb0")
    assert not any(c.passed for c in certificate.twins)
    assert json.loads(done.parity.read_text())["verdict"] == "certified"
    # Beside another file of that name it proves nothing, and says so.
    assert certificate.files == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (done.model, done.decode)
    }
    with zipfile.ZipFile(done.model) as archive:
        document = json.loads(archive.read("bottleneck.json"))
    assert document["classes"] == ["blue", "green", "red"]
    by_run, by_model = (bottleneck.predict(p, images, cache=place / "cache") for p in (run, done.model))
    np.testing.assert_allclose(by_run.probabilities, by_model.probabilities, atol=1e-5)


def test_a_score_is_an_output_of_its_own_and_is_certified_too(images: Path, place: Path) -> None:
    from scipy.special import logsumexp

    run = trained(images, place, "squeezenet")
    folder = runs.read_run(run)
    done = bottleneck.merge(run, place / "scored" / "model.keras", score="energy")
    assert done.certificate.verdict == "certified"
    for form in done.certificate.forms:
        assert [d.quantity for d in form.differences] == ["features", "logits", "probabilities", "energy"]
    with zipfile.ZipFile(done.model) as archive:
        scale = json.loads(archive.read("bottleneck.json"))["score"]
    rows = bottleneck.features(images, folder.run.request, cache=place / "cache")
    energies = -logsumexp(folder.head().logits(rows.X), axis=1)
    unseen = np.array(folder.inventory().table.column("split").to_pylist()) != "train"
    assert (scale["name"], scale["images"], scale["unseen"]) == ("energy", unseen.sum(), True)
    np.testing.assert_allclose(scale["quantiles"]["50"], np.median(energies[unseen]), rtol=1e-4)
    found = bottleneck.predict(done.model, images, cache=place / "cache")
    np.testing.assert_allclose(found.energy, energies, rtol=1e-4)
    assert np.ptp(energies) > 0.1  # these images are told apart
    first, second = list(found.lines("csv"))[:2]
    assert first == b"path,label,probability,blue,green,red,energy,error\n"
    assert float(second.split(b",")[6]) == pytest.approx(energies[0], rel=1e-4)
    assert json.loads(next(found.lines("jsonl")))["energy"] == pytest.approx(energies[0], rel=1e-4)


def test_a_store_of_float16_is_measured_against_float32_features(images: Path, place: Path) -> None:
    run = place / "run-half"
    bottleneck.train(
        images, "squeezenet", run=run, weights="random:0", size=32, dtype="float16", cache=place / "cache"
    )
    certificate = bottleneck.merge(run, place / "half" / "model.keras").certificate
    assert certificate.verdict == "certified"
    (drift,) = certificate.drift
    assert drift.top1 >= 0.97
    assert 1e-5 < drift.differences[0].largest < 1e-2


@pytest.fixture(scope="module")
def delivered(images: Path, place: Path) -> MergedModel:
    run = trained(images, place, "mobilenetv2", "dense")
    return bottleneck.merge(run, place / "delivered" / "model.keras")


def test_the_file_loads_in_safe_mode_where_this_package_is_not(
    delivered: MergedModel, images: Path, place: Path
) -> None:
    """A bare interpreter with TensorFlow, in which importing the package fails."""
    script = place / "bare.py"
    script.write_text(
        "import json, sys, zipfile\n"
        "sys.modules['bottleneck'] = None\n"
        f"sys.path.insert(0, {str(delivered.decode.parent)!r})\n"
        "import keras, numpy as np\n"
        "from decode import decode\n"
        f"model = keras.saving.load_model({str(delivered.model)!r})\n"
        f"classes = json.loads(zipfile.ZipFile({str(delivered.model)!r}).read('bottleneck.json'))['classes']\n"
        "pixels = np.stack([decode(open(p, 'rb').read()) for p in sys.argv[1:]])\n"
        "print(json.dumps([dict(zip(classes, map(float, row))) for row in model.predict(pixels, verbose=0)]))\n"
    )
    names = ["blue/000.png", "green/003.png", "red/011.png"]
    done = subprocess.run(
        [sys.executable, "-I", str(script), *(str(images / n) for n in names)],
        capture_output=True,
        text=True,
        check=True,
        env={"TF_CPP_MIN_LOG_LEVEL": "3", "PATH": "/usr/bin:/bin"},
    )
    ours = bottleneck.predict(delivered.model, images, cache=place / "cache")
    by_path = dict(zip((p.decode() for p in ours.paths), ours.probabilities, strict=True))
    for name, theirs in zip(names, json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert list(theirs) == list(ours.classes)
        np.testing.assert_allclose(by_path[name], list(theirs.values()), atol=1e-5)


def test_training_mode_and_an_outer_fit_change_neither_outputs_nor_statistics(delivered: MergedModel) -> None:
    import keras

    model = keras.saving.load_model(delivered.model)
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    base = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    features = keras.Model(model.inputs[0], model.get_layer("features").output)
    before = [w.numpy() for w in base.weights]
    quiet = np.asarray(features(pixels, training=False))
    np.testing.assert_array_equal(np.asarray(features(pixels, training=True)), quiet)
    outer = keras.Sequential([keras.Input((32, 32, 3)), model])
    outer.compile("sgd", "sparse_categorical_crossentropy")
    outer.fit(pixels, np.zeros(4), epochs=2, verbose=0)
    for old, new in zip(before, base.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_pixels_may_come_as_whole_numbers(delivered: MergedModel) -> None:
    import keras

    model = keras.saving.load_model(delivered.model)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3))
    whole = model.predict(pixels.astype("uint8"), verbose=0)
    np.testing.assert_array_equal(whole, model.predict(pixels.astype("float32"), verbose=0))


@pytest.mark.fault(52, 80)
def test_weights_that_changed_since_are_noticed(images: Path, place: Path, tmp_path: Path) -> None:
    import keras

    path = tmp_path / "net.keras"

    def write(seed: int) -> None:
        keras.utils.set_random_seed(seed)
        image = keras.Input((32, 32, 3))
        x = keras.layers.Conv2D(8, 3, activation="relu")(image)
        keras.Model(image, keras.layers.GlobalAveragePooling2D()(x)).save(path)

    write(0)
    run = tmp_path / "run"
    bottleneck.train(images, str(path), run=run, preprocessing="scale=1/255", cache=place / "cache")
    write(1)
    with pytest.raises(BaseError, match=r"is not the one that run run was trained on"):
        bottleneck.merge(run, tmp_path / "model.keras")
    write(0)
    bottleneck.merge(run, tmp_path / "model.keras")


def test_a_base_that_cannot_tell_channels_apart_gets_no_certificate(
    images: Path, place: Path, tmp_path: Path
) -> None:
    """A mean over channels: a swap of them changes nothing, so a comparison proves nothing about their order."""
    import keras

    image = keras.Input((32, 32, 3))
    grey = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer=keras.initializers.Constant(1 / 3))(
        image
    )
    x = keras.layers.AveragePooling2D(8)(grey)
    keras.Model(image, keras.layers.Flatten()(x)).save(tmp_path / "colourless.keras")
    bottleneck.train(
        images,
        str(tmp_path / "colourless.keras"),
        run=tmp_path / "run",
        preprocessing="none",
        cache=place / "cache",
    )
    with pytest.raises(ParityError, match=r"no power.*channels reversed"):
        bottleneck.merge(tmp_path / "run", tmp_path / "out" / "model.keras")
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_a_previous_file_survives_a_merge_that_fails(
    delivered: MergedModel, images: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bottleneck.models import certificate as parity

    before = delivered.model.read_bytes()
    real = parity.model_outputs
    monkeypatch.setattr(
        parity,
        "model_outputs",
        lambda m, x, b: real(m, x, b)._replace(features=real(m, x, b).features * 1.001),
    )
    with pytest.raises(ParityError, match="differs"):
        bottleneck.merge(place / "run-mobilenetv2-dense", delivered.model)
    assert delivered.model.read_bytes() == before
    assert not [p for p in delivered.model.parent.iterdir() if p.name.endswith(".making")]


@pytest.mark.needs_tool("mount")
@private_mounts
def test_a_full_disk_is_named_and_so_is_a_full_folder_for_temporary_files(
    delivered: MergedModel, place: Path, tmp_path: Path, capfdbinary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, run = caller(capfdbinary), place / "run-mobilenetv2-dense"
    full = memory(tmp_path / "full", "size=16k")
    before = snapshot(delivered.model.parent)
    said = call("merge", run, "--out", full / "model.keras", "--json", "--quiet")
    assert said.status == 1
    assert re.match(rf"No space left on device: {full}/\S+; free space", said.json["error"]), said.json
    assert list(full.iterdir()) == []
    # Keras unpacks assets there, and so does whoever writes a model.
    monkeypatch.setattr("tempfile.tempdir", str(memory(tmp_path / "temporary", "nr_inodes=1")))
    said = call("merge", run, "--out", delivered.model, "--json", "--quiet")
    assert said.status == 1
    assert re.match(rf"No space left on device: {tmp_path}/temporary/\S+; .*TMPDIR", said.json["error"]), (
        said.json
    )
    assert snapshot(delivered.model.parent) == before


def test_the_target_must_be_a_keras_file(place: Path, delivered: MergedModel) -> None:
    with pytest.raises(UsageError, match=r"ending \.keras"):
        bottleneck.merge(place / "run-mobilenetv2-dense", place / "model.h5")


def test_a_second_model_in_a_folder_keeps_the_first_ones_pixels(
    delivered: MergedModel, images: Path, place: Path
) -> None:
    run = place / "run-larger"
    bottleneck.train(images, "squeezenet", run=run, weights="random:0", size=48, cache=place / "cache")
    first = delivered.decode.read_text()
    second = bottleneck.merge(run, delivered.model.with_name("larger.keras"))
    assert second.decode.name == "larger_decode.py"
    assert delivered.decode.read_text() == first


def test_a_model_object_is_a_base_too(images: Path, tmp_path: Path) -> None:
    import keras

    model = keras.Sequential(
        [keras.Input((32, 32, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()], name="mine"
    )
    done = bottleneck.extract(images, model, preprocessing="scale=1/255", cache=tmp_path / "cache")
    assert (done.computed, done.spec.shape) == (36, (30 * 30 * 4,))
    again = bottleneck.extract(images, model, preprocessing="scale=1/255", cache=tmp_path / "cache")
    assert again.computed == 0
    with pytest.raises(UsageError, match=r"model\.save"):
        bottleneck.train(
            images, model, run=tmp_path / "run", preprocessing="scale=1/255", cache=tmp_path / "cache"
        )
