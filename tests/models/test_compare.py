"""The comparison: relative to the spread between images, and never fooled by values that are not finite."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.models.compare import TOLERANCE, Outputs, compare, spread


def outputs(seed: int = 0, images: int = 12) -> Outputs:
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(images, 3))
    return Outputs(
        draw.normal(size=(images, 2, 2, 5)), logits, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    )


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
