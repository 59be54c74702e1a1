"""`export.json`: what makes a folder ours, and shows when it is not whole any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bottleneck.errors import ExportError, UsageError
from bottleneck.exports import manifest
from bottleneck.exports.manifest import Delivered, Manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "export"
    (made / "saved_model" / "variables").mkdir(parents=True)
    (made / "model.keras").write_bytes(b"k" * 100)
    (made / "saved_model" / "variables" / "data").write_bytes(b"v" * 50)
    written = Manifest(
        run="r",
        created="2026-01-01T00:00:00+00:00",
        recipe="0" * 64,
        head="logistic {}",
        artefacts=(Delivered(kind="keras", path="model.keras", bytes=100, milliseconds=1.5),),
        refused=(),
        files=manifest.facts_of(made),
    )
    (made / manifest.NAME).write_text(written.model_dump_json())
    return made


def test_a_whole_folder_is_read_back(folder: Path) -> None:
    found = manifest.check_manifest(folder)
    assert sorted(found.files) == ["model.keras", "saved_model/variables/data"]
    assert found.files["model.keras"].bytes == 100
    assert manifest.size_of(folder / "saved_model") == 50
    assert manifest.size_of(folder / "model.keras") == 100


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (lambda f: (f / "model.keras").write_bytes(b"k" * 99), r"model\.keras is cut short"),
    "changed": (
        lambda f: (f / "saved_model/variables/data").write_bytes(b"w" * 50),
        "variables/data has other bytes",
    ),
    "missing": (lambda f: (f / "model.keras").unlink(), r"model\.keras is missing"),
    "no manifest": (lambda f: (f / "export.json").unlink(), "holds no export"),
    "half a manifest": (
        lambda f: (f / "export.json").write_bytes((f / "export.json").read_bytes()[:200]),
        "is not what this version writes",
    ),
    "newer": (
        lambda f: (f / "export.json").write_text(
            (f / "export.json").read_text().replace('"format":1', '"format":2')
        ),
        "is not what this version writes",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_folder_that_is_not_whole_is_refused_by_name(folder: Path, name: str) -> None:
    damage, why = DAMAGE[name]
    damage(folder)
    with pytest.raises(ExportError, match=why):
        manifest.check_manifest(folder)


def test_our_folder_may_be_replaced_and_so_may_nothing_and_an_empty_one(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    # What looking at it leaves behind is no reason to refuse.
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "decode.cpython-311.pyc").write_bytes(b"")
    (folder / "model.keras").write_bytes(b"damaged")
    for target in (folder, tmp_path / "empty", tmp_path / "new"):
        manifest.check_target(target)


@pytest.mark.parametrize("other", ["notes.txt", "saved_model/notes.txt", ".git/config", "photo\n.jpg"])
def test_a_folder_with_anything_else_in_it_is_not_replaced(folder: Path, other: str) -> None:
    (folder / other).parent.mkdir(exist_ok=True)
    (folder / other).write_text("precious")
    with pytest.raises(UsageError, match=r"holds other things") as caught:
        manifest.check_target(folder)
    assert other.replace("\n", "\\n") in str(caught.value)
    assert (folder / other).read_text() == "precious"


def test_neither_a_file_nor_a_folder_of_somebody_elses_is_a_target(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        manifest.check_target(tmp_path / "file")
    (folder / manifest.NAME).write_text("{}")
    with pytest.raises(UsageError, match="holds other things"):
        manifest.check_target(folder)
