"""Written aside: named when whole, else as if nothing had been."""

from __future__ import annotations

from pathlib import Path

import pytest

from bottleneck.system.aside import written_aside


def write(path: Path, text: str, folder: bool) -> Path:
    file = path / "inner" / "file" if folder else path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return path


def read(path: Path) -> str:
    return (path / "inner" / "file" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_the_new_takes_the_place_of_the_old(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "model"
    for text in ("one", "two"):
        with written_aside(target) as path:
            write(path, text, folder)
            (path.parent / "scratch").mkdir()
        assert read(target) == text
        assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_a_failure_leaves_the_old(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "model"
    write(target, "one", folder)
    with pytest.raises(FileNotFoundError), written_aside(target) as path:
        path.with_name("not there").rename(write(path, "two", folder))
    assert read(target) == "one"
    assert list(tmp_path.iterdir()) == [target]


def test_what_was_never_written_takes_no_name(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.write_text("one")
    with pytest.raises(FileNotFoundError), written_aside(target):
        pass
    assert target.read_text() == "one"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("folder", [False, True], ids=["file over folder", "folder over file"])
def test_a_thing_of_another_kind_stays(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "model"
    write(target, "mine", not folder)
    with pytest.raises(OSError, match=r"model"), written_aside(target) as path:
        write(path, "new", folder)
    assert read(target) == "mine"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path: Path) -> None:
    target = tmp_path / "model"
    left = tmp_path / ".model.0badcafe.making"
    write(left / "model", "half", folder=True)
    with written_aside(target) as path:
        assert not left.exists()
        # Two at work do not sweep each other.
        with written_aside(target) as other:
            assert path.parent.is_dir()
            write(other, "one", folder=False)
        write(path, "two", folder=False)
    assert target.read_text() == "two"
    assert list(tmp_path.iterdir()) == [target]
