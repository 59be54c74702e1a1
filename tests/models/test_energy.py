"""Energy: the same number by NumPy, by a merged model's operations, and by SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from bottleneck.models.energy import energy, energy_output

finite = st.floats(-1e4, 1e4, width=32)


@given(st.lists(st.lists(finite, min_size=3, max_size=3), min_size=1, max_size=5))
def test_it_is_minus_the_logsumexp_of_the_logits(rows: list[list[float]]) -> None:
    logits = np.array(rows, np.float32)
    np.testing.assert_allclose(energy(logits), -logsumexp(logits.astype(float), axis=1), rtol=1e-6, atol=1e-6)


@given(st.lists(finite, min_size=2, max_size=6), st.floats(0, 100))
def test_logits_that_grow_lower_it(row: list[float], more: float) -> None:
    logits = np.array([row], np.float64)
    assert energy(logits + more)[0] == pytest.approx(energy(logits)[0] - more, abs=1e-2)


@pytest.mark.keras
def test_the_output_of_a_model_is_the_same() -> None:
    import keras

    logits = keras.Input((4,))
    model = keras.Model(logits, energy_output(logits))
    draw = np.random.default_rng(0).normal(0, 30, (16, 4)).astype(np.float32)
    draw[0] = 3e4  # far beyond what exp can hold
    found = np.asarray(model(draw))
    assert found.shape == (16,)
    np.testing.assert_allclose(found, energy(draw), rtol=1e-6)
