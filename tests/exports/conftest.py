"""A run that is exported, and what it is compared with, made once for all files of this folder."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

import bottleneck
from bottleneck import catalog, runs
from bottleneck.exports import export as exporting
from bottleneck.models import certificate as parity
from bottleneck.models.merge import load_run_model, merge_model
from bottleneck.models.reference import Reference, make_reference
from bottleneck.models.sample_images import PROBES
from bottleneck.models.twins import twins
from bottleneck.schema import Cache
from tests.exports import fake_exporters
from tests.exports.export_files import shortened
from tests.fakes import write_images


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a small network with BatchNorm, one image of its source broken."""
    import keras

    place = tmp_path_factory.mktemp("exporting")
    source = write_images(place / "in", {"a|b": 14, "*dog*": 14, "owl": 14}, size=(30, 26))
    (source / "owl" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    keras.utils.set_random_seed(0)
    image = keras.Input((24, 24, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="first")(image)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Activation("relu")(x)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.Conv2D(8, 3, padding="same", name="second")(x)
    keras.Model(image, keras.layers.GlobalAveragePooling2D(name="pool")(x)).save(place / "net.keras")
    bottleneck.train(
        source,
        str(place / "net.keras"),
        run=place / "run",
        preprocessing="scale=1/128,offset=-1",
        cache=place / "cache",
        max_bad=1.0,
    )
    return place / "run"


@pytest.fixture(scope="session")
def known(run: Path) -> Reference:
    """What all of these tests compare with: the base is loaded, and asked, once."""
    cache = Cache(run.parent / "cache")
    return make_reference(load_run_model(runs.read_run(run), cache), cache, 256)


@pytest.fixture(scope="session")
def once(known: Reference) -> tuple[Any, Any]:
    """The merged model, and what the broken twins give."""
    made = twins(known.model.base, known.model.head, known.images[PROBES].pixels, 8)
    return merge_model(known.model.base, known.model.head), made


@pytest.fixture
def fakes(known: Reference, once: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds of artefact, and a reference, that cost milliseconds."""
    monkeypatch.setattr(catalog, "EXPORTERS", fake_exporters.KINDS)
    monkeypatch.setattr(
        exporting, "run_bare", functools.partial(fake_exporters.run_here, known.model.forward.decode)
    )
    monkeypatch.setattr(exporting, "load_run_model", lambda *_: known.model)
    monkeypatch.setattr(exporting, "make_reference", lambda model, cache, most: shortened(known, most))
    monkeypatch.setattr(exporting, "merge_model", lambda *_: once[0])
    monkeypatch.setattr("bottleneck.models.reference.twins", lambda *_: once[1])
    monkeypatch.setattr(parity, "model_outputs", fake_exporters.answers)
