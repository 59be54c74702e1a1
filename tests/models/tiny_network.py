"""A small network with everything that can wake up, images it can learn from, and a worker in this process."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bottleneck.extraction.worker.main import Worker
from bottleneck.extraction.worker.messages import Open
from bottleneck.forward.keras_forward import open_forward
from bottleneck.pixels.contract.decode import decoder
from bottleneck.schema import Limits
from tests.bases.networks import fill

SIZE = 16
PREPROCESSING = "scale=1/127.5,offset=-1"


#: Tracing it takes seconds, and every worker in this process would do so anew.
one_decoder = functools.cache(decoder)


class InProcessKerasWorker(Worker):
    """What `WorkerProcess` is to `fill`, without the process, for a base of Keras."""

    def __init__(self, opening: Open, limits: Limits | None = None) -> None:
        requests, cache = opening.requests, opening.cache
        super().__init__(open_forward(requests, cache), opening.source, cache, requests)


def run_in_process(patch: pytest.MonkeyPatch) -> None:
    """Extract in this process."""
    patch.setattr("bottleneck.extraction.run.ExtractionRun.worker_type", InProcessKerasWorker)
    patch.setattr("bottleneck.pixels.contract.decode.decoder", one_decoder)


@pytest.fixture
def worker_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run_in_process(monkeypatch)
    monkeypatch.setenv("BOTTLENECK_CACHE", str(tmp_path / "cache"))


def network(*, top: bool = False) -> Any:
    """Three blocks with BatchNorm and dropout, the second one a residual sum, then a map."""
    import keras
    from keras import layers

    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Conv2D(6, 3, padding="same", name="block1_conv")(image)
    x = layers.BatchNormalization(name="block1_norm")(x)
    x = layers.ReLU(name="block1_out")(x)
    x = layers.MaxPooling2D(name="block1_pool")(x)
    y = layers.Conv2D(6, 3, padding="same", name="block2_conv")(x)
    y = layers.BatchNormalization(name="block2_norm")(y)
    y = layers.SpatialDropout2D(0.5, name="block2_drop")(y)
    x = layers.Add(name="block2_sum")([x, y])
    x = layers.ReLU(name="block2_out")(x)
    x = layers.ZeroPadding2D(1, name="block3_pad")(x)
    x = layers.Conv2D(8, 3, strides=2, name="block3_conv")(x)
    x = layers.BatchNormalization(name="block3_norm")(x)
    x = layers.Dropout(0.5, name="block3_drop")(x)
    x = layers.ReLU(name="block3_out")(x)
    return fill(keras.Model(image, x, name="toy"))


def save_network(folder: Path) -> Path:
    path = folder / "toy.keras"
    network().save(path)
    return path


def write_patterns(folder: Path, count: int, *, classes: int = 3, size: int = SIZE, seed: int = 0) -> Path:
    """Class folders of noisy gratings, each class with a direction of its own: no colour tells them apart."""
    draw = np.random.default_rng(seed)
    across, down = np.meshgrid(np.arange(size), np.arange(size))
    for label in range(classes):
        place = folder / f"class{label}"
        place.mkdir(parents=True, exist_ok=True)
        angle = np.pi * label / classes
        for number in range(count):
            wave = np.sin((across * np.cos(angle) + down * np.sin(angle)) * 1.3 + draw.random() * 6)
            pixels = 128 + 55 * wave[..., None] + draw.normal(0, 45, (size, size, 3))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(place / f"{number:03d}.png")
    return folder
