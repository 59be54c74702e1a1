"""The logistic head against scikit-learn's optimum over shapes and spectra, streamed and in memory."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from bottleneck.errors import HeadError
from bottleneck.heads import persistence
from bottleneck.heads.inputs import BadRows, class_weights
from bottleneck.heads.logistic import LogisticHead
from bottleneck.heads.make import make
from bottleneck.heads.newton import minimise
from bottleneck.heads.objective import Objective
from bottleneck.heads.scaling import scaling_of
from bottleneck.schema import HeadSpec
from tests.heads.toy_rows import clusters, fake_rows, objective


def least(head: Any, X: np.ndarray, y: np.ndarray) -> float:
    """scikit-learn's objective at a tight tolerance; where it gives up, an upper bound of the optimum."""
    mean, inverse = scaling_of(X, divide=head.standardize).pair
    Z = (X.astype(np.float64) - mean) * inverse
    codes = np.searchsorted(head.classes_, y)
    weights = class_weights(head.class_weight, head.classes_, codes)
    each = np.ones(len(y)) if weights is None else weights[codes].astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = LogisticRegression(C=head.C, tol=1e-8, max_iter=2000, solver="lbfgs").fit(Z, codes, each)
    kernel, bias = plain.coef_.T, plain.intercept_
    if len(head.classes_) == 2:
        kernel, bias = np.c_[np.zeros(len(kernel)), kernel], np.r_[0.0, bias]
    logits = Z @ kernel + bias
    logits -= logits.max(axis=1, keepdims=True)
    losses = (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), codes]) * each
    return float(losses.mean() + np.square(kernel).sum() / (2 * head.C * len(y)))


@some.composite
def problems(draw: Any) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    random = np.random.default_rng(draw(some.integers(0, 2**32 - 1)))
    classes = draw(some.sampled_from([2, 3, 12]))
    n, d = draw(some.integers(classes, 150)), draw(some.sampled_from([1, 2, 4, 13, 60, 200]))
    n = max(n, classes + 1)
    codes = np.concatenate(
        [np.arange(classes), random.integers(0, draw(some.integers(1, classes)), n - classes)]
    )
    spectrum = np.arange(1, d + 1) ** -draw(some.sampled_from([0.0, 1.0, 3.0]))
    X = random.normal(size=(n, d)) + random.normal(size=(classes, d))[codes] * draw(
        some.sampled_from([0, 1, 4])
    )
    X *= spectrum
    if draw(some.booleans()):
        X = X @ np.linalg.qr(random.normal(size=(d, d)))[0]
    if d > 3:
        X[:, 0] = 7.0  # constant
        X[:, 1] = X[:, 2]  # collinear
    X += draw(some.sampled_from([0.0, 30.0]))
    X = X.astype(draw(some.sampled_from([np.float16, np.float32, np.float64])))
    return (
        X,
        codes,
        {
            "C": draw(some.sampled_from([1e-3, 1.0, 100.0])),
            "standardize": draw(some.booleans()),
            "class_weight": draw(some.sampled_from([None, "balanced"])),
        },
    )


