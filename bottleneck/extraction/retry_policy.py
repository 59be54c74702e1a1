"""Decide which contents without a row a run tries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bottleneck.pixels.header import pixel_limit
from bottleneck.schema import Limits
from bottleneck.store.read import Store


@dataclass(frozen=True)
class RetryPolicy:
    """Which contents without a row are tried now.

    Attributes
    ----------
    circumstances : frozenset of str
        As they are now: an image that was given up for good under one of them counts as known.
    contents : {"all", "fresh", "suspects"}
        Suspects, contents that circumstances failed before, are tried last: only "fresh" ones once they have had their
        chance in this run, only them at its end.
    """

    circumstances: frozenset[str] = frozenset()
    contents: Literal["all", "fresh", "suspects"] = "all"

    @classmethod
    def first(cls, limits: Limits) -> RetryPolicy:
        """Make a run's first, which tries again what was not final."""
        return cls(frozenset() if limits.retry else circumstances(limits))

    def masks(self, store: Store, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mark the contents (n, 32) not tried now, and tried suspects.

        Both are (n,) bool.
        """
        done, suspects = settled_contents(store, keys, self.circumstances), np.zeros(len(keys), bool)
        if store.suspects:
            left = np.flatnonzero(~done)
            suspects[left] = suspected_contents(store, keys[left])
        if self.contents == "fresh":
            done, suspects = done | suspects, np.zeros(len(keys), bool)
        elif self.contents == "suspects":
            done = ~suspects
        return done, suspects


def circumstances(limits: Limits) -> frozenset[str]:
    """Name what may fail an image: limits, versions, the largest image."""
    return frozenset((limits.circumstances, pixel_limit()))


def suspected_contents(store: Store, keys: np.ndarray) -> np.ndarray:
    """Mark (n,) bool the contents (n, 32) that circumstances failed."""
    suspected = np.zeros(len(keys), bool)
    if store.suspects:
        suspected[:] = [key.tobytes() in store.suspects for key in keys]
    return suspected


def settled_contents(store: Store, keys: np.ndarray, now: frozenset[str]) -> np.ndarray:
    """Mark contents (n, 32) with a row or a final rejection."""
    known = store.known(keys)
    if now and store.given_up:
        left = np.flatnonzero(~known)
        nowhere: frozenset[str] = frozenset()
        known[left] = [bool(now & store.given_up.get(keys[i].tobytes(), nowhere)) for i in left]
    return known
