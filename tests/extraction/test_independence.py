"""A base whose rows are not their pictures' alone is refused before its store is begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bottleneck
from bottleneck.errors import UnsteadyBase
from tests.extraction.fake_runs import here
from tests.fakes import WIDTH, FakeForward, write_images


class Centred(FakeForward):
    """Takes the mean of the batch away."""

    def features(self, pixels: np.ndarray) -> np.ndarray:
        rows = super().features(pixels)
        return rows - np.nanmean(rows, axis=0)


class Placed(FakeForward):
    """Rows depend on where in the batch they stand."""

    def features(self, pixels: np.ndarray) -> np.ndarray:
        return super().features(pixels) + np.arange(self.batch, dtype=np.float32)[:, None]


class Draws(FakeForward):
    """A little noise at each call."""

    def features(self, pixels: np.ndarray) -> np.ndarray:
        return super().features(pixels) * np.random.default_rng().normal(1, 0.01, WIDTH).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 8, 9, 32])
@pytest.mark.parametrize(
    ("kind", "words"), [(Centred, "company"), (Placed, "company"), (Draws, "another call")]
)
def test_a_base_whose_rows_are_not_their_pictures_alone_is_refused(
    tmp_path: Path, kind: type[FakeForward], words: str, batch: int
) -> None:
    if batch == 1 and words == "company":
        pytest.skip("alone in its batch, a row has no company")
    source, cache = write_images(tmp_path / "in", {"cat": 3}), tmp_path / "cache"
    for _ in range(2):
        with pytest.raises(UnsteadyBase, match=words):
            here(source, cache, kind(batch=batch))
    assert not list(cache.rglob("canary.f32")) and not list(cache.rglob("recipe.json"))


@pytest.mark.parametrize("batch", [1, 2, 5, 8, 32])
def test_rows_that_are_nearly_one_or_no_numbers_are_steady(batch: int, tmp_path: Path) -> None:
    class Level(FakeForward):
        """All rows but one bit alike, which is another one in each place; NaN here and there."""

        def features(self, pixels: np.ndarray) -> np.ndarray:
            rows = np.full((batch, WIDTH), 7, np.float32)
            rows[::2, 0] = np.nextafter(np.float32(7), np.float32(8))
            rows[:, 1] = np.nan
            return rows

    done, _, _ = here(write_images(tmp_path / "in", {"cat": 3}), tmp_path / "cache", Level(batch=batch))
    assert done.rejected == 3, "founded, and each row has its NaN"


@pytest.mark.keras
def test_networks_that_reach_over_the_batch_or_draw_are_refused(tmp_path: Path) -> None:
    import keras

    class Awake(keras.layers.Layer):
        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer = layer

        def call(self, x: Any) -> Any:
            return self.layer(x, training=True)

    def over(part: Any) -> Any:
        image = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(4, 3, name="conv")(image)
        return keras.Model(image, keras.layers.GlobalAveragePooling2D()(part(x)))

    source = write_images(tmp_path / "in", {"cat": 3})
    for name, part, words in (
        ("mean", lambda x: x - keras.ops.mean(x, axis=0), "company"),
        ("norm", Awake(keras.layers.BatchNormalization()), "company"),
        ("drop", Awake(keras.layers.Dropout(0.5)), "another call"),
        ("noise", Awake(keras.layers.GaussianNoise(0.5)), "another call"),
    ):
        with pytest.raises(UnsteadyBase, match=words):
            bottleneck.extract(source, over(part), preprocessing="tf", cache=tmp_path / "cache", batch=8)
        assert not list((tmp_path / "cache").rglob("recipe.json")), name
    done = bottleneck.extract(
        source, over(lambda x: x), preprocessing="tf", cache=tmp_path / "cache", batch=8
    )
    assert done.computed == 3
