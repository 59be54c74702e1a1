"""The `.keras` file: there whole or as it was, with a document that says what it is."""

from __future__ import annotations

import errno
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bottleneck.errors import BaseError
from bottleneck.exports.keras_archive import MEMBER, read_document, save_keras


class Model:
    """Stands for a Keras model: writes a zip."""

    def __init__(self, text: str = "weights") -> None:
        self.text = text

    def save(self, path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", self.text)


def test_the_document_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    save_keras(Model("one"), path, {"classes": ["a", "é\n"], "format": 1})
    assert read_document(path) == {"classes": ["a", "é\n"], "format": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["model.keras"]


def test_a_disk_that_refuses_is_named_with_the_file(tmp_path: Path) -> None:
    class Full(Model):
        def save(self, path: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=f"No space left.*{tmp_path}/model.keras"):
        save_keras(Full(), tmp_path / "model.keras", {})


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda p: p.write_bytes(b"no zip"), "no merged model"),
        (lambda p: zipfile.ZipFile(p, "w").writestr("config.json", "{}"), "has no bottleneck.json"),
        (lambda p: zipfile.ZipFile(p, "w").writestr(MEMBER, "[1]"), "is no object"),
        (lambda p: zipfile.ZipFile(p, "w").writestr(MEMBER, '{"a": NaN}'), "NaN is no number"),
        (lambda p: zipfile.ZipFile(p, "w").writestr(MEMBER, '{"a": 1, "a": 2}'), "stands there twice"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, make: Any, why: str) -> None:
    path = tmp_path / "model.keras"
    made = make(path)
    del made
    with pytest.raises(BaseError, match=why) as caught:
        read_document(path)
    assert str(path) in str(caught.value)


def test_a_document_that_unpacks_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, json.dumps("x" * (65 << 20)))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(BaseError, match="larger than 64 MiB"):
        read_document(path)
