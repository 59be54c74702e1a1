"""A run's folder: written whole, read back, and clear about what is wrong with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import bottleneck
from bottleneck import runs
from bottleneck.errors import BaseError, BottleneckError, UnknownName, UsageError
from bottleneck.heads import persistence
from tests.fakes import write_images
from tests.faults.reference_stores import snapshot
from tests.in_process import FAKE, InProcessWorker


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    source = write_images(folder / "in", {"cat": 12, "dog": 12})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bottleneck.extraction.run.ExtractionRun.worker_type", InProcessWorker)
        bottleneck.train(source, FAKE, run=folder / "first", cache=folder / "cache", settings={"C": "0.5"})
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "first", tmp_path / "first")
    return tmp_path / "first"


def test_a_run_remembers_all_that_it_was_made_of(run: Path, made: Path) -> None:
    found = runs.read_run(run)
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
        ("run.json", b'{"format": 3}', "run.json is not what this version writes: format"),
        ("metrics.json", b"[]", "metrics.json is not the file that run.json was written beside"),
        ("table.parquet", None, "table.parquet cannot be read"),
        ("table.parquet", b"PAR1", "table.parquet is not the file that run.json was written beside"),
    ],
)
def test_a_damaged_run_says_which_file(run: Path, name: str, data: bytes | None, words: str) -> None:
    (run / name).unlink()
    if data is not None:
        (run / name).write_bytes(data)
    with pytest.raises(UsageError, match=words):
        runs.read_run(run).table()


def as_format_1(run: Path) -> None:
    """Let the run name no file that it was written beside."""
    document = json.loads((run / "run.json").read_text())
    assert document["format"] == 2 and len(document["files"]) == 3
    del document["files"]
    (run / "run.json").write_text(json.dumps({**document, "format": 1}))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("metrics.json", b"[]", "metrics.json is not what this version writes"),
        ("table.parquet", b"PAR1", "table.parquet cannot be read"),
    ],
)
def test_a_run_of_format_1_names_no_files_and_is_read(run: Path, name: str, data: bytes, words: str) -> None:
    as_format_1(run)
    found = runs.read_run(run)
    assert found.table().num_rows == 24 and found.head().get_params()["C"] == 0.5
    if data is not None:
        (run / name).write_bytes(data)
    with pytest.raises(UsageError, match=words):
        runs.read_run(run).table()


@pytest.mark.fault(50)
def test_a_head_of_another_run_is_refused(run: Path) -> None:
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace('"dog"', '"yak"'))
    with pytest.raises(BottleneckError, match=r"classes|class"):
        runs.read_run(run).head()


def test_the_nearest_run_is_named_and_a_lone_folder_is_told_how_to_make_one(run: Path) -> None:
    with pytest.raises(UnknownName, match=r"called 'fisrt'; nearest: first"):
        runs.read_run(run.with_name("fisrt"))
    for path in (run / "head", run / "run.json", run / "nowhere" / "deeper"):
        with pytest.raises(UsageError, match="bottleneck train"):
            runs.read_run(path)


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


def test_whatever_goes_wrong_before_the_end_leaves_the_older_run(run: Path) -> None:
    before = snapshot(run)
    with pytest.raises(FileNotFoundError, match=f"{run}/nowhere"), runs.replacing(run) as room:
        (room / "nowhere" / "run.json").touch()
    assert snapshot(run) == before
    assert [path.name for path in run.iterdir() if path.name[0] == "."] == []


@pytest.mark.parametrize("name", ["metrics.json", "table.parquet", "head/head.json"])
def test_a_file_of_another_run_is_told_from_its_own(run: Path, made: Path, name: str) -> None:
    """Sound, of the same classes and recipe, and not the one that was written with this run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bottleneck.extraction.run.ExtractionRun.worker_type", InProcessWorker)
        bottleneck.train(made / "in", FAKE, run=made / "second", cache=made / "cache", seed=7)
    for path in (made / "second").glob("head/*") if name.startswith("head") else [made / "second" / name]:
        shutil.copyfile(path, run / path.relative_to(made / "second"))
    with pytest.raises(UsageError, match=f"{name} is not the file that run.json was written beside"):
        runs.read_run(run).head(), runs.read_run(run).table()


def test_what_is_replaced_once_it_was_checked_is_not_taken_for_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may replace a run at any moment."""
    check, load = runs._check, persistence.load_head

    def replaced(path: Path, *asked: object) -> None:
        check(path, *asked)  # type: ignore[arg-type]
        path.write_bytes(b"of another run")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "_check", replaced)
        found = runs.read_run(run)
        assert found.figures.by_split and found.table().num_rows == 24

    def meanwhile(folder: Path, **asked: object) -> object:
        document = folder / persistence.DOCUMENT
        document.write_text(json.dumps(json.loads(document.read_text())))
        return load(folder, **asked)  # type: ignore[arg-type]

    monkeypatch.setattr(persistence, "load_head", meanwhile)
    with pytest.raises(UsageError, match=r"head\.json is not the file that run\.json was written beside"):
        found.head()


def test_a_runs_table_is_read_or_named_whatever_became_of_it(run: Path) -> None:
    from tests.sources.test_mutated import mutated

    as_format_1(run)
    file = run / "table.parquet"
    whole = file.read_bytes()
    # The last ones are of errors that few files raise: no such column, a name that is no text.
    for seed in (*range(800), 1672, 1970, 3067, 3143):
        file.write_bytes(mutated(whole, seed))
        said = ""
        try:
            assert len(runs.read_run(run).table().to_pylist()) < 1 << 20
        except UsageError as error:
            said = str(error)
        assert not said or (str(file) in said and "()" not in said), said


def test_features_of_another_base_never_meet_a_runs_head(
    run: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when code, a file or weights changed behind an unchanged name: `merge` asks too."""
    monkeypatch.setattr("bottleneck.extraction.run.ExtractionRun.worker_type", InProcessWorker)
    record = run / "run.json"
    document = json.loads(record.read_text())
    document["spec"]["recipe"]["base_digest"] = "1" * 64
    record.write_text(json.dumps(document))
    given = {"cache": made / "cache", "trust": True}
    with pytest.raises(BaseError, match="is not the one that run first was trained on"):
        bottleneck.predict(run, made / "in", **given)
    for source in (made / "in", None):
        with pytest.raises(BottleneckError, match="is not the one that run first was trained on"):
            bottleneck.evaluate(run, source, **given)
