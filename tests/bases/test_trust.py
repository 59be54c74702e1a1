"""Code that a run or a store names is not imported before the user says so, whichever command looks at it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import bottleneck
from bottleneck import cli
from bottleneck.bases.trust import file_of
from bottleneck.errors import Untrusted
from bottleneck.schema import Cache
from bottleneck.store.listing import store_folders
from tests.fakes import write_images
from tests.in_process import FAKE, Call
from tests.store.maintenance.small_stores import reseal

STRANGE = "strange_code.inside:build"
_BODY = "import pathlib\npathlib.Path({marker!r}).touch()\nfrom tests.fakes import base as build\n"


@pytest.fixture
def place(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with images, and what a stranger left there: a run and a store that name the stranger's code."""
    source = write_images(tmp_path / "in", {"cat": 9, "dog": 9})
    assert call("train", source, "--base", FAKE, "--run", tmp_path / "run", "--quiet").status == 0
    (folder,) = store_folders(Cache(tmp_path / "cache"))
    record = tmp_path / "run" / "run.json"
    document = json.loads(record.read_text())
    request = document["request"] = {**document["request"], "base": STRANGE}
    record.write_text(json.dumps(document))
    reseal(folder / "recipe.json", request=request)
    package = tmp_path / "strange_code"
    package.mkdir()
    for name in ("__init__", "inside"):
        (package / f"{name}.py").write_text(_BODY.format(marker=str(tmp_path / "ran")))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("strange_code")]:
        del sys.modules[name]


#: Every command that reads a run, or what a store says of its base. A new one adds its line here.
COMMANDS = {
    "evaluate": ("run",),
    "predict": ("run", "in"),
    "merge": ("run", "--out", "model.keras"),
    "export": ("run", "--out", "out", "--format", "keras"),
    "finetune": ("run", "--unfreeze", "top:1"),
    "store verify": ("--sample", 3, "--source", "in"),
}


def _commands(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


def test_every_command_that_reads_a_run_or_recomputes_a_store_is_held_to_it() -> None:
    found = {
        name
        for name, command in _commands(cli.app)
        for parameter in command.params
        if isinstance(parameter, click.Argument)
        and "RUN" in (parameter.metavar or parameter.name or "").upper()
    }
    assert found | {"store verify"} == set(COMMANDS)
    asking = {name for name, command in _commands(cli.app) for p in command.params if p.name == "trust"}
    assert asking == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_strangers_code_is_not_imported_unasked(command: str, call: Call, place: Path) -> None:
    said = call(*command.split(), *COMMANDS[command], "--json")
    assert said.status == 2, said.err
    assert said.json["kind"] == "Untrusted"
    for word in (STRANGE, str(place / "strange_code" / "inside.py"), "--trust", "trust=True"):
        assert word in said.json["error"]
    assert not (place / "ran").exists()
    assert not any(name.startswith("strange_code") for name in sys.modules)


@pytest.mark.parametrize("command", ["predict", "store verify"])
def test_what_is_trusted_runs(command: str, call: Call, place: Path) -> None:
    said = call(*command.split(), *COMMANDS[command], "--trust", "--json")
    assert said.status == 0, said.err
    assert (place / "ran").exists()


def test_in_python_it_is_the_same_word(place: Path) -> None:
    with pytest.raises(Untrusted, match=r"strange_code\.inside.*trust=True"):
        bottleneck.predict("run", "in")
    assert not (place / "ran").exists()
    assert len(bottleneck.predict("run", "in", trust=True)) == 18


def test_what_the_user_names_in_this_very_command_needs_no_more_words(call: Call, place: Path) -> None:
    assert call("extract", "in", "--base", STRANGE, "--quiet").status == 0
    assert (place / "ran").exists()


def test_where_code_would_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lonely.py").write_text("raise SystemExit\n")
    (tmp_path / "spaces").mkdir()
    assert file_of("lonely") == str(tmp_path / "lonely.py")
    assert file_of("lonely.inside") is None
    assert file_of("spaces") == str(tmp_path / "spaces")
    assert file_of("os") is not None
    assert file_of("nothing_of_that_name") is None
    assert "lonely" not in sys.modules
