"""The command line: one JSON object, exit statuses, help, tables that fit."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from bottleneck import cli
from tests.fakes import write_images
from tests.in_process import FAKE, Call

COMMANDS = ("bases", "demo", "evaluate", "extract", "features", "merge", "predict", "store", "train")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_images(tmp_path / "in", {"cat": 15, "dog": 15})


def test_every_command_gives_one_object_and_progress_elsewhere(
    call: Call, source: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for arguments, keys in [
        (("extract", source, "--base", FAKE), {"images", "computed", "reused", "store", "bottleneck_stage"}),
        (("features", source, "--base", FAKE, "--out", tmp_path / "out"), {"rows", "shape", "out"}),
        (("train", source, "--base", FAKE, "--run", run), {"run", "metrics", "classes", "extraction"}),
        (("evaluate", run, "--trust"), {"run", "metrics"}),
        (("predict", run, source, "--trust"), {"classes", "predictions"}),
        (("bases",), {"bases"}),
        (("bases", "vgg16"), {"bases"}),
    ]:
        said = call(*arguments, "--json")
        assert said.status == 0, said.err
        assert keys <= set(said.json), arguments
        assert said.out.count("\n") == 1
        if arguments[0] == "extract":
            assert "30/30" in said.err
        quiet = call(*arguments, "--json", "--quiet")
        assert quiet.err == "" and set(quiet.json) == set(said.json)


def test_quiet_says_nothing_but_predictions(call: Call, source: Path, tmp_path: Path) -> None:
    said = call("train", source, "--base", FAKE, "--run", tmp_path / "run", "--quiet")
    assert (said.status, said.out, said.err) == (0, "", "")
    for arguments in (
        ("extract", source, "--base", FAKE),
        ("evaluate", tmp_path / "run", "--trust"),
        ("bases",),
    ):
        said = call(*arguments, "--quiet")
        assert (said.status, said.out, said.err) == (0, "", "")
    assert len(call("predict", "--trust", tmp_path / "run", source, "--quiet").out.splitlines()) == 31


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("extract", "SOURCE", "--base", "vgg1"), 2, ["no base called 'vgg1'", "nearest: vgg16, vgg19"]),
        (("bases", "sqeezenet"), 2, ["no base called 'sqeezenet'", "nearest: squeezenet"]),
        (("train", "SOURCE", "--base", FAKE, "--head", "logistik", "--run", "RUN"), 2, ["nearest: logistic"]),
        (("train", "SOURCE", "--base", FAKE, "--set", "CC=1", "--run", "RUN"), 2, ["'CC'", "known:", "C"]),
        (("train", "SOURCE", "--base", FAKE, "--set", "C", "--run", "RUN"), 2, ["KEY=VALUE"]),
        (("train", "SOURCE", "--base", FAKE, "--set", "C=x", "--run", "RUN"), 2, ["C"]),
        (("train", "SOURCE", "--base", FAKE, "--validation", "1", "--run", "RUN"), 2, ["--validation"]),
        (("train", "SOURCE", "--base", FAKE, "--folds", "1", "--run", "RUN"), 2, ["--folds"]),
        (
            ("train", "SOURCE", "--base", FAKE, "--folds", "99", "--run", "RUN"),
            2,
            ["--folds 99", "'cat' has"],
        ),
        (("extract", "SOURCE", "--base", FAKE, "--size", "0"), 2, ["size"]),
        (("extract", "SOURCE", "--base", "vgg16", "--preprocessing", "cafe"), 2, ["nearest: caffe"]),
        (("extract", "SOURCE"), 2, ["--base"]),
        (("extract", "SOURCE", "--base", FAKE, "--nosuch"), 2, ["--nosuch"]),
        (("extrakt", "SOURCE"), 2, ["extrakt"]),
        (("merge", "RUN", "--out", "model.h5"), 2, ["no finished run"]),
        (("evaluate", "SOURCE"), 2, ["no finished run"]),
        (("predict", "gone.keras", "SOURCE"), 2, ["gone.keras", "no such file", "bottleneck merge"]),
        (("predict", "FILE", "SOURCE"), 1, ["FILE", "no merged model"]),
        (("extract", "nosuch://images/cats.zip", "--base", FAKE), 1, ["nosuch", "s3://"]),
    ],
)
def test_errors_are_one_object_with_their_exit_status(
    call: Call, source: Path, tmp_path: Path, arguments: tuple[str, ...], status: int, words: list[str]
) -> None:
    (tmp_path / "FILE").write_text("no model")
    places = {"SOURCE": source, "RUN": tmp_path / "run", "FILE": tmp_path / "FILE"}
    given = [places.get(argument, argument) for argument in arguments]
    as_json, as_text = call(*given, "--json"), call(*given)
    assert as_json.status == as_text.status == as_json.json["exit_status"] == status, as_json.err
    assert as_text.out == ""
    for word in words:
        assert word in as_json.json["error"]
        assert word in " ".join(as_text.err.split())


def test_a_wrong_base_is_noticed_before_a_long_scan(call: Call, source: Path, tmp_path: Path) -> None:
    assert call("extract", source, "--base", "vgg1").status == 2
    assert not (tmp_path / "cache" / "scans").exists()


def test_a_run_of_almost_that_name_is_named(call: Call, source: Path, tmp_path: Path) -> None:
    assert call("train", source, "--base", FAKE, "--run", tmp_path / "runs" / "first", "--quiet").status == 0
    said = call("evaluate", "--trust", tmp_path / "runs" / "frist")
    assert said.status == 2
    assert "nearest: first" in said.err


def test_a_fault_of_ours_is_still_one_object(
    call: Call, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bottleneck.pipeline.extract.extract", lambda *_, **__: 1 / 0)
    said = call("extract", source, "--base", FAKE, "--json")
    assert said.json == {"error": "division by zero", "kind": "ZeroDivisionError", "exit_status": 1}
    assert said.status == 1
    assert said.err.startswith("Traceback") and said.err.endswith("\nZeroDivisionError: division by zero\n")


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_a_terminal(call: Call, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = call(*([name] if name else []), "--help")
    assert said.status == 0 and said.out.startswith("Usage: bottleneck")
    assert max(map(len, said.out.splitlines())) <= 80
    if not name:
        assert all(f"\n  {command} " in said.out for command in COMMANDS)
        assert "..." not in said.out.partition("Commands:")[2]
    elif name == "store":
        for inner in ("ls", "show", "verify", "compact", "prune"):
            assert f"\n  {inner} " in said.out
            text = call("store", inner, "--help").out
            assert "--json" in text and "--quiet" in text and "--cache" in text
            assert max(map(len, text.splitlines())) <= 80
    else:
        assert "--json" in said.out and "--quiet" in said.out and "--cache" in said.out


def test_tables_fit_a_terminal_and_paths_stay_whole(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    source = write_images(tmp_path / ("long " * 12) / "in", {"cat": 15, "dog": 15})
    run = source.parent / "run"
    text = call("train", source, "--base", FAKE, "--run", run, "--folds", 3).out
    assert f"bottleneck merge {run} --out model.keras" in text
    text += (
        call("evaluate", "--trust", run).out + call("extract", source, "--base", FAKE).out + call("bases").out
    )
    # Only lines that end in a path may be longer: those are to be copied.
    assert [line for line in text.splitlines() if len(line.rstrip()) > 80 and str(tmp_path) not in line] == []
    assert not [line for line in text.splitlines() if line.strip() in ("class", "s", "sing")], (
        "a torn heading"
    )


class Full:
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        self.write("")


@pytest.mark.fault(75)
def test_notes_and_predictions_into_nothing_are_no_error(
    call: Call, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(source, {"owl": 1}, seed=3)
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Full())
        patch.setattr(sys, "stdout", None)
        cli.main(["train", str(source), "--base", FAKE, "--split", "exact", "--run", str(run)])
        cli.main(["predict", "--trust", str(run), str(source)])
    assert json.loads((run / "run.json").read_text())["classes"] == ["cat", "dog", "owl"]


def test_signals_and_streams_of_a_caller_are_given_back(call: Call) -> None:
    before = signal.getsignal(signal.SIGTERM), sys.stderr
    call("bases", "--quiet")
    assert (signal.getsignal(signal.SIGTERM), sys.stderr) == before


def test_the_other_distribution_of_that_name_is_warned_of(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.metadata

    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "1.4.2" if name == "Bottleneck" else real(name)
    )
    said = call("bases", "vgg16", "--json")
    assert "pip uninstall Bottleneck" in said.err
    assert said.json["bases"]
