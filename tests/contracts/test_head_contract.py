"""What every head of the catalog must do."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_validate

from bottleneck import catalog, contracts
from bottleneck.errors import HeadError
from bottleneck.heads import persistence
from bottleneck.heads.inputs import BadRows
from bottleneck.heads.make import count_parameters, make
from bottleneck.schema import HeadSpec
from tests.heads.toy_rows import clusters

#: Settings that make a head quick and use what it has; a head without a line here runs with its defaults.
SETTINGS = {
    "dense": {
        "hidden": (6,),
        "epochs": 12,
        "batch_size": 4,
        "batch_norm": True,
        "dropout": 0.2,
        "patience": None,
        "learning_rate": 0.01,
    }
}
#: What a fitted head is then set to; a head without a line here fails.
CHANGES = {
    "dense": {"hidden": (), "activation": "tanh", "batch_norm": False},
    "logistic": {"C": 1e-4, "standardize": False},
}
GRIDS = {"logistic": {"C": [0.01, 1.0]}, "dense": {"hidden": [(), (6,)], "epochs": np.array([1])}}

pytestmark = pytest.mark.keras


@pytest.fixture(params=sorted(catalog.HEADS))
def name(request):
    return request.param


def new(name):
    return make(HeadSpec(name=name, settings=SETTINGS.get(name, {})))


@pytest.fixture(params=[((10,), 2), ((10,), 5), ((7, 7, 8), 2), ((7, 7, 8), 5)], ids=str)
def task(request):
    shape, classes = request.param
    return clusters(40, shape, classes), shape, classes


def test_views_side_by_side_are_taken_as_one_image(name, task):
    """An epoch sees one of them, a head without epochs each as a part: equal views teach what the image does."""
    (X, y), _, _ = task
    alone = new(name).fit(X, y)
    views = new(name).fit(np.repeat(X, 3, axis=0), np.repeat(y, 3), views=3)
    assert views.classes_.tolist() == alone.classes_.tolist()
    np.testing.assert_allclose(views.predict_proba(X), alone.predict_proba(X), atol=0.02)
    with pytest.raises(BadRows, match="views=3 of 40 rows"):
        new(name).fit(X, y, views=3)


def through(layers, X):
    value = X
    for layer in layers:
        value = layer(value)
        if layer.name == "logits":
            logits = value.numpy()
    return logits, value.numpy()


def test_fits_predicts_and_becomes_layers(name, task):
    (X, y), shape, classes = task
    head = new(name).fit(X, y)
    assert isinstance(head, contracts.Head)
    assert head.classes_.tolist() == sorted(set(y))
    probabilities, logits = head.predict_proba(X), head.logits(X)
    assert probabilities.shape == logits.shape == (40, classes)
    assert probabilities.dtype == logits.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(probabilities, shifted / shifted.sum(axis=1, keepdims=True), atol=1e-6)
    assert (head.predict(X) == head.classes_[probabilities.argmax(axis=1)]).all()
    assert head.score(X, y) > 1 / classes

    layers = head.layers()
    assert [layer.name for layer in layers[-2:]] == ["logits", "probabilities"]
    assert all(type(layer).__module__.startswith("keras.") for layer in layers)
    as_logits, as_probabilities = through(layers, X)
    # Columns of 500 and more: float32 layers round a logit by some 4e-5.
    np.testing.assert_allclose(as_probabilities, probabilities, atol=2e-5)
    np.testing.assert_allclose(as_logits, logits, atol=1e-5 * max(1, np.abs(logits).max()) * 10)
    trainable = sum(int(np.prod(v.shape)) for layer in layers for v in layer.trainable_variables)
    spec = HeadSpec(name=name, settings=SETTINGS.get(name, {}))
    assert count_parameters(spec, shape, classes)[1] == trainable


def test_the_layers_make_a_model_that_saves_and_loads(name, tmp_path):
    import keras

    X, y = clusters(30, (3, 3, 4), 3)
    head = new(name).fit(X, y)
    model = keras.Sequential([keras.Input((3, 3, 4)), *head.layers()])
    model.save(tmp_path / "head.keras")
    loaded = keras.saving.load_model(tmp_path / "head.keras", safe_mode=True)
    # Values up to 500 in float32: runtimes differ by 1.1e-5 where sums are taken in another order.
    np.testing.assert_allclose(loaded(X, training=False).numpy(), head.predict_proba(X), atol=3e-5)


def test_float16_rows_and_lists_are_taken(name):
    X, y = clusters(40, (10,), 3)
    X = X.astype(np.float16)
    half = new(name).fit(X, y)
    whole = new(name).fit(X.astype(np.float32), y)
    np.testing.assert_allclose(half.predict_proba(X), whole.predict_proba(X.astype(np.float32)), atol=1e-5)
    listed = new(name).fit(X.tolist(), y.tolist())
    # A list is of float64, and is centred before it is rounded.
    np.testing.assert_allclose(listed.predict_proba(X.tolist()), half.predict_proba(X), atol=2e-5)

    class Mapped:
        def __array__(self, dtype=None, copy=None):
            return X if dtype is None else X.astype(dtype)

    assert (half.predict(Mapped()) == half.predict(X)).all()


def test_labels_of_any_kind(name):
    X, y = clusters(40, (10,), 2)
    for labels in ((y == "class a"), (y == "class a") * 7 + 3, y.astype(object)):
        head = new(name).fit(X, labels)
        assert set(head.predict(X).tolist()) <= set(labels.tolist())
        assert head.predict(X).dtype == np.asarray(labels).dtype


def test_clone_is_unfitted_and_settings_survive(name):
    head = new(name).fit(*clusters(20, (10,), 2))
    copy = clone(head)
    assert copy.get_params() == head.get_params()
    assert not [attribute for attribute in vars(copy) if attribute.endswith("_")]
    with pytest.raises(NotFittedError):
        copy.predict(clusters(20, (10,), 2)[0])


def test_refit_forgets(name):
    first, second = clusters(40, (10,), 3), clusters(40, (3, 4), 2, seed=5)
    head = new(name).fit(*first).fit(*second)
    fresh = new(name).fit(*second)
    assert head.classes_.tolist() == fresh.classes_.tolist()
    assert (head.logits(second[0]) == fresh.logits(second[0])).all()
    with pytest.raises(BadRows):
        head.predict(first[0])


def test_cross_validate_and_grid_search(name):
    X, y = clusters(60, (10,), 3)
    scores = cross_validate(new(name), X, y, cv=2, scoring=["accuracy", "neg_log_loss"], error_score="raise")
    assert np.isfinite(scores["test_neg_log_loss"]).all()
    search = GridSearchCV(new(name), GRIDS.get(name, {}), cv=2, error_score="raise").fit(X, y)
    assert search.best_estimator_.predict(X).shape == (60,)


def test_rows_of_another_shape_are_refused(name):
    X, y = clusters(40, (3, 4), 2)
    head = new(name).fit(X, y)
    for wrong in (X.reshape(40, 4, 3), X.reshape(40, 12), X[:, :2], X.reshape(40, 3, 2, 2)):
        with pytest.raises(BadRows, match="expect"):
            head.predict(wrong)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(name, value):
    X, y = clusters(20, (10,), 2)
    X[3, 4] = value
    with pytest.raises(BadRows):
        new(name).fit(X, y)
    head = new(name).fit(*clusters(20, (10,), 2))
    with pytest.raises(BadRows):
        head.predict(X)


def test_one_class_no_rows_and_unequal_lengths_are_refused(name):
    X, y = clusters(20, (10,), 2)
    with pytest.raises(BadRows, match=r"2 classes, but there is 1 class, 'class a'"):
        new(name).fit(X, np.full(20, "class a"))
    with pytest.raises(BadRows):
        new(name).fit(X[:0], y[:0])
    with pytest.raises(BadRows):
        new(name).fit(X, y[:-1])


def test_validation_rows_are_taken_and_not_learnt(name):
    X, y = clusters(40, (10,), 2)
    head = new(name).fit(X, y, validation_data=clusters(10, (10,), 2, seed=3), on_epoch=lambda entry: None)
    assert (head.logits(X) == new(name).fit(X, y).logits(X)).mean() > 0.99 or hasattr(head, "history_")


def test_save_and_load_give_the_same_bits(name, task, tmp_path):
    (X, y), shape, _ = task
    head = new(name).fit(X, y)
    spec = HeadSpec(name=name, settings=SETTINGS.get(name, {}))
    persistence.save_head(
        head, spec, tmp_path, recipe="a" * 64, feature_shape=shape, classes=head.classes_.tolist()
    )
    loaded, document = persistence.load_head(
        tmp_path, recipe="a" * 64, feature_shape=shape, classes=head.classes_.tolist()
    )
    assert (loaded.logits(X) == head.logits(X)).all()
    assert (loaded.predict(X) == head.predict(X)).all()
    assert document.spec.name == name
    for fact in head.FACTS:
        assert getattr(loaded, fact) == getattr(head, fact)
    assert loaded.get_params() == head.get_params()
    assert clone(loaded).fit(X, y).predict(X).shape == y.shape


def test_state_restores_and_refuses_strangers(name):
    X, y = clusters(30, (10,), 3)
    head = new(name).fit(X, y)
    document, arrays = head.state()
    assert (type(head).restore(document, arrays).logits(X) == head.logits(X)).all()
    first = next(iter(arrays))
    for broken in (
        {key: value for key, value in arrays.items() if key != first},
        arrays | {"stranger": np.zeros(1, np.float32)},
        arrays | {first: arrays[first][:-1]},
        arrays | {first: arrays[first].astype(np.float64)},
        arrays | {first: np.full_like(arrays[first], np.nan)},
    ):
        with pytest.raises(HeadError):
            type(head).restore(document, broken)
    for change in (
        {"classes": ["a", "a", "b"]},
        {"kind": "int"},
        {"feature_shape": [0]},
        {"facts": {}},
        {"more": 1},
    ):
        with pytest.raises(HeadError):
            type(head).restore(document | change, arrays)


#: One value of each kind: whatever a setting is given, `fit` says so or everything after it works.
ODD = [
    "64", "x", -1, 0, 8, 2.5, float("nan"), True, None, (), (8, 4), [3],
    {"a": 1.0}, b"8", np.array([4]), object(),
]  # fmt: skip


def test_a_setting_of_the_wrong_kind_is_refused_at_fit_or_works_to_the_end(name, monkeypatch):
    """Never at `predict`, and never as a score of NaN."""
    from bottleneck.errors import UsageError
    from bottleneck.heads import dense
    from bottleneck.heads.settings import known

    X, y = clusters(12, (4,), 2)
    if name == "dense":
        # What the network learns is not asked here, and 200 fits of it would take minutes.
        def untrained(program, settings, *_):
            return program.weights(), [{"epoch": 1.0, "loss": 0.0, "accuracy": 0.0, "learning_rate": 1.0}], 1

        monkeypatch.setattr(dense, "train_dense", untrained)
    kind = catalog.load("head", catalog.HEADS, name)
    for setting in known(kind):
        for value in ODD:
            head = kind(**{setting: value})
            refused = None
            try:
                head.fit(X, y)
            except (UsageError, BadRows) as error:
                refused = str(error)
            if refused is not None:
                assert setting in refused, (setting, value)
                continue
            assert head.predict(X).shape == (12,), (setting, value)
            assert (type(head).restore(*head.state()).logits(X) == head.logits(X)).all(), (setting, value)
            assert head.layers()


def test_settings_changed_after_a_fit_wait_for_the_next(name):
    X, y = clusters(20, (4,), 2)
    head = new(name).fit(X, y)
    before, settings = head.logits(X), head.state()[0]["settings"]
    head.set_params(**CHANGES[name])
    assert (head.logits(X) == before).all() and head.state()[0]["settings"] == settings
    assert head.fit(X, y).state()[0]["settings"] != settings


def test_a_head_says_how_it_was_fitted(name):
    facts = new(name).fit(*clusters(20, (4,), 2)).fit_facts()
    assert facts.solver and facts.rows == "in memory" and facts.why and facts.iterations


def test_with_other_arrays_no_fact_of_the_fit_is_left(name):
    X, y = clusters(20, (4,), 2)
    far = X.astype(np.float64) + 1e6
    head = new(name).fit(far, y)
    assert head.rest_ is not None
    zeros = {name: np.zeros_like(array) for name, array in head.arrays_.items()}
    other = head.with_arrays(zeros)
    assert {getattr(other, fact) for fact in head.FACTS} == {None}
    # The rest belongs to the bias that was there.
    assert (other.logits(far) == 0).all() and head.logits(far).any()
    assert other.get_params() == head.get_params() and other.classes_.tolist() == head.classes_.tolist()
    assert (type(other).restore(*other.state()).logits(far) == 0).all()
    with pytest.raises(HeadError, match="expected the arrays"):
        head.with_arrays({})
