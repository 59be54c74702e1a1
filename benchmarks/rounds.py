"""Run contenders in turn, round by round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from measuring import Steps, spread

Rounds = list[dict[str, dict[str, Any]]]


def in_rounds(
    steps: Steps, count: int, contenders: dict[str, Callable[[int], dict[str, Any]]], *, warm: bool = True
) -> Rounds:
    """Run each contender once a round, in turning order."""
    names = list(contenders)
    rounds = []
    for number in range(-1 if warm else 0, count):
        order = names if number % 2 else names[::-1]
        figures = steps.run(
            f"round {number + 1} of {count}" if number >= 0 else "a first round, not counted",
            lambda n=number, o=order: {name: contenders[name](n) for name in o},
        )
        if number >= 0:
            rounds.append(figures)
    return rounds


def column(rounds: Rounds, name: str, figure: str) -> dict[str, Any]:
    """Return median and spread of one contender's figure."""
    return spread(r[name][figure] for r in rounds if r[name][figure] is not None)


def ratio(rounds: Rounds, over: str, under: str, figure: str) -> dict[str, Any]:
    """Return median and spread of the rounds' own ratios."""
    pairs = [(r[over][figure], r[under][figure]) for r in rounds]
    return spread(a / b for a, b in pairs if a is not None and b is not None)
