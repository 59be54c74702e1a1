"""Bases that do worse than compute: `--base tests.faults.bad_bases:…`. The others are in `tests.fakes`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np

from tests.fakes import FakeForward

#: Called once, before the first image is decoded: what happens to the images of a run while it runs.
meddle: Callable[[], None] | None = None


class MeddlingForward(FakeForward):
    def decode(self, data: bytes) -> np.ndarray:
        global meddle
        once, meddle = meddle, None
        if once is not None:
            once()
        return super().decode(data)


class InfiniteForward(FakeForward):
    """One weight is infinite, as after a training that diverged."""

    def __init__(self) -> None:
        super().__init__()
        self._kernel[0, 0] = np.inf

    def features(self, pixels: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return super().features(pixels)


class ElsewhereForward(FakeForward):
    """The same numbers in another numeric environment, or almost the same: by a factor."""

    def __init__(self) -> None:
        super().__init__()
        self.environment = {"forward": "fake 1", "onednn": os.environ["FAULTS_ONEDNN"]}
        self._factor = np.float32(float(os.environ["FAULTS_FACTOR"]))

    def features(self, pixels: np.ndarray) -> np.ndarray:
        return super().features(pixels) * self._factor


class UnhurriedForward(FakeForward):
    """So slow that others see the store grow, however busy the machine is."""

    def features(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(0.3)
        return super().features(pixels)


def unhurried() -> FakeForward:
    return UnhurriedForward()


def meddling() -> FakeForward:
    return MeddlingForward()


def infinite() -> FakeForward:
    return InfiniteForward()


def elsewhere() -> FakeForward:
    return ElsewhereForward()
