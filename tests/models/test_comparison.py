"""The comparison: relative to the spread between images, and never fooled by values that are not finite."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.models.comparison import TOLERANCE, Outputs, centred_cosine, compare, spread


def outputs(seed: int = 0, images: int = 12) -> Outputs:
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(images, 3))
    sums = np.exp(logits).sum(1, keepdims=True)
    return Outputs(draw.normal(size=(images, 2, 2, 5)), logits, np.exp(logits) / sums, -np.log(sums[:, 0]))


@given(st.floats(1e-6, 1e6), st.floats(-1e6, 1e6))
def test_scale_and_offset_of_features_do_not_matter(scale: float, offset: float) -> None:
    first = outputs()
    second = first._replace(features=first.features + 0.5)
    moved = [o._replace(features=o.features * scale + offset) for o in (first, second)]
    plain = compare("f", "i", first, second).differences[0].largest
    scaled = compare("f", "i", *moved).differences[0].largest
    # Doubles of this offset and scale leave that many digits.
    assert scaled == pytest.approx(plain, rel=1e-3 + 1e-9 * abs(offset) / scale)


@pytest.mark.parametrize("quantity", Outputs._fields)
def test_each_quantity_counts_at_the_tolerance(quantity: str) -> None:
    first = outputs()
    values = getattr(first, quantity)
    step = np.zeros_like(values)
    step.flat[7] = spread(values)
    for factor, passed in [(0.9 * TOLERANCE, True), (1.1 * TOLERANCE, False)]:
        changed = first._replace(**{quantity: values + step * factor})
        assert compare("f", "i", first, changed).passed is passed


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_never_passes(bad: float) -> None:
    first = outputs()
    broken = first.features.copy()
    broken.flat[0] = bad
    result = compare("f", "i", first, first._replace(features=broken))
    assert not result.passed
    assert result.model_dump_json()


def test_features_without_spread_pass_only_when_equal() -> None:
    first = outputs()._replace(features=np.ones((12, 4)))
    assert compare("f", "i", first, first).passed
    assert not compare("f", "i", first, first._replace(features=np.ones((12, 4)) + 1e-12)).passed


def test_shapes_must_agree() -> None:
    first = outputs()
    with pytest.raises(ValueError, match="logits of shape"):
        compare("f", "i", first, first._replace(logits=first.logits[:, :2]))


def test_top1_is_the_share_of_equal_first_choices() -> None:
    first = outputs()
    flipped = first.probabilities.copy()
    flipped[:3] = np.roll(flipped[:3], 1, axis=1)
    assert compare("f", "i", first, first._replace(probabilities=flipped)).top1 == pytest.approx(9 / 12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gate_is_not_passed_by_values_that_are_not_finite(bad: float) -> None:
    first = outputs()
    broken = first.features.copy()
    broken.flat[0] = bad
    result = compare("f", "i", first, first._replace(features=broken), gate=0.5)
    assert result.top1 == 1.0
    assert not result.passed


@pytest.mark.parametrize(("flips", "passed"), [(0, True), (1, True), (2, False)])
def test_a_gate_counts_first_choices_and_no_differences(flips: int, passed: bool) -> None:
    first = outputs()
    other = first.probabilities.copy()
    other[:flips] = np.roll(other[:flips], 1, axis=1)
    far = first._replace(features=first.features * 2, probabilities=other)
    result = compare("f", "i", first, far, gate=11 / 12)
    assert (result.passed, result.gate, result.tolerance) == (passed, 11 / 12, None)


def test_a_form_that_rounds_must_keep_the_order_of_its_score() -> None:
    draw = np.random.default_rng(0)
    right = Outputs(None, None, draw.random((20, 3)), draw.normal(size=20))
    stretched = right._replace(energy=3 * right.energy + 1)
    shuffled = right._replace(energy=right.energy[::-1])
    assert compare("f", "i", right, stretched, gate=0.97).passed
    assert not compare("f", "i", right, shuffled, gate=0.97).passed
    assert compare("f", "i", right, right._replace(energy=None), gate=0.97).passed


def test_a_form_may_show_probabilities_alone() -> None:
    first = outputs()
    result = compare("f", "i", first, Outputs.of({"probabilities": first.probabilities}))
    assert [d.quantity for d in result.differences] == ["probabilities"]
    assert result.passed
    assert result.cosine is None
    with pytest.raises(KeyError):
        Outputs.of({"logits": first.logits})


def test_accuracy_is_of_labelled_images_and_stands_beside_the_heads() -> None:
    first = outputs()
    truth = first.probabilities.argmax(1)
    truth[:2] = -1  # no label
    other = first.probabilities.copy()
    other[2:5] = np.roll(other[2:5], 1, axis=1)
    found = compare("f", "i", first, first._replace(probabilities=other), truth=truth).accuracy
    assert found is not None
    assert (found.images, found.head, found.form) == (10, 1.0, pytest.approx(0.7))
    assert compare("f", "i", first, first, truth=np.full(12, -1)).accuracy is None


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3))
def test_a_centred_cosine_sees_no_offset_and_no_scale(offset: float, scale: float) -> None:
    rows = np.random.default_rng(1).normal(size=(9, 5))
    turned = rows[:, ::-1]
    plain = centred_cosine(rows - rows.mean(0), turned - rows.mean(0))
    moved = centred_cosine((rows - rows.mean(0)) * scale + offset, (turned - rows.mean(0)) * scale + offset)
    assert moved == pytest.approx(plain, abs=1e-5 + 1e-9 * abs(offset) / scale)
    assert centred_cosine(rows, rows) == pytest.approx(1.0)


def test_raw_cosines_would_hide_what_a_centred_one_shows() -> None:
    draw = np.random.default_rng(2)
    rows = 1000 + draw.normal(size=(20, 8))
    other = 1000 + draw.normal(size=(20, 8))
    raw = (rows * other).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(other, axis=1)
    assert raw.min() > 0.99999
    assert centred_cosine(rows, other) < 0.5


def test_rows_without_direction_agree_when_they_are_equal() -> None:
    rows = np.ones((4, 3))
    assert centred_cosine(rows, rows) == 1.0
    assert centred_cosine(rows, rows + np.eye(4, 3)) == 0.0
    assert centred_cosine(rows, np.full((4, 3), np.inf)) == -1.0
