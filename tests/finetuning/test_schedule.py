"""Rates of a stage: pure functions of steps and losses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.finetuning.schedule import plateau, rate_factor
from bottleneck.schema import TuneSettings


def test_a_constant_rate_is_constant_and_a_warm_up_climbs_evenly_to_it() -> None:
    warm = TuneSettings(warmup=1.5)
    assert [rate_factor(warm, step, 4) for step in range(8)] == [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1]
    assert {rate_factor(TuneSettings(), step, 4) for step in range(40)} == {1.0}


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 4))
def test_a_cosine_falls_from_one_to_zero_over_what_the_warm_up_leaves(
    epochs: int, steps: int, warmup: float
) -> None:
    settings = TuneSettings(epochs=epochs, warmup=warmup, schedule="cosine")
    warm, total = round(warmup * steps), epochs * steps
    rates = [rate_factor(settings, step, steps) for step in range(warm, total)]
    assert rates == sorted(rates, reverse=True)
    assert all(0 < rate <= 1 for rate in rates)
    if rates:
        assert rates[0] == 1
        # The next step would be the first at zero.
        assert rate_factor(settings, total, steps) == pytest.approx(0, abs=1e-12)


def test_a_plateau_lowers_the_rate_each_time_it_has_lasted_and_not_otherwise() -> None:
    settings = TuneSettings(schedule="plateau", plateau_factor=0.5, plateau_patience=2)
    losses = [1.0, 0.9, 0.95, 0.9, 0.91, 0.95, 0.8, 0.85]
    factors = [plateau(settings, losses[: n + 1]) for n in range(len(losses))]
    assert factors == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert plateau(TuneSettings(), losses) == 1
