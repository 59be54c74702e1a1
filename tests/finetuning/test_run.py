"""Fine-tuning from a run to a run: what trains and what does not, two ways to one result, and never a worse model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

import bottleneck
from bottleneck import runs
from bottleneck.bases.load import load_base
from bottleneck.errors import BaseError, TuningError, UnknownName, UsageError
from bottleneck.finetuning.run import with_weights
from bottleneck.finetuning.stage_training import StageProgram, draws
from bottleneck.heads.logistic import LogisticHead
from bottleneck.pipeline.finetune import FineTuned
from bottleneck.pipeline.finetune_data import TuningData
from bottleneck.pipeline.session import cache_at
from bottleneck.schema import FitFacts, Inventory, TuneSettings, ViewPolicy
from bottleneck.store.batches import epoch_order
from tests.in_process import Call, caller
from tests.models.tiny_network import PREPROCESSING, run_in_process, save_network, write_patterns

pytestmark = pytest.mark.keras

#: Enough to move weights, little enough to stay sane.
RATE = 3e-3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with images and the runs of a dense and a logistic head on the toy network."""
    folder = tmp_path_factory.mktemp("finetune")
    with pytest.MonkeyPatch.context() as patch:
        run_in_process(patch)
        patch.setenv("BOTTLENECK_CACHE", str(folder / "cache"))
        source, base = write_patterns(folder / "in", 14), save_network(folder)
        options: dict[str, Any] = {"preprocessing": PREPROCESSING, "pooling": "avg", "split": "exact"}
        dense = {"hidden": (8,), "batch_norm": True, "dropout": 0.2, "epochs": 8}
        options["cache"] = folder / "cache"
        bottleneck.train(source, str(base), "dense", run=folder / "dense", settings=dense, **options)
        bottleneck.train(source, str(base), "logistic", run=folder / "unwatched", validation=0.0, **options)
        yield folder


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    run_in_process(monkeypatch)


def weights_of(done: FineTuned | Path) -> dict[str, np.ndarray]:
    """All weights of a run's base, layer by layer, and its head's, by name."""
    import keras

    folder = runs.read_run(done) if isinstance(done, Path) else done.folder
    if folder.run.request.base.endswith(".keras"):
        model = keras.saving.load_model(folder.run.request.base)
    else:
        model = load_base(folder.run.request, cache_at(None)).model
    found = {weight.path: weight.numpy() for weight in model.weights}
    return found | {f"head/{name}": array for name, array in folder.head().arrays_.items()}


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {name for name in before if before[name].tobytes() != after[name].tobytes()}


def assert_same_course(one: FineTuned, other: FineTuned, start: Path, *, tolerance: float = 1e-3) -> None:
    """Weights equal to a thousandth of how far they went, or to one step of float32 where that is more."""
    first, second, origin = weights_of(one), weights_of(other), weights_of(start)
    moved = changed(origin, first)
    assert moved and moved == changed(origin, second)
    for name in moved:
        size = np.abs(first[name] - origin[name]).max()
        step = float(np.spacing(np.abs(first[name]).max()))
        assert np.abs(first[name] - second[name]).max() <= max(tolerance * size, step), name


def test_only_what_was_named_trains_and_no_statistic_moves(place: Path) -> None:
    done = bottleneck.finetune(place / "dense", "block3_conv", to=place / "named", rate=RATE, epochs=6)
    stage = done.tuned.stages[0]
    assert (done.tuned.kept, done.tuned.verdict) == ("after", "better")
    assert (stage.trained, stage.prefix) == (("block3_conv",), "block2_out")
    before, after = weights_of(place / "dense"), weights_of(done)
    assert changed(before, after) == {
        "block3_conv/kernel", "block3_conv/bias",
        "head/head_dense_1.kernel", "head/head_dense_1.bias", "head/head_norm_1.gamma", "head/head_norm_1.beta",
        "head/logits.kernel", "head/logits.bias",
    }  # fmt: skip
    assert stage.parameters == sum(after[name].size for name in changed(before, after))
    # block3's BatchNorm, and the statistics of the head's.
    assert stage.frozen == 4 * 8 + 2 * 8


