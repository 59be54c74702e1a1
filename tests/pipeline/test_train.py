"""Runs: how they are trained, measured and replaced."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import bottleneck
from bottleneck import runs
from bottleneck.errors import UsageError
from tests.fakes import FakeForward, write_images
from tests.in_process import FAKE, Call, InProcessWorker, caller


@pytest.fixture(autouse=True)
def _worker_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bottleneck.extraction.run.WorkerProcess", InProcessWorker)
    monkeypatch.setenv("BOTTLENECK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def call(capfdbinary: pytest.CaptureFixture[bytes]) -> Call:
    return caller(capfdbinary)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_images(tmp_path / "in", {"cat": 25, "dog": 25, "owl": 25})


def test_without_validation_everything_is_trained_on(call: Call, source: Path, tmp_path: Path) -> None:
    said = call(
        *(
            "train",
            source,
            "--base",
            FAKE,
            "--run",
            tmp_path / "run",
            "--validation",
            0,
            "--folds",
            3,
            "--json",
        )
    )
    assert said.status == 0, said.out
    assert said.json["counts"] == {"train": 75, "validation": 0, "test": 0}
    assert said.json["advice"] == [] and sum(fold["images"] for fold in said.json["folds"]) == 75
    for seed, name in enumerate(("train", "test")):
        write_images(tmp_path / "given" / name, {"cat": 10, "dog": 10}, seed=seed)
    said = call(
        *(
            "train",
            tmp_path / "given",
            "--base",
            FAKE,
            "--run",
            tmp_path / "run2",
            "--validation",
            0,
            "--json",
        )
    )
    assert said.json["counts"] == {"train": 20, "validation": 0, "test": 20}
    assert list(said.json["metrics"]) == ["train", "test"] and said.json["advice"] == []


def test_folds_are_reported_beside_the_split(call: Call, source: Path, tmp_path: Path) -> None:
    said = call("train", source, "--base", FAKE, "--run", tmp_path / "run", "--folds", 3, "--json")
    assert len(said.json["folds"]) == 3
    assert sum(fold["images"] for fold in said.json["folds"]) == said.json["counts"]["train"]
    assert all(fold["accuracy"] > 0.6 for fold in said.json["folds"])


def test_a_head_learns_and_the_seed_decides_the_split(source: Path, tmp_path: Path) -> None:
    first = bottleneck.train(source, FAKE, run=tmp_path / "a")
    again = bottleneck.train(source, FAKE, run=tmp_path / "b")
    other = bottleneck.train(source, FAKE, run=tmp_path / "c", seed=1)
    assert first.metrics["validation"].accuracy > 0.8
    assert first.metrics == again.metrics
    assert first.folder.table().equals(again.folder.table())
    assert not first.folder.table().equals(other.folder.table())
    assert first.extraction.computed == 75 and again.extraction.computed == 0


@pytest.mark.parametrize("views", [1, 2])
def test_run_and_head_say_alike_how_the_head_was_fitted(source: Path, tmp_path: Path, views: int) -> None:
    folder = bottleneck.train(source, FAKE, run=tmp_path / "run", views=views).folder
    facts = folder.figures.fit
    assert facts == folder.head().fit_facts()
    assert facts is not None and facts.rows == "in memory" and "MiB of rows; up to" in str(facts.why)


def test_a_fit_that_did_not_converge_is_told_once(call: Call, source: Path, tmp_path: Path) -> None:
    run = ("--run", tmp_path / "run", "--folds", 3, "--set", "max_iter=1", "--set", "tol=1e-12")
    said = call("train", source, "--base", FAKE, *run, "--json")
    folds = "the fits of 3 of 3 folds did not converge, so their figures may be too low"
    assert said.status == 0 and said.json["advice"][-2] == folds and said.err.count(folds) == 1
    assert said.err.replace(folds, "").lower().count("converge") == 2
    assert "fit did not converge: newton-cg, 1 iteration, " in said.err
    assert "NOT CONVERGED, objective at most " in said.err and ", training accuracy " in said.err
    assert said.json["advice"][-1] in said.err
    assert "fit did not converge" in call("evaluate", "--trust", tmp_path / "run").err


def test_a_run_is_measured_from_the_store_when_its_source_is_gone(
    call: Call, source: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    said = call("train", source, "--base", FAKE, "--run", run, "--json")
    shutil.rmtree(source)
    assert call("evaluate", "--trust", run, "--json").json["metrics"] == said.json["metrics"]
    # Without source and store there is nothing to measure on, and that is said.
    said = call("evaluate", "--trust", run, "--json", "--cache", tmp_path / "empty")
    assert said.status == 1
    assert "nothing is there" in said.json["error"] and str(source) in said.json["error"]


def test_a_run_without_its_store_is_extracted_again_and_lost_images_are_told(
    call: Call, source: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    call("train", source, "--base", FAKE, "--run", run, "--quiet")
    shutil.rmtree(tmp_path / "cache")
    for number in range(4):
        (source / "owl" / f"{number:03d}.png").unlink()
    said = call("evaluate", "--trust", run, "--json")
    assert said.status == 0
    assert sum(metrics["images"] for metrics in said.json["metrics"].values()) == 71
    assert "note: 4 of the run's 75 images are neither stored nor at" in said.err


def test_a_run_measured_on_other_images(call: Call, source: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    call("train", source, "--base", FAKE, "--run", run, "--quiet")
    other = write_images(tmp_path / "other", {"cat": 10, "dog": 10}, seed=5)
    said = call("evaluate", "--trust", run, other, "--json")
    assert list(said.json["metrics"]) == ["all"]
    assert said.json["metrics"]["all"]["images"] == 20
    assert "note" not in said.err
    write_images(other, {"yak": 5}, seed=6)
    worse = call("evaluate", "--trust", run, other, "--json")
    assert worse.json["metrics"]["all"]["images"] == 25
    right = round(said.json["metrics"]["all"]["accuracy"] * 20)
    assert round(worse.json["metrics"]["all"]["accuracy"] * 25) == right
    assert "note: 5 images are of classes that the head does not know and count as wrong: 'yak'" in worse.err
    splits = tmp_path / "splits"
    for name in ("train", "test"):
        write_images(splits / name, {"cat": 5, "dog": 5}, seed=7)
    assert set(call("evaluate", "--trust", run, splits, "--json").json["metrics"]) == {"train", "test"}


def test_a_run_folder_with_other_things_is_left_alone_before_any_work(
    call: Call, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    said = call("train", source, "--base", FAKE, "--run", tmp_path / "thesis", "--json")
    assert said.status == 2
    assert "holds other things (chapter.tex)" in said.json["error"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "table.parquet").write_text("the user's only labels")
    said = call("train", source, "--base", FAKE, "--run", tmp_path / "mine", "--json")
    assert said.status == 2 and "holds other things (table.parquet)" in said.json["error"]
    said = call("features", source, "--base", FAKE, "--out", tmp_path / "mine", "--json")
    assert said.status == 2 and "did not write table.parquet there" in said.json["error"]
    assert (tmp_path / "mine" / "table.parquet").read_text() == "the user's only labels"
    assert not (tmp_path / "cache").exists()
    (tmp_path / "file").write_text("mine")
    assert call("train", source, "--base", FAKE, "--run", tmp_path / "file").status == 2


def test_a_second_training_replaces_a_run_and_an_interrupted_one_leaves_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    first = bottleneck.train(source, FAKE, run=run)
    (run / "model.keras").write_text("what a user keeps there")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bottleneck.evaluation.fit.fit_and_measure", stop)
        with pytest.raises(KeyboardInterrupt):
            bottleneck.train(source, FAKE, run=run, seed=5)
    assert bottleneck.evaluate(run, trust=True) == first.metrics
    second = bottleneck.train(source, FAKE, run=run, seed=5, settings={"C": 0.01})
    assert second.metrics != first.metrics
    assert bottleneck.evaluate(run, trust=True) == second.metrics
    assert (run / "model.keras").exists()


def test_two_trainings_into_one_folder_leave_one_whole_run(source: Path, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    bottleneck.extract(source, FAKE)
    with ThreadPoolExecutor(4) as pool:
        done = list(
            pool.map(lambda seed: bottleneck.train(source, FAKE, run=tmp_path / "run", seed=seed), range(4))
        )
    found = runs.read_run(tmp_path / "run")
    assert bottleneck.evaluate(tmp_path / "run", trust=True) == found.figures.by_split
    assert found.run.split.seed in range(4) and len(done) == 4


def test_a_model_object_is_refused_by_train_with_the_way_out(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.save.*module:function"):
        bottleneck.train(source, FakeForward(), run=tmp_path / "run")
