"""A function that a base of `tests.bases.odd_models` may have in another module than its own."""

from __future__ import annotations

from typing import Any


def f(x: Any) -> Any:
    return x * 2.0
