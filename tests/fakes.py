"""A base without TensorFlow, so that most of the suite takes seconds: Pillow decodes, NumPy computes.

`--base tests.fakes:base` (or `weak_base`, …) gives it to a real worker process.
"""

from __future__ import annotations

import io
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bottleneck.errors import Rejected
from bottleneck.schema import Pixels, Preprocessing, Recipe, StoreSpec, ViewPolicy

SIZE = 8
WIDTH = 6


class FakeForward:
    """8 x 8 pixels through a fixed random projection and a ReLU."""

    def __init__(self, *, seed: int = 0, batch: int = 4, dtype: str = "float32", scale: float = 1.0) -> None:
        self.batch = batch
        self.environment = {"forward": "fake 1"}
        self._kernel = (
            np.random.default_rng(seed).normal(size=(SIZE * SIZE * 3, WIDTH)).astype(np.float32) * scale
        )
        self.spec = StoreSpec(
            base="fake",
            cut="top",
            shape=(WIDTH,),
            recipe=Recipe(
                base_digest=f"{seed:064x}",
                pooling="none",
                pixels=Pixels(height=SIZE, width=SIZE),
                preprocessing=Preprocessing(),
                precision="float32",
                dtype=dtype,
            ),
        )

    def decode(self, data: bytes) -> np.ndarray:
        if os.environ.get("FAKES_ARE_KIND"):
            data = data.removesuffix(b"KILLED")
        if b"ABORT" in data[-16:]:
            os.abort()
        if b"KILLED" in data[-16:]:
            os.kill(os.getpid(), signal.SIGKILL)
        if b"HANGS" in data[-16:]:
            time.sleep(3600)
        if b"GREEDY" in data[-16:]:
            held = np.ones(1 << 26)  # 512 MiB
            time.sleep(3600)
            del held
        try:
            image = Image.open(io.BytesIO(data)).convert("RGB").resize((SIZE, SIZE))
        except OSError as error:
            raise Rejected("decode", f"not an image: {error}") from error
        return np.asarray(image, np.float32)

    def view(self, pixels: np.ndarray, key: bytes, policy: ViewPolicy) -> np.ndarray:
        # Not what the real one does, but as it must behave: drawn from content, number and seed alone.
        seed = [part % (1 << 64) for part in policy.draw_seed(key)]
        span = policy.brightness[1] - policy.brightness[0]
        shift = 255 * np.float32(policy.brightness[0] + span * np.random.default_rng(seed).random())
        return np.clip(pixels + shift, 0, 255)

    def features(self, pixels: np.ndarray) -> np.ndarray:
        assert pixels.shape == (self.batch, SIZE, SIZE, 3), "one constant batch shape"
        # One row at a time: BLAS may choose another kernel for another shape.
        flat = pixels.reshape(self.batch, -1) / np.float32(255)
        rows = np.stack([np.maximum(row @ self._kernel, 0) for row in flat])
        rows[flat.mean(axis=1) == 1.0] = np.nan  # a white picture: a base that gives NaN
        return rows


def base() -> FakeForward:
    return FakeForward()


def faint_base() -> FakeForward:
    """Features that float32 can hold, and whose deviation it cannot divide by."""
    return FakeForward(seed=1, scale=1e-40)


class FarForward(FakeForward):
    """Every feature a few steps of float32 wide, far from zero."""

    def features(self, pixels: np.ndarray) -> np.ndarray:
        return super().features(pixels) + np.float32(3e7)


def far_base() -> FarForward:
    return FarForward(seed=2)


