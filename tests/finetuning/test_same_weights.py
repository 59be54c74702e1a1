"""Two ways to the same weights: rows and pixels, cached views, Keras' training, precisions and rates."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bottleneck
from bottleneck import runs
from bottleneck.bases.load import load_base
from bottleneck.finetuning.stage_training import draws
from bottleneck.pipeline.finetune import FineTuned
from bottleneck.pipeline.session import cache_at
from bottleneck.schema import TuneSettings, ViewPolicy
from bottleneck.store.batches import epoch_order
from tests.finetuning.toy_runs import RATE, changed, weights_of

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("in_this_process")]


def assert_same_course(one: FineTuned, other: FineTuned, start: Path, *, tolerance: float = 1e-3) -> None:
    """Weights equal to a thousandth of how far they went, or to one step of float32 where that is more."""
    first, second, origin = weights_of(one), weights_of(other), weights_of(start)
    moved = changed(origin, first)
    assert moved and moved == changed(origin, second)
    for name in moved:
        size = np.abs(first[name] - origin[name]).max()
        step = float(np.spacing(np.abs(first[name]).max()))
        assert np.abs(first[name] - second[name]).max() <= max(tolerance * size, step), name


def test_on_the_cached_prefix_and_from_the_pixels_is_one_course(place: Path) -> None:
    options: dict[str, Any] = {"rate": RATE, "epochs": 3, "batch_size": 8}
    unfreeze = ["top:1", "block2_conv"]
    cached = bottleneck.finetune(place / "unwatched", unfreeze, to=place / "cached", **options)
    full = bottleneck.finetune(place / "unwatched", unfreeze, to=place / "full", full=True, **options)
    assert [stage.prefix for stage in cached.tuned.stages] == ["block2_out", "block1_pool"]
    assert [stage.prefix for stage in full.tuned.stages] == [None, None]
    # A stage adds to what is free.
    assert [stage.trained for stage in cached.tuned.stages] == [
        ("block3_conv",),
        ("block3_conv", "block2_conv"),
    ]
    assert [len(stage.history) for stage in cached.tuned.stages] == [4, 4]
    assert_same_course(cached, full, place / "unwatched")


def test_on_a_real_base_too_the_two_ways_are_one_course(place: Path) -> None:
    run, options = place / "mobilenet", {"cache": place / "cache"}
    bottleneck.train(
        place / "in", "mobilenetv2", run=run, weights="random:0", size=32, validation=0.0, **options
    )
    settings: dict[str, Any] = {"rate": RATE, "epochs": 2, "batch_size": 16, **options}
    cached = bottleneck.finetune(run, "top:2", to=place / "mobilenet-cached", **settings)
    full = bottleneck.finetune(run, "top:2", to=place / "mobilenet-full", full=True, **settings)
    assert [done.tuned.stages[0].prefix for done in (cached, full)] == ["block_15_add", None]
    assert cached.tuned.stages[0].trained == full.tuned.stages[0].trained
    assert_same_course(cached, full, run)


def test_cached_views_and_views_made_on_the_way_are_one_course(place: Path) -> None:
    options: dict[str, Any] = {
        "rate": RATE,
        "epochs": 2,
        "batch_size": 8,
        "views": 3,
        "augment": "zoom=-0.2:0.2",
    }
    cached = bottleneck.finetune(place / "unwatched", "top:1", to=place / "views", **options)
    full = bottleneck.finetune(place / "unwatched", "top:1", to=place / "views-full", full=True, **options)
    assert (cached.tuned.stages[0].prefix, full.tuned.stages[0].prefix) == ("block2_out", None)
    assert_same_course(cached, full, place / "unwatched")
    plain = bottleneck.finetune(
        place / "unwatched", "top:1", to=place / "no-views", **{**options, "views": 1, "augment": None}
    )
    assert changed(weights_of(cached), weights_of(plain))


def test_augmentation_shows_each_epoch_new_pixels(place: Path) -> None:
    options: dict[str, Any] = {"rate": RATE, "epochs": 2}
    plain = bottleneck.finetune(place / "unwatched", "top:1", to=place / "plain", **options)
    other = bottleneck.finetune(
        place / "unwatched", "top:1", to=place / "augmented", augment="flip=vertical", **options
    )
    assert other.tuned.stages[0].prefix is None  # no cache holds them
    losses = [[entry["loss"] for entry in done.tuned.stages[0].history[1:]] for done in (plain, other)]
    assert losses[0] != losses[1]
    settings = TuneSettings(augment=ViewPolicy(flip="vertical"))
    assert (draws(settings, 1, 3).tolist(), draws(settings, 7, 3).tolist()) == ([1] * 3, [7] * 3)
    assert draws(TuneSettings(), 7, 2).tolist() == [0, 0]


def test_weights_are_those_of_keras_fit_on_a_frozen_model(place: Path) -> None:
    """The oracle: Keras' own training loop, on the merged model, with class weights."""
    import keras

    from bottleneck.models.merge import merge_model

    folder = runs.read_run(place / "unwatched")
    # Fewer images of one class, so that its weight is another one.
    source = place / "uneven"
    shutil.copytree(place / "in", source)
    for path in sorted((source / "class2").iterdir())[6:]:
        path.unlink()
    bottleneck.train(
        source, folder.run.request, "logistic", run=place / "rare", validation=0.0, cache=place / "cache"
    )
    done = bottleneck.finetune(
        place / "rare", "block3_conv", to=place / "rare-tuned", rate=RATE, epochs=2, batch_size=8,
        class_weight="balanced",
    )  # fmt: skip

    folder = runs.read_run(place / "rare")
    base = load_base(folder.run.request, cache_at(place / "cache"))
    model = merge_model(base, folder.head())
    layer = model.get_layer("base").get_layer("block3_conv")
    model.get_layer("base").trainable = layer.trainable = True
    for inner in model.get_layer("base").layers:
        inner.trainable = inner is layer
    import tensorflow as tf

    pixels, codes = [], []
    for image in folder.inventory():
        data = (source / image.path.decode()).read_bytes()
        pixels.append(tf.io.decode_png(data, channels=3).numpy().astype("f4"))
        codes.append(folder.run.classes.index(image.label))
    x, y = np.stack(pixels), np.array(codes)
    counts = np.bincount(y)
    weights = {code: len(y) / (3 * count) for code, count in enumerate(counts)}
    model.compile(keras.optimizers.SGD(RATE, momentum=0.9), "sparse_categorical_crossentropy")
    losses = []
    for epoch in (1, 2):
        order = epoch_order(0, epoch, len(y))
        fitted = model.fit(x[order], y[order], batch_size=8, shuffle=False, class_weight=weights, verbose=0)
        losses += fitted.history["loss"]
    mine, start = weights_of(done), weights_of(place / "rare")
    for name, value in (
        ("block3_conv/kernel", layer.kernel),
        ("head/kernel", model.get_layer("logits").kernel),
    ):
        size = np.abs(mine[name] - start[name]).max()
        assert size > 0
        assert np.abs(mine[name] - value.numpy()).max() <= 1e-3 * size
    assert [entry["loss"] for entry in done.tuned.stages[0].history[1:]] == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_float32_weights_close_to_the_exact_ones(place: Path, precision: Any) -> None:
    options: dict[str, Any] = {"rate": RATE / 3, "epochs": 1, "batch_size": 14}
    exact = bottleneck.finetune(place / "unwatched", "top:1", to=place / "exact", **options)
    mixed = bottleneck.finetune(
        place / "unwatched", "top:1", to=place / precision, precision=precision, **options
    )
    first, second, start = weights_of(exact), weights_of(mixed), weights_of(place / "unwatched")
    assert all(array.dtype == np.float32 for array in second.values())
    step, other = (now["block3_conv/kernel"] - start["block3_conv/kernel"] for now in (first, second))
    assert 0 < np.linalg.norm(step - other) < 0.2 * np.linalg.norm(step)