def test_the_new_run_is_a_run_like_any_other(place: Path, tmp_path: Path) -> None:
    done = bottleneck.finetune(place / "dense", "top:2", to=tmp_path / "tuned", rate=RATE, epochs=6)
    assert done.metrics["validation"].log_loss < done.before["validation"].log_loss
    lowest = min(entry["val_loss"] for entry in done.tuned.stages[0].history)
    assert done.metrics["validation"].log_loss == pytest.approx(lowest, rel=1e-4)
    assert bottleneck.evaluate(tmp_path / "tuned") == done.metrics
    # Its base lies in its folder, which may be moved.
    moved = shutil.move(tmp_path / "tuned", tmp_path / "moved")
    shutil.copytree(place / "in", tmp_path / "in")
    by_run = bottleneck.predict(moved, tmp_path / "in", cache=place / "cache")
    merged = bottleneck.merge(moved, tmp_path / "model.keras")
    assert merged.certificate.verdict == "certified"
    by_model = bottleneck.predict(tmp_path / "model.keras", tmp_path / "in")
    np.testing.assert_allclose(by_run.probabilities, by_model.probabilities, atol=1e-5)
    # The run before is as it was.
    assert bottleneck.evaluate(place / "dense") == done.before


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


def test_without_validation_images_nothing_is_called_better(
    place: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """One call of the command for a person, one for a program: neither claims what was not measured."""
    call: Call = caller(capfdbinary)
    for name, options in (("unwatched", ()), ("dense", ("--rate", RATE))):
        asked = ("finetune", place / name, "--unfreeze", "top:1", "--epochs", 1, *options)
        said = call(*asked, "--run", place / f"{name}-said")
        document = call(*asked, "--run", place / f"{name}-json", "--json").json
        if name == "unwatched":
            assert (document["verdict"], document["measured"], document["kept"]) == (
                "unmeasured",
                False,
                "after",
            )
            assert any("nothing says whether they are better or worse" in text for text in document["advice"])
            assert "not measured" in said.out and "nothing says that it is better" in " ".join(
                said.out.split()
            )
        else:
            assert document["measured"] and document["verdict"] in ("better", "unchanged")
            assert "not measured" not in said.out


def test_it_refuses_to_make_things_worse(place: Path) -> None:
    done = bottleneck.finetune(
        place / "dense",
        ["top:1", "all"],
        to=place / "worse",
        rate=30.0,
        epochs=2,
        optimizer="sgd",
        momentum=0.0,
    )
    assert (done.tuned.kept, done.tuned.verdict) == ("before", "unchanged")
    assert [stage.best_epoch for stage in done.tuned.stages] == [0, 0]
    before = runs.read_run(place / "dense")
    assert done.folder.run.spec == before.run.spec and done.metrics == before.figures.by_split
    assert not changed(weights_of(place / "dense"), weights_of(done))
    # Of a run that has a base of its own, the copy is whole too.
    first = bottleneck.finetune(place / "dense", "top:1", to=place / "better", rate=RATE, epochs=4)
    assert first.tuned.kept == "after"
    again = bottleneck.finetune(place / "better", "top:1", to=place / "not-better", rate=30.0, epochs=1)
    assert again.tuned.kept == "before"
    shutil.rmtree(place / "better")
    assert bottleneck.evaluate(place / "not-better") == first.metrics
    assert bottleneck.merge(place / "not-better", place / "kept.keras").certificate.verdict == "certified"


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


def test_a_statistic_that_moves_stops_the_run_and_leaves_the_one_before(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = StageProgram.learn

    def careless(self: StageProgram, *arguments: Any) -> np.ndarray:
        variable = self.chain.tail.layers["block3_norm"].moving_mean
        variable.assign(variable + 1e-7)
        return learn(self, *arguments)

    monkeypatch.setattr(StageProgram, "learn", careless)
    with pytest.raises(TuningError, match=r"layer 'block3_norm': its frozen weight 'moving_mean' moved by"):
        bottleneck.finetune(place / "dense", "top:1", to=place / "moved", epochs=2)
    assert not (place / "moved" / "run.json").exists()


def test_a_loss_that_is_no_number_stops_the_run_with_advice(place: Path) -> None:
    with pytest.raises(TuningError, match=r"epoch 1: .*(nan|inf).*lower --rate"):
        bottleneck.finetune(place / "dense", "all", to=place / "exploded", rate=1e30, epochs=2)


def test_what_cannot_be_is_refused_before_anything_is_computed(place: Path, tmp_path: Path) -> None:
    run = place / "dense"
    with pytest.raises(UnknownName, match="nearest: block2_conv, "):
        bottleneck.finetune(run, "block2_con", to=tmp_path / "new")
    with pytest.raises(UsageError, match="top:4: the base has 3 layers with weights"):
        bottleneck.finetune(run, "top:4", to=tmp_path / "new")
    with pytest.raises(UsageError, match="is the run that the fine-tuning begins from"):
        bottleneck.finetune(run, "top:1", to=run)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other things \(chapter.tex\)"):
        bottleneck.finetune(run, "top:1", to=tmp_path / "thesis")
    with pytest.raises(UsageError, match="changes nothing"):
        bottleneck.finetune(run, "top:1", to=tmp_path / "new", augment="seed=1")
    with pytest.raises(UsageError, match="epochs"):
        bottleneck.finetune(run, "top:1", to=tmp_path / "new", epochs=0)
    with pytest.raises(UsageError, match="nothing to unfreeze"):
        bottleneck.finetune(run, [], to=tmp_path / "new")


def test_a_base_that_changed_since_the_run_is_refused(place: Path, tmp_path: Path) -> None:
    import keras

    from tests.bases.networks import fill
    from tests.models.tiny_network import network

    shutil.copytree(place / "dense", tmp_path / "run")
    base = tmp_path / "toy.keras"
    network().save(base)
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    document["request"]["base"] = str(base)
    (tmp_path / "run" / "run.json").write_text(json.dumps(document))
    bottleneck.finetune(tmp_path / "run", "top:1", epochs=1)
    fill(keras.saving.load_model(base), seed=5).save(base)
    with pytest.raises(BaseError, match="is not the one that run dense was trained on"):
        bottleneck.finetune(tmp_path / "run", "top:1", epochs=1)


def test_rows_of_another_network_in_the_cache_are_noticed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bottleneck.forward import keras_forward

    several = keras_forward.KerasForward.several

    def otherwise(self: Any, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(rows * np.float32(1.01) for rows in several(self, pixels))

    cache = tmp_path / "cache"
    bottleneck.evaluate(place / "dense", cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr(keras_forward.KerasForward, "several", otherwise)
        bottleneck.extract(
            place / "in", str(place / "toy.keras"), preprocessing=PREPROCESSING, cut="block2_out", pooling="none",
            cache=cache,
        )  # fmt: skip
    with pytest.raises(TuningError, match=r"cached rows of block2_out and those of the base.*--full"):
        bottleneck.finetune(place / "dense", "top:1", to=tmp_path / "new", cache=cache)


def test_by_the_command_line(place: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    call: Call = caller(capfdbinary)
    said = call(
        "finetune", place / "dense", "--unfreeze", "top:1", "--unfreeze", "block2_conv,top:1",
        "--run", tmp_path / "new", "--epochs", 2, "--rate", RATE, "--rate", "block2_conv=1e-4", "--warmup", 0.5,
        "--schedule", "plateau", "--json",
    )  # fmt: skip
    assert said.status == 0, said.err
    document = said.json
    assert document["run"] == str(tmp_path / "new") and document["kept"] in ("before", "after")
    assert document["tuned"]["settings"]["rates"] == {"block2_conv": 1e-4}
    assert [stage["trained"] for stage in document["tuned"]["stages"]] == [
        ["block3_conv"], ["block3_conv", "block2_conv"],
    ]  # fmt: skip
    assert set(document["before"]) == set(document["metrics"]) == {"train", "validation"}
    said = call(
        "train", place / "in", "--base", place / "toy.keras", "--preprocessing", PREPROCESSING, "--pooling", "avg",
        "--split", "exact", "--run", tmp_path / "both", "--unfreeze", "top:1", "--tune", "epochs=1",
    )  # fmt: skip
    assert said.status == 0, said.err
    assert "top:N counts layers with weights" in said.err
    assert "on cached rows of block2_out" in said.out and str(tmp_path / "both-tuned") in said.out
    assert (tmp_path / "both-tuned" / "run.json").exists()
    said = call(
        "train", place / "in", "--base", place / "toy.keras", "--run", tmp_path / "no", "--tune", "epochs=1"
    )
    assert said.status == 2 and "--unfreeze top:2" in said.err


def test_a_head_with_tuned_weights_says_nothing_of_its_first_fit() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 4)) + 1e5
    head = LogisticHead().fit(rows, np.arange(30) % 3)
    assert head.rest_ is not None and head.fit_facts().converged
    layers = head.layers()
    layers[0].set_weights([2 * weight for weight in layers[0].get_weights()])
    tuned = with_weights(head, layers)
    assert tuned.fit_facts() == FitFacts()
    kernel, bias = (array.astype(np.float64) for array in layers[0].get_weights())
    np.testing.assert_array_equal(tuned.logits(rows), (rows @ kernel + bias).astype(np.float32))
    with pytest.raises(TuningError, match="cannot be fine-tuned"):
        with_weights(head, [])


def test_a_class_without_a_validation_image_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = runs.read_run(place / "dense")
    table = folder.table()
    at = table.schema.get_field_index("split")
    splits = pc.if_else(pc.equal(table.column("label"), "class1"), "train", table.column("split"))
    monkeypatch.setattr(
        runs.RunFolder, "inventory", lambda self: Inventory(table.set_column(at, "split", splits), "here")
    )
    assert TuningData(folder, None, TuneSettings(), {}, print).remarks == (  # type: ignore[arg-type]
        "1 of 3 classes has no validation image: 'class1'; the epoch that is kept is chosen by the others",
    )
