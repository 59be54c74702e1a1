"""Names and labels of any characters, from the source to the output."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.fakes import write_images
from tests.in_process import FAKE, Call


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_images(tmp_path / "in", {"cat": 12, "dog": 12})


def extract(call: Call, source: object, *more: object) -> dict[str, object]:
    said = call("extract", source, "--base", FAKE, "--json", *more)
    assert said.status == 0, said.out
    done = said.json
    assert done["images"] == done["computed"] + done["reused"] + done["duplicates"] + done["rejected"]
    return done


def train(source: object, run: object, *more: object) -> tuple[object, ...]:
    return ("train", source, "--base", FAKE, "--run", run, *more)


def test_labels_with_commas_newlines_and_any_script_go_all_the_way(
    call: Call, source: Path, tmp_path: Path
) -> None:
    names = {"cat": "cats, big\nand small", "dog": '"狗" Ärger\r'}
    with (tmp_path / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows((f"in/{k}/{i:03d}.png", name) for k, name in names.items() for i in range(12))
    said = call(*train(tmp_path / "table.csv", tmp_path / "run", "--json"))
    assert said.status == 0, said.out
    assert sorted(said.json["classes"]) == sorted(names.values())
    said = call("predict", "--trust", tmp_path / "run", source, "--quiet")
    rows = list(csv.DictReader(io.StringIO(said.out, newline="")))
    assert len(rows) == 24
    assert {row["label"] for row in rows} == set(names.values())
    assert call("evaluate", "--trust", tmp_path / "run").status == 0


@pytest.mark.fault(60, 61)
def test_what_systems_leave_behind_is_ignored_and_counted(call: Call, source: Path) -> None:
    (source / ".DS_Store").write_bytes(b"\0")
    (source / "cat" / "Thumbs.db").write_bytes(b"\0")
    (source / "cat" / "._000.png").write_bytes(b"\0")
    shutil.copytree(source / "cat", source / "__MACOSX" / "cat")
    os.mkfifo(source / "cat" / "pipe.png")
    (source / "cat" / "loop").symlink_to(source, target_is_directory=True)
    (source / "cat" / "self.png").symlink_to("self.png")
    (source / "cat" / "gone.png").symlink_to("nowhere.png")
    done = extract(call, source)
    assert (done["computed"], done["rejected"]) == (24, 0)
    assert done["ignored_why"] == {
        "FIFO, socket or device": 1,
        "__MACOSX folder": 1,
        "link in a circle": 1,
        "link that leads nowhere": 1,
        "link to a folder already walked": 1,
        "system file": 3,
    }


ODD = [
    "snow ☃.png".encode(),
    "猫.png".encode(),
    b"new\nline.png",
    b"return\r.png",
    b"not \xff utf-8.png",
    b'quo"te, comma.png',
    "bidi \u202e gnp.png".encode(),
    b"-rf.png",
    b"back\\slash.png",
    b"[bold]x[bold].png",
]


@pytest.mark.fault(63)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_names_of_any_bytes_come_back_from_predict(
    call: Call, source: Path, tmp_path: Path, kind: str
) -> None:
    assert call(*train(source, tmp_path / "run")).status == 0
    cats = os.fsencode(source / "cat")
    for number, name in enumerate(ODD):
        os.rename(f"{cats.decode()}/{number:03d}.png".encode(), cats + b"/" + name)
        with open(cats + b"/bad" + name, "wb") as file:  # read, and found to be no image
            file.write(name)
        if number % 2:  # cannot be read at all: a folder where a table names a file
            os.symlink(b"/proc/self/mem", cats + b"/lost" + name)
    said = call("predict", "--trust", tmp_path / "run", source, "--quiet", "--format", kind)
    assert said.status == 0, said.err
    if kind == "csv":
        rows = list(csv.DictReader(io.StringIO(said.out, newline="")))
    else:
        rows = [json.loads(line) for line in said.out.splitlines()]
    by_path = {os.fsencode(row["path"]): row for row in rows}
    assert len(by_path) == len(rows) == len(list(source.rglob("*.png")))
    for name in ODD:
        assert by_path[b"cat/" + name]["label"] == "cat"
        assert by_path[b"cat/bad" + name]["error"]
    for path in by_path:
        assert os.path.lexists(os.fsencode(source) + b"/" + path)
    assert list(by_path) == sorted(by_path)


@pytest.mark.fault(63)
def test_odd_names_are_shown_escaped_and_harmless(call: Call, source: Path) -> None:
    for name in ODD:
        with open(os.fsencode(source) + b"/dog/" + name, "wb") as file:
            file.write(name)
    said = call("extract", source, "--base", FAKE, "--max-bad", "1")
    assert said.status == 0
    for words in (
        "new\\nline.png",
        "return\\r.png",
        "not \\xff utf-8.png",
        "bidi \\u202e",
        "[bold]x[bold].png",
    ):
        assert words in said.out.replace("\n", ""), words
    assert "\u202e" not in said.out and "\udcff" not in said.out and "\r" not in said.out
    text = call("extract", source, "--base", FAKE).err
    assert "\u202e" not in text and "new\\nline.png" in text