class TwoCuts(FakeForward):
    """A second cut, of twice as many values, that one network gives with the first."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        recipe = self.spec.recipe.model_copy(update={"base_digest": "f" * 64})
        wide = self.spec.model_copy(update={"cut": "wide", "shape": (2 * WIDTH,), "recipe": recipe})
        self.specs = (self.spec, wide)
        self.passes = 0

    def several(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        self.passes += 1
        rows = self.features(pixels)
        wide = np.concatenate([rows, rows + 1], axis=1)
        wide[pixels.reshape(self.batch, -1).min(axis=1) == 254.0] = np.nan  # nearly white: one cut gives NaN
        return rows, wide


class WideAlone(FakeForward):
    """The second of `TwoCuts` by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = TwoCuts().specs[1]

    def features(self, pixels: np.ndarray) -> np.ndarray:
        return TwoCuts().several(pixels)[1]


def two_cuts() -> TwoCuts:
    return TwoCuts()


def slow_cuts() -> TwoCuts:
    class Slow(TwoCuts):
        def several(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
            time.sleep(0.05)
            return super().several(pixels)

    return Slow()


class SlowForward(FakeForward):
    """A twentieth of a second a forward pass: builders have something to share."""

    def features(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return super().features(pixels)


class FragileForward(FakeForward):
    """Dies of black pictures, as a whole process, in the forward pass."""

    def features(self, pixels: np.ndarray) -> np.ndarray:
        black = (pixels.reshape(self.batch, -1) == 1.0).all(axis=1)
        if black.any():
            os.abort()
        return super().features(pixels)


class DoomedForward(FakeForward):
    """Dies of whatever it is given once the store is founded."""

    passes = 0

    def features(self, pixels: np.ndarray) -> np.ndarray:
        self.passes += 1
        if self.passes > 3:  # the canary's, and one in other company
            os.abort()
        return super().features(pixels)


class StuckForward(FakeForward):
    """Founds a store, and then sits at its first image."""

    passes = 0

    def features(self, pixels: np.ndarray) -> np.ndarray:
        self.passes += 1
        if self.passes > 3:  # the canary's, and one in other company
            time.sleep(3600)
        return super().features(pixels)


def stuck_base() -> FakeForward:
    return StuckForward()


def slow_base() -> FakeForward:
    return SlowForward()


def fragile_base() -> FakeForward:
    return FragileForward()


def doomed_base() -> FakeForward:
    return DoomedForward()


def other_base() -> FakeForward:
    return FakeForward(seed=1)


def half_base() -> FakeForward:
    return FakeForward(dtype="float16", scale=3000.0)


def broken_base() -> FakeForward:
    raise ImportError("libcudart.so.12: cannot open shared object file")


def write_images(
    folder: Path, classes: dict[str, int], *, size: tuple[int, int] = (12, 10), seed: int = 0
) -> Path:
    """Class folders of small PNG files, every one another, each class with a colour of its own."""
    draw = np.random.default_rng(seed)
    for number, (name, count) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = draw.integers(0, 90, (*size, 3))
            pixels[..., number % 3] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index:03d}.png")
    return folder


def rows_by_hand(folder: Path, forward: FakeForward | None = None) -> dict[bytes, np.ndarray]:
    """What every image of `folder` must give, by relative path: the oracle."""
    forward = forward or base()
    found = {}
    for path in sorted(folder.rglob("*.png")):
        batch = np.zeros((forward.batch, SIZE, SIZE, 3), np.float32)
        batch[0] = forward.decode(path.read_bytes())
        row = forward.features(batch)[0].astype(forward.spec.recipe.dtype)
        found[os.fsencode(path.relative_to(folder))] = row
    return found


class TunableForward(FakeForward):
    """Fastest at a batch of 16, and too large for memory at 64."""

    def rate(self, batch: int) -> float:
        if batch >= 64:
            raise MemoryError
        return {4: 10.0, 8: 20.0, 16: 40.0, 32: 41.0}[batch]


def tunable() -> TunableForward:
    return TunableForward()


class DeadlyForward(FakeForward):
    """Ends its process where another batch is tried, as one too large for the memory does."""

    def rate(self, batch: int) -> float:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def deadly() -> DeadlyForward:
    return DeadlyForward()
