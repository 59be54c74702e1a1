"""A run's folder: written whole, read back, and clear about what is wrong with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bottleneck import pipeline, runs
from bottleneck.errors import BottleneckError, UnknownName, UsageError
from tests.fakes import write_images
from tests.here import FAKE, WorkerHere


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    source = write_images(folder / "in", {"cat": 12, "dog": 12})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bottleneck.extraction.fill.WorkerProcess", WorkerHere)
        pipeline.train(source, FAKE, run=folder / "first", cache=folder / "cache", settings={"C": "0.5"})
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "first", tmp_path / "first")
    return tmp_path / "first"


def test_a_run_remembers_all_that_it_was_made_of(run: Path, made: Path) -> None:
    found = runs.read(run)
    assert found.run.source == str(made / "in") and found.run.cache == str(made / "cache")
    assert found.run.request.base == FAKE and found.run.head.name == "logistic"
    assert found.run.classes == ("cat", "dog")
    assert {"keras", "tensorflow", "scikit-learn"} <= set(found.run.versions)
    table = found.table()
    assert table.column_names == ["path", "content", "label", "group", "split"]
    assert table.num_rows == 24 and set(table.column("split").to_pylist()) == {"train", "validation"}
    assert found.head().get_params()["C"] == 0.5
    assert sorted(p.name for p in run.iterdir() if p.name[0] != ".") == [
        "head",
        "metrics.json",
        "run.json",
        "table.parquet",
    ]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("run.json", None, r"no finished run \(no run.json\)"),
        ("metrics.json", None, r"no finished run \(no metrics.json\)"),
        ("run.json", b"{", "run.json is not what this version writes"),
        ("run.json", b'{"format": 2}', "run.json is not what this version writes: format"),
        ("metrics.json", b"[]", "metrics.json is not what this version writes"),
        ("table.parquet", None, "table.parquet cannot be read"),
        ("table.parquet", b"PAR1", "table.parquet cannot be read"),
    ],
)
def test_a_damaged_run_says_which_file(run: Path, name: str, data: bytes | None, words: str) -> None:
    (run / name).unlink()
    if data is not None:
        (run / name).write_bytes(data)
    with pytest.raises(UsageError, match=words):
        runs.read(run).table()


@pytest.mark.fault(50)
def test_a_head_of_another_run_is_refused(run: Path) -> None:
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace('"dog"', '"yak"'))
    with pytest.raises(BottleneckError, match=r"classes|class"):
        runs.read(run).head()


def test_the_nearest_run_is_named_and_a_lone_folder_is_told_how_to_make_one(run: Path) -> None:
    with pytest.raises(UnknownName, match=r"called 'fisrt'; nearest: first"):
        runs.read(run.with_name("fisrt"))
    for path in (run / "head", run / "run.json", run / "nowhere" / "deeper"):
        with pytest.raises(UsageError, match="bottleneck train"):
            runs.read(path)


def test_a_folder_is_prepared_only_when_it_is_free(run: Path, tmp_path: Path) -> None:
    runs.prepare(tmp_path / "new" / "deep")
    assert (tmp_path / "new" / "deep").is_dir()
    runs.prepare(run)
    (run / "notes.txt").write_text("beside a run: fine")
    runs.prepare(run)
    (run / "run.json").unlink()
    with pytest.raises(UsageError, match=r"holds other things \(notes.txt\)"):
        runs.prepare(run)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--run .*exists|--run .*[Nn]ot a directory"):
        runs.prepare(tmp_path / "file")


def test_a_run_that_is_being_replaced_counts_no_more(run: Path) -> None:
    with pytest.raises(ZeroDivisionError), runs.replacing(run):
        1 / 0  # noqa: B018 - whatever goes wrong between the files of two runs
    with pytest.raises(UsageError, match="no finished run"):
        runs.read(run)