def test_rates_of_their_own_and_a_warm_up_reach_the_weights(place: Path) -> None:
    options: dict[str, Any] = {"momentum": 0.0, "epochs": 1, "batch_size": 64, "rate": 0.3}
    one = bottleneck.finetune(place / "unwatched", "top:2", to=place / "one-rate", **options)
    own = bottleneck.finetune(
        place / "unwatched",
        "top:2",
        to=place / "own-rates",
        block_decay=0.5,
        rates={"head": 0.3 / 8},
        **options,
    )
    first, second, start = weights_of(one), weights_of(own), weights_of(place / "unwatched")
    # One step of plain SGD: a rate is a factor of the change.
    for name, factor in (("block3_conv/kernel", 0.5), ("block2_conv/kernel", 0.25), ("head/kernel", 0.125)):
        np.testing.assert_allclose(
            second[name] - start[name],
            factor * (first[name] - start[name]),
            atol=1e-3 * np.abs(first[name] - start[name]).max(),
        )
    warm = bottleneck.finetune(
        place / "unwatched",
        "top:1",
        to=place / "warm",
        rate=RATE,
        epochs=3,
        warmup=2,
        schedule="cosine",
        batch_size=64,
    )
    rates = [entry["rate"] for entry in warm.tuned.stages[0].history[1:]]
    assert rates == pytest.approx([RATE / 2, RATE, RATE])