@settings(max_examples=10)
@given(problems())
def test_streamed_and_in_memory_fits_reach_scikit_learns_optimum(
    problem: tuple[np.ndarray, np.ndarray, dict[str, Any]],
) -> None:
    X, y, given = problem
    inside = LogisticHead(**given).fit(X, y)
    best = least(inside, X, y)
    # Weights are kept in float32: that rounding, on float64 rows far from zero too, is all that may be added.
    assert inside.converged_ and objective(inside, X, y) <= best * (1 + 1e-4) + 1e-6
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOTTLENECK_ROWS", "0")
        order = np.random.default_rng(0).permutation(len(X))
        streamed = LogisticHead(**given).fit(fake_rows(X, order), y)
    assert streamed.rows_ == "streamed" and streamed.converged_
    assert objective(streamed, X, y) <= best * (1 + 1e-4) + 1e-6


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "digits"])
@pytest.mark.parametrize("C", [1.0, 1000.0])
def test_streamed_fits_of_known_sets(name: str, C: float, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    X = X.astype(np.float32)
    monkeypatch.setenv("BOTTLENECK_ROWS", "0")
    head = LogisticHead(C=C).fit(fake_rows(X), y)
    assert head.converged_ and head.passes_ < 60
    assert objective(head, X, y) <= least(head, X, y) * (1 + 1e-4)
    assert (head.predict(X) == y).mean() > 0.96


def test_views_streamed_count_as_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = clusters(40, (12,), 3)
    X, y = (
        np.repeat(X, 3, axis=0) + np.random.default_rng(0).normal(size=(120, 12)).astype(np.float32),
        np.repeat(y, 3),
    )
    inside = LogisticHead().fit(X, y, views=3)
    monkeypatch.setenv("BOTTLENECK_ROWS", "0")
    streamed = LogisticHead().fit(fake_rows(X), y, views=3)
    assert objective(streamed, X, y, 3) == pytest.approx(objective(inside, X, y, 3), rel=1e-5)


@pytest.mark.filterwarnings("ignore:The number of unique classes is greater than 50%:UserWarning")
def test_a_thousand_classes_of_one_row_each(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).normal(size=(1000, 30)).astype(np.float32)
    monkeypatch.setenv("BOTTLENECK_ROWS", "0")
    head = LogisticHead(C=10.0).fit(fake_rows(X), np.arange(1000))
    assert head.converged_ and head.score(X, np.arange(1000)) > 0.5


def test_the_bound_is_one() -> None:
    X, y = clusters(120, (12,), 3)
    codes, scaling = np.unique(y, return_inverse=True)[1], scaling_of(X, divide=True).pair
    problem = Objective(X, codes, 3, None, 1 / 120, scaling)
    best = minimise(problem, solver="newton-cg", most=100, tolerance=1e-12).point
    for seed in range(5):
        weights = best.weights + np.random.default_rng(seed).normal(size=problem.shape) * 10.0**-seed
        point = problem.at(weights)
        assert point.value - best.value <= point.gap * (1 + 1e-9)


def test_there_is_no_bound_where_the_intercepts_have_far_to_go() -> None:
    """Only four rows have curvature, and pull at neither side: Newton's step hides most of what intercepts gain."""
    X, codes = np.array([0.0] * 4 + [-1.0] * 6)[:, None], np.array([0, 0] + [1] * 8)
    problem = Objective(X, codes, 2, None, 0.1)
    point = problem.at(np.array([[100.0], [0.0]]))
    fall = point.gradient[-1, 0] ** 2 / point.column_curvature[0]
    assert point.value - problem.at(np.array([[100.0], [100.0]])).value > 5 * fall
    assert np.isfinite(point.weights_gap) and point.gap == np.inf


def test_the_bound_of_the_intercepts_is_made_only_where_it_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    from bottleneck.heads import objective as module

    asked, step = [], module._newton_step
    monkeypatch.setattr(module, "_newton_step", lambda *given: asked.append(1) or step(*given))
    X, y = datasets.load_digits(return_X_y=True)
    for solver in ("newton-cg", "lbfgs"):
        asked.clear()
        head = LogisticHead(solver=solver).fit(X, y)
        assert head.converged_ and 0 < 5 * len(asked) < head.passes_


def test_products_are_the_gradients_change() -> None:
    X, y = clusters(60, (6,), 4)
    codes = np.unique(y, return_inverse=True)[1]
    mean, inverse = scaling_of(X, divide=True).pair
    problem = Objective((X - mean) * inverse, codes, 4, np.array([1.0, 2.0, 0.5, 1.0]), 0.1)
    random = np.random.default_rng(0)
    at, along = random.normal(size=(2, *problem.shape))
    change = (problem.at(at + 1e-5 * along).gradient - problem.at(at - 1e-5 * along).gradient) / 2e-5
    np.testing.assert_allclose(problem.product(at, along), change, atol=1e-7)


def test_a_fit_that_never_beat_its_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from bottleneck.heads import newton

    monkeypatch.setattr(newton, "_line_search", lambda *_: None)
    with pytest.raises(HeadError, match="never lowered the objective"):
        LogisticHead().fit(*clusters(60, (6,), 2))


def test_a_fit_that_stopped_says_how_well_it_does() -> None:
    X, y = clusters(120, (12,), 5)
    with pytest.warns(ConvergenceWarning, match="accuracy on the training rows is") as told:
        head = LogisticHead(max_iter=1).fit(X, y)
    assert [warning.filename for warning in told] == [__file__]
    facts = head.fit_facts()
    assert (facts.solver, facts.converged, facts.rows) == ("newton-cg", False, "in memory")
    assert facts.accuracy == pytest.approx(head.score(X, y)) and "NOT CONVERGED" in str(facts)


def test_float64_rows_far_from_zero_are_told_apart(tmp_path: Path) -> None:
    X, y = datasets.load_iris(return_X_y=True)
    far = LogisticHead().fit(X + 1e6, y)
    near = LogisticHead().fit(X, y)
    assert far.score(X + 1e6, y) == near.score(X, y) > 0.95
    np.testing.assert_allclose(far.predict_proba(X + 1e6), near.predict_proba(X), atol=1e-5)
    spec = HeadSpec(name="logistic")
    persistence.save_head(far, spec, tmp_path, recipe="a" * 64, feature_shape=(4,), classes=[0, 1, 2])
    loaded, _ = persistence.load_head(tmp_path)
    assert (loaded.logits(X + 1e6) == far.logits(X + 1e6)).all()


@pytest.mark.parametrize("weight", [-1.0, 0.0])
def test_class_weights_that_are_not_above_zero_are_refused(weight: float) -> None:
    X, y = clusters(20, (4,), 2)
    with pytest.raises(BadRows, match="expected numbers from"):
        LogisticHead(class_weight={"class a": weight}).fit(X, y)


@pytest.mark.parametrize(
    ("name", "settings", "known"),
    [
        ("logistic", {}, ("n_iter_", "converged_")),
        pytest.param("dense", {"epochs": 1}, ("n_iter_", "best_epoch_", "history_"), marks=pytest.mark.keras),
    ],
)
def test_heads_of_the_first_format_are_read(
    tmp_path: Path, name: str, settings: dict[str, Any], known: tuple[str, ...]
) -> None:
    X, y = clusters(30, (6,), 3)
    spec = HeadSpec(name=name, settings=settings)
    head = make(spec).fit(X, y)
    persistence.save_head(
        head,
        spec,
        tmp_path,
        recipe="a" * 64,
        feature_shape=(6,),
        classes=head.classes_.tolist(),
    )
    document = json.loads((tmp_path / "head.json").read_bytes())
    assert document["format"] == 2
    facts = document["state"]["facts"]
    document["format"] = 1
    document["state"]["facts"] = {fact: facts[fact] for fact in known}
    (tmp_path / "head.json").write_text(json.dumps(document))
    loaded, _ = persistence.load_head(tmp_path)
    assert (loaded.logits(X) == head.logits(X)).all() and loaded.solver_ is None
    assert {fact: getattr(loaded, fact) for fact in known} == {fact: getattr(head, fact) for fact in known}


@pytest.mark.parametrize("solver", ["newton-cg", "lbfgs"])
def test_the_gap_is_a_bound_where_weights_and_intercepts_hang_together(solver: str) -> None:
    """Labels along one line, far from zero and not centred enough: intercepts and weights trade with each other."""
    from bottleneck.heads.logistic import _solved

    for seed in (11, 61, 66, 113):
        random = np.random.default_rng(seed)
        codes = random.integers(0, 6, 180)
        codes[:6] = range(6)
        X = random.normal(size=(180, 6)) + 10 * codes[:, None]
        found, best = (
            _solved(
                X,
                codes,
                scaling_of(X, divide=False).pair,
                None,
                1 / (0.5 * 180),
                {"max_iter": 5000, "solver": by, "tol": tol},
            )[0]
            for by, tol in ((solver, 1e-5), ("newton-cg", 1e-11))
        )
        assert found.converged and best.converged
        true = found.point.value / best.point.value - 1
        assert true <= found.point.gap / found.point.value <= 1e-5, seed


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_values_whose_squares_are_no_numbers_are_refused(size: float, standardize: bool) -> None:
    random = np.random.default_rng(0)
    codes = random.integers(0, 2, 40)
    X = (random.normal(size=(40, 3)) + 5 * codes[:, None]) * size
    with pytest.raises(HeadError, match="whose squares are numbers"):
        LogisticHead(standardize=standardize).fit(X, codes)
