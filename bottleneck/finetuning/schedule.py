"""Learning rates, as pure functions of steps and losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bottleneck.heads.training_loop import count_plateaus
from bottleneck.schema import TuneSettings


def rate_factor(settings: TuneSettings, step: int, steps: int) -> float:
    """Factor of the rate in step number `step`, from 0.

    A stage has `steps` an epoch.

    Rises to 1 over the warm-up; then constant, or down a half cosine that would reach 0 with the last epoch's end.
    A plateau is no matter of steps: see `plateau`.

    Examples
    --------
    >>> warm = TuneSettings(epochs=4, warmup=1, schedule="cosine")
    >>> [round(rate_factor(warm, step, 2), 2) for step in (0, 1, 2, 5, 7)]
    [0.5, 1.0, 1.0, 0.5, 0.07]
    """
    warm = round(settings.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    if settings.schedule != "cosine":
        return 1.0
    left = max(1, settings.epochs * steps - warm)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / left)))


def plateau(settings: TuneSettings, losses: Sequence[float]) -> float:
    """Factor of the rate after epochs with these validation losses.

    The first loss is of the weights before epoch 1.

    Times `plateau_factor` whenever `plateau_patience` epochs in a row brought no new lowest loss.

    Examples
    --------
    >>> steps = TuneSettings(schedule="plateau", plateau_factor=0.1, plateau_patience=2)
    >>> plateau(steps, [1.0, 0.9, 0.95, 0.9]), plateau(steps, [1.0, 0.9, 0.8])
    (0.1, 1.0)
    """
    factor = 1.0
    if settings.schedule == "plateau":
        for _ in range(count_plateaus(losses, settings.plateau_patience)):
            factor *= settings.plateau_factor
    return factor
