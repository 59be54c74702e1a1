"""Commands that change stores: prune, compact, and kills in their midst."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bottleneck.schema import Cache
from bottleneck.store.listing import store_folders
from bottleneck.store.maintenance.compact import Compaction
from bottleneck.store.read import open_store
from tests.fakes import base, write_images
from tests.in_process import FAKE, Call
from tests.pipeline.store_checks import flip, served
from tests.store.maintenance.small_stores import snapshot

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cats(tmp_path: Path) -> Path:
    return write_images(tmp_path / "cats", {"cat": 9, "kitten": 9})


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    return write_images(tmp_path / "dogs", {"dog": 7, "puppy": 7}, seed=5)


@pytest.fixture
def folder(call: Call, cats: Path, dogs: Path, tmp_path: Path) -> Path:
    """A store of the fake base with two shards."""
    for source in (cats, dogs):
        assert call("extract", source, "--base", FAKE, "--quiet").status == 0
    (found,) = store_folders(Cache(tmp_path / "cache"))
    return found


def test_prune_keeps_what_sources_refer_to_and_asks_first(
    call: Call, folder: Path, cats: Path, dogs: Path, tmp_path: Path
) -> None:
    before = snapshot(folder / "shards")
    said = call("store", "prune", "--keep", cats, "--json")
    assert said.status == 0 and not said.json["done"] and said.json["stores"][0]["rows"] == 14
    assert "--yes" in call("store", "prune", "--keep", cats).out
    assert snapshot(folder / "shards") == before
    for missing in ("gone", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        said = call("store", "prune", "--keep", cats, "--keep", tmp_path / missing, "--yes")
        assert said.status == 1 and missing in said.err
    assert snapshot(folder / "shards") == before
    assert call("store", "prune", "--keep", cats, "--keep", dogs, "--yes", "--quiet").status == 0
    assert snapshot(folder / "shards") == before
    said = call("store", "prune", "--keep", cats, "--yes", "--json")
    assert said.json["done"] and said.json["stores"][0]["shards"] == 1
    served(folder, cats)
    assert len(open_store(Cache(tmp_path / "cache"), base().spec)) == 18


def test_what_could_not_be_removed_is_an_exit_status(call: Call, folder: Path, cats: Path) -> None:
    (folder / "shards" / ("0" * 16 + "-" + "1" * 16 + ".h5")).mkdir()
    said = call("store", "prune", "--yes")
    assert said.status == 1 and "could not be removed" in said.out
    quiet = call("store", "prune", "--yes", "--quiet")
    assert (quiet.status, quiet.out) == (1, "") and f"could not be removed: {folder.name}" in quiet.err
    served(folder, cats)


def test_files_that_stay_are_no_damage_and_names_are_escaped(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        Compaction(Path("a\x1b"), 2, 1, 32, 0, {}, {"0.h5": "busy"}),
        Compaction(Path("b"), 2, 2, 0, 0, {"0.json": "torn"}, {}),
        Compaction(Path("c"), 2, 1, 32, 0, {}, {}),
    ]
    monkeypatch.setattr("bottleneck.pipeline.stores.compact", lambda *_, **__: found)
    quiet = call("store", "compact", "--quiet")
    assert (quiet.status, quiet.out) == (1, "")
    assert sorted(quiet.err.splitlines()) == [
        "error: damaged: b",
        "error: files could not be removed: a\\x1b",
        "the same command without --quiet says what",
    ]


def test_compact_makes_one_shard_and_extract_finds_its_rows(
    call: Call, folder: Path, cats: Path, dogs: Path
) -> None:
    said = call("store", "compact", "--json")
    (done,) = said.json["stores"]
    assert said.status == 0 and (done["before"], done["after"], done["rows"]) == (2, 1, 32)
    for source in (cats, dogs):
        assert call("extract", source, "--base", FAKE, "--json").json["computed"] == 0
        served(folder, source)
    assert call("store", "verify", "--quiet").status == 0
    flip(folder, 32)
    assert (
        call("store", "verify", "--trust", "--repair", cats, "--json").json["stores"][0]["repair"][
            "recomputed"
        ]
        == 18
    )
    served(folder, cats)


def test_newer_stores_are_named_and_never_touched(call: Call, folder: Path, cats: Path) -> None:
    path = folder / "recipe.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    before = snapshot(folder)
    for command in ("ls", "verify", "compact", "prune"):
        said = call("store", command, *(["--yes", "--keep", cats] if command == "prune" else []), "--json")
        assert said.status == 0, said.err
        assert "format 2" in said.json["stores"][0]["problem"]
        assert "format 2" in call("store", command).out
    for command in ("verify", "compact", "prune"):
        said = call("store", command, folder.name)
        assert said.status == 1 and "format 2" in said.err
    assert snapshot(folder) == before


def test_a_damaged_header_is_named(call: Call, folder: Path) -> None:
    (folder / "recipe.json").write_bytes(b"{")
    assert "damaged" in call("store", "ls", "--json").json["stores"][0]["problem"]
    assert call("store", "verify", "--quiet").status == 1


@pytest.mark.parametrize("command", ["compact", "prune"])
def test_killed_in_a_real_process_it_goes_on(
    call: Call, folder: Path, cats: Path, tmp_path: Path, command: str
) -> None:
    for number in range(6):
        more = write_images(tmp_path / f"more{number}", {"x": 6}, seed=100 + number)
        assert call("extract", more, "--base", FAKE, "--quiet").status == 0
    arguments = ["store", command, *(["--keep", str(cats), "--yes"] if command == "prune" else [])]
    draw = np.random.default_rng(7)
    for number in range(2):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "cache", copy)
        process = subprocess.Popen(
            [sys.executable, "-m", "bottleneck", *arguments, "--quiet", "--cache", str(copy)], cwd=ROOT
        )
        place = copy / "stores" / folder.name
        names = {path.name for path in (place / "shards").iterdir()}
        while process.poll() is None and {path.name for path in (place / "shards").iterdir()} == names:
            time.sleep(0.0005)
        time.sleep(float(draw.uniform(0, 0.01)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        served(place, cats)
        assert call(*arguments, "--quiet", "--cache", copy).status == 0
        served(place, cats)
        said = call("store", "verify", "--json", "--cache", copy)
        assert said.status == 0, json.dumps(said.json)
        assert said.json["stores"][0]["rows"] == (18 if command == "prune" else 68)
