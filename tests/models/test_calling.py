"""The certificate holds for every way that a user calls the model, before and after a file and an outer fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bottleneck
from bottleneck.bases.load import LoadedBase, load_model
from bottleneck.errors import BaseError, BottleneckError, ParityError
from bottleneck.heads.logistic import LogisticHead
from bottleneck.models import calling, merge
from bottleneck.models import certificate as parity
from bottleneck.models.comparison import Outputs, bound_of, spread
from bottleneck.models.merge import RunModel
from bottleneck.models.reference import Reference, measure_bound
from bottleneck.models.sample_images import PROBES, ComparisonImages
from bottleneck.pixels.probes import probes
from bottleneck.schema import BaseRequest, Certificate, Preprocessing, Stillness
from tests.bases.networks import fill
from tests.models import calling_modes, training_only_bases
from tests.models.tiny_network import worker_here, write_patterns

pytestmark = pytest.mark.keras
__all__ = ["worker_here"]

PIXELS = probes(10, training_only_bases.SIZE, training_only_bases.SIZE)


def loaded(body: training_only_bases.Body) -> LoadedBase:
    request = BaseRequest(
        base="sleeper", preprocessing=Preprocessing.parse("scale=1/127.5,offset=-1"), pooling=None
    )
    return load_model(fill(training_only_bases.network(body)), [request])[0]


def known_of(base: LoadedBase) -> Reference:
    """What `reference` makes of a run, without one: the probes alone, at one batch."""
    forward: Any = SimpleNamespace(batch=len(PIXELS))
    import tensorflow as tf

    rows = np.asarray(tf.function(base.features_model)(PIXELS, training=False))
    head = LogisticHead().fit(rows, np.arange(10) % 2)
    outputs = {PROBES: parity.head_outputs(forward, head, PIXELS, rows)}
    seen = ComparisonImages(PIXELS, (), np.full(10, -1), np.zeros((10, 32), np.uint8))
    bound = measure_bound(base, head, {PROBES: PIXELS}, outputs)
    model = RunModel(None, base, forward, head, None)  # type: ignore[arg-type]
    return Reference(model, {PROBES: seen}, outputs, (), bound)


def certified(known: Reference, again: Any) -> Certificate:
    """As `merge` does it, of the model that a file gave back."""
    forms = known.compare("reloaded .keras", known.of_model(again))
    called, still = known.compare_calls("reloaded .keras", again)
    certificate = parity.certify(
        [*forms, *called], known.twins(), recipe="", head="", bound=known.bound, still=[still]
    )
    known.require(certificate)
    return certificate


def written(known: Reference, path: Path) -> tuple[Any, Any]:
    """The merged model, and what its file gives back."""
    import keras

    model = merge.merge_model(known.model.base, known.model.head)
    model.save(path)
    return model, keras.saving.load_model(path, safe_mode=True)


@pytest.mark.parametrize("name", training_only_bases.STEADY)
def test_what_sleeps_in_a_base_is_certified_and_stays_asleep_however_it_is_called(
    name: str, tmp_path: Path
) -> None:
    known = known_of(loaded(training_only_bases.STEADY[name]))
    digest = known.model.base.digest_now()
    model, again = written(known, tmp_path / "model.keras")
    expected = known.outputs[PROBES].features
    assert expected is not None
    scale = expected.std(axis=0).mean()
    before = calling_modes.state_of(features_of(model))
    for way, found in calling_modes.before_and_after(features_of(model), features_of(again), PIXELS):
        gap = np.abs(found - expected[: len(found)]).max() / scale
        assert gap < 1e-4, (way, gap)
    assert calling_modes.state_of(features_of(model)) == before
    certificate = certified(known, again)
    assert certificate.verdict == "certified"
    twins = {twin.form for twin in certificate.twins}
    assert ("awake randomness" in twins) == (name not in training_only_bases.NOTHING_RANDOM)
    assert ("unfrozen attention" in twins) == ("attention" in name and "one head" not in name)
    assert known.model.base.digest_now() == digest


def certified_of(body: training_only_bases.Body, folder: Path) -> Certificate:
    known = known_of(loaded(body))
    return certified(known, written(known, folder / "model.keras")[1])


def features_of(model: Any) -> Any:
    """The merged model up to its features: whatever of it trains is the base's."""
    import keras

    return keras.Model(model.inputs[0], model.get_layer("features").output)


@pytest.mark.parametrize("name", training_only_bases.REFUSED)
def test_what_cannot_be_silenced_is_refused_by_name(name: str, tmp_path: Path) -> None:
    body, words = training_only_bases.REFUSED[name]
    with pytest.raises((BaseError, ParityError), match=words) as caught:
        certified_of(body, tmp_path)
    assert isinstance(caught.value, BottleneckError)


