"""Fine-tuning gives a run like any other: what trains, what does not, and never a worse model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

import bottleneck
from bottleneck import runs
from bottleneck.errors import TuningError
from bottleneck.finetuning.run import with_weights
from bottleneck.heads.logistic import LogisticHead
from bottleneck.pipeline.finetune_data import TuningData
from bottleneck.schema import FitFacts, Inventory, TuneSettings
from tests.finetuning.toy_runs import RATE, changed, weights_of
from tests.in_process import Call, caller
from tests.models.tiny_network import PREPROCESSING

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("in_this_process")]


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
