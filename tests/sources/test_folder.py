"""Layouts of folders, and what is passed over in them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bottleneck.sources import open_source
from bottleneck.sources.folder import FolderSource
from tests.sources.tiny_files import labels, tree


def test_class_folders_give_labels(tmp_path: Path) -> None:
    tree(tmp_path, {"cats/1.png": 1, "dogs/1.png": 2})
    assert labels(open_source(tmp_path)) == {b"cats/1.png": ("cats", None), b"dogs/1.png": ("dogs", None)}


def test_nested_folders_belong_to_the_first_level(tmp_path: Path) -> None:
    tree(tmp_path, {"cats/indoors/old/1.png": 1, "cats/2.png": 2, "dogs/a/b/c/3.png": 3})
    assert {k: v[0] for k, v in labels(open_source(tmp_path)).items()} == {
        b"cats/indoors/old/1.png": "cats",
        b"cats/2.png": "cats",
        b"dogs/a/b/c/3.png": "dogs",
    }


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Validation", "VAL"])
def test_split_folders_of_class_folders(tmp_path: Path, name: str) -> None:
    tree(tmp_path, {"train/cats/1.png": 1, f"{name}/cats/deep/2.png": 2, "test/dogs/3.png": 3})
    assert labels(open_source(tmp_path)) == {
        b"train/cats/1.png": ("cats", "train"),
        f"{name}/cats/deep/2.png".encode(): ("cats", "validation"),
        b"test/dogs/3.png": ("dogs", "test"),
    }


def test_a_class_called_train_stays_a_class(tmp_path: Path) -> None:
    tree(tmp_path, {"train/steam/1.png": 1, "bus/2.png": 2, "test/3.png": 3})
    source = FolderSource.open(str(tmp_path))
    shutil.rmtree(tmp_path / "test")
    assert labels(source) == {b"train/steam/1.png": ("train", None), b"bus/2.png": ("bus", None)}
    assert "train/ among them" in source.layout().note


def test_folders_called_train_and_test_without_class_folders_among_classes_stay_classes(
    tmp_path: Path,
) -> None:
    tree(tmp_path, {"train/1.png": 1, "test/2.png": 2, "bus/3.png": 3})
    assert {label for label, _ in labels(open_source(tmp_path)).values()} == {"train", "test", "bus"}


def test_splits_beside_another_folder_keep_its_images_unlabelled(tmp_path: Path) -> None:
    tree(tmp_path, {"train/cats/1.png": 1, "test/cats/2.png": 2, "extra/3.png": 3})
    source = FolderSource.open(str(tmp_path))
    assert labels(source)[b"extra/3.png"] == (None, None)
    assert labels(source)[b"train/cats/1.png"] == ("cats", "train")
    assert "extra/" in source.layout().note


def test_split_folders_without_classes_are_splits_without_labels(tmp_path: Path) -> None:
    tree(tmp_path, {"train/1.png": 1, "test/2.png": 2})
    assert labels(open_source(tmp_path)) == {b"train/1.png": (None, "train"), b"test/2.png": (None, "test")}


def test_flat_folder_has_no_labels(tmp_path: Path) -> None:
    tree(tmp_path, {"1.png": 1, "2.png": 2})
    assert labels(open_source(tmp_path)) == {b"1.png": (None, None), b"2.png": (None, None)}


def test_images_at_the_top_of_class_folders_are_kept_without_label(tmp_path: Path) -> None:
    tree(tmp_path, {"stray.png": 1, "cats/1.png": 2, "dogs/2.png": 3})
    assert labels(open_source(tmp_path))[b"stray.png"] == (None, None)
    assert labels(open_source(tmp_path))[b"cats/1.png"] == ("cats", None)


def test_system_and_hidden_things_are_counted(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "cats/1.png": 1,
            "cats/.DS_Store": b"x",
            "cats/Thumbs.db": b"x",
            "cats/._1.png": b"x",
            "cats/.hidden.png": 2,
            "__MACOSX/cats/1.png": 3,
            ".git/4.png": 4,
            "cats/.cache/5.png": 5,
            "dogs/6.png": 6,
        },
    )
    source = open_source(tmp_path)
    assert set(labels(source)) == {b"cats/1.png", b"dogs/6.png"}
    assert source.passed_over() == {
        "system file": 3,
        "hidden file": 1,
        "__MACOSX folder": 1,
        "hidden folder": 2,
    }


def test_counts_are_those_of_the_last_listing(tmp_path: Path) -> None:
    tree(tmp_path, {"cats/1.png": 1, "cats/.DS_Store": b"x"})
    source = open_source(tmp_path)
    list(source.entries())
    list(source.entries())
    assert source.passed_over() == {"system file": 1}


@pytest.mark.fault(59)
def test_an_empty_class_is_counted(tmp_path: Path) -> None:
    tree(tmp_path, {"cats/1.png": 1})
    (tmp_path / "dogs").mkdir()
    (tmp_path / "birds" / "small").mkdir(parents=True)
    source = open_source(tmp_path)
    assert set(labels(source)) == {b"cats/1.png"}
    assert source.passed_over() == {"class folder without files": 2}