@pytest.fixture
def nothing_is_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge as it was: frozen in memory and no more."""
    import keras

    def clone(model: Any) -> Any:
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        copy.trainable = False
        return copy

    monkeypatch.setattr(merge, "freeze_base", clone)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("augmentation in a pipeline", r"is not frozen.*moved.*seed_generator"),
        ("attention", r"is not frozen.*would train.*multi_head_attention.*query"),
        ("grouped attention", r"is not frozen.*would train"),
        ("spectral norm", r"is not frozen.*moved.*(kernel|vector_u)"),
        # It draws from Keras' own generator, which is no variable of the model.
        ("stochastic depth", r"called in training mode differs"),
    ],
)
def test_a_base_that_is_awake_gets_no_certificate(
    name: str, words: str, nothing_is_silenced: None, tmp_path: Path
) -> None:
    with pytest.raises(ParityError, match=words):
        certified_of(training_only_bases.STEADY[name], tmp_path)


def test_convolutional_lstm_is_awake_in_its_file(nothing_is_silenced: None, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"is not frozen.*would train.*conv_lstm"):
        certified_of(training_only_bases.REFUSED["convolutional LSTM"][0], tmp_path)


def test_a_right_model_that_rounds_more_is_held_to_its_own_rounding() -> None:
    """Off by 1.5e-4 of the spread: too much for a shallow network, little for one whose two exact ways differ so."""
    known = known_of(loaded(training_only_bases.conv_alone))
    right = known.outputs[PROBES]
    off = Outputs(*(part + 1.5e-4 * spread(part) for part in right[:3]))
    assert not known.compare("form", {PROBES: off})[0].passed
    deep = replace(known, bound=bound_of(6e-5, 16))
    assert deep.compare("form", {PROBES: off})[0].passed
    # A kind that is held to less by itself is not held to more.
    assert deep.compare("litert", {PROBES: off}, tolerance=1e-3)[0].tolerance == 1e-3


def test_reduced_precision_is_blamed_for_a_form_that_differs_and_for_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = known_of(loaded(training_only_bases.conv_alone))
    monkeypatch.setattr("bottleneck.models.reference._reduced", lambda model: "conv: bfloat16")
    right = known.outputs[PROBES]
    assert right.features is not None
    equal, turned = (right._replace(features=sign * right.features) for sign in (1, -1))
    forms = known.compare("form", {PROBES: equal})
    certificate = parity.certify(forms, known.twins(), recipe="", head="", bound=known.bound)
    known.require(certificate)

    def said(**update: object) -> str:
        with pytest.raises(ParityError) as caught:
            known.require(certificate.model_copy(update={"verdict": "different", **update}))
        return str(caught.value)

    assert "reduced precision (conv: bfloat16)" in said(forms=known.compare("form", {PROBES: turned}))
    awake = Stillness(form="keras", variables=4, moved=("kernel",), passed=False)
    coarse = parity.judge_rows("own images", right, turned)
    for words in (said(still=(awake,)), said(drift=(coarse,))):
        assert "reduced precision" not in words


def test_ways_are_forms_of_the_certificate(tmp_path: Path) -> None:
    certificate = certified_of(training_only_bases.conv_alone, tmp_path)
    forms = {form.form for form in certificate.forms}
    assert forms == {
        "reloaded .keras", "reloaded .keras, called", "reloaded .keras, called again",
        "reloaded .keras, called with one image at a time", "reloaded .keras, called in training mode",
        "reloaded .keras, called after training mode", "reloaded .keras, called after an outer fit",
    }  # fmt: skip
    assert certificate.format == 4
    (still,) = certificate.still
    assert (still.passed, still.trainable, still.moved) == (True, (), ()) and still.variables == 6
    assert min(form.count for form in certificate.forms if "one image" not in form.form) == calling.FEW


@pytest.mark.usefixtures("worker_here")
def test_a_base_with_augmentation_in_a_pipeline_is_merged_and_answers_as_its_head(tmp_path: Path) -> None:
    """The whole trip: a model in a file, trained on, merged, loaded, called as the README says."""
    import keras

    fill(training_only_bases.network(training_only_bases.STEADY["augmentation in a pipeline"])).save(
        tmp_path / "base.keras"
    )
    source = write_patterns(tmp_path / "in", 7, size=training_only_bases.SIZE)
    bottleneck.train(
        source, str(tmp_path / "base.keras"), run=tmp_path / "run", preprocessing="scale=1/127.5,offset=-1",
        cache=tmp_path / "cache",
    )  # fmt: skip
    done = bottleneck.merge(tmp_path / "run", tmp_path / "model.keras", cache=tmp_path / "cache")
    by_run = bottleneck.predict(tmp_path / "run", source, cache=tmp_path / "cache")
    model = keras.saving.load_model(done.model)
    pictures = [keras.utils.img_to_array(keras.utils.load_img(source / p.decode())) for p in by_run.paths]
    np.testing.assert_allclose(np.asarray(model(np.stack(pictures))), by_run.probabilities, atol=1e-5)
    assert {"reloaded .keras, called in training mode"} < {form.form for form in done.certificate.forms}
