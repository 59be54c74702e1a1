"""The loop over epochs, without a network: when it ends, and whose weights are the best."""

from __future__ import annotations

import math

import pytest

from bottleneck.heads.training_loop import Course, is_stalled, train_epochs


@pytest.mark.parametrize(
    ("losses", "patience", "watched", "ran", "best", "kept"),
    [
        ([0.9, 1.0, 0.95, 0.8], 2, True, 3, 1, [1]),
        ([0.9, 1.0, 0.95, 0.8], None, True, 4, 4, [4]),
        ([0.9, 0.9, 0.9], 1, True, 2, 1, [1]),  # an equal loss is no lower one
        ([0.9, 1.0, 1.1], 1, False, 3, 3, None),
    ],
)
def test_training_ends_with_its_epochs_or_its_patience_and_keeps_the_best(
    losses: list[float], patience: int | None, watched: bool, ran: int, best: int, kept: list[int] | None
) -> None:
    course, seen = Course(), []

    def run_epoch(epoch: int) -> dict[str, float]:
        return {"epoch": float(epoch), "val_loss" if watched else "loss": losses[epoch - 1]}

    train_epochs(
        course, run_epoch, lambda: [course.epoch],
        epochs=len(losses), patience=patience, watched=watched, on_epoch=seen.append,
    )  # fmt: skip
    assert (course.epoch, course.best, course.kept) == (ran, best, kept)
    assert seen == course.history and len(seen) == ran


def test_the_model_before_wins_where_no_epoch_has_a_lower_loss() -> None:
    assert is_stalled([1.0, math.nextafter(1.0, 2.0)], 1)
    assert is_stalled([1.0, 1.0], 1)
    assert not is_stalled([1.0, 2.0, 3.0], None)
    course = Course([{"epoch": 0.0, "val_loss": 1.0}], 0, ["before"])
    train_epochs(
        course, lambda epoch: {"epoch": float(epoch), "val_loss": 1.0}, lambda: ["after"],
        epochs=5, patience=2, watched=True, on_epoch=lambda _: None,
    )  # fmt: skip
    assert (course.epoch, course.best, course.kept) == (2, 0, ["before"])
