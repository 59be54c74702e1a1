"""A folder made aside: it takes its name whole or not at all, and what kills leave behind is swept."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bottleneck.system import durable
from bottleneck.system.staging import staged, sweep, written_aside
from tests.faults.private_mounts import memory, private_mounts
from tests.store.kill_steps import kill_at, steps_of


def write(target: Path, text: str, count: int = 3) -> None:
    with staged(target) as folder:
        (folder / "inner").mkdir()
        for number in range(count):
            (folder / "inner" / f"{number}").write_text(text)


def read(target: Path) -> set[str]:
    return {path.read_text() for path in (target / "inner").iterdir()}


def beside(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def test_a_folder_appears_whole_and_replaces_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "export"
    for text in ("one", "two"):
        write(target, text)
        assert read(target) == {text}
        assert beside(target) == []
        assert sorted(os.listdir(target)) == ["inner"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "export"
    write(target, "one")

    def full() -> None:
        with staged(target) as folder:
            (folder / "half").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        full()
    assert read(target) == {"one"}
    assert beside(target) == []


@private_mounts
def test_a_disk_that_is_really_full_costs_nothing(tmp_path: Path) -> None:
    disk = memory(tmp_path / "disk", "size=256k")
    target = disk / "export"
    write(target, "x" * 20_000)
    with pytest.raises(OSError, match="No space left"):
        write(target, "y" * 100_000)
    assert read(target) == {"x" * 20_000}
    assert beside(target) == []
    # And the room is there again.
    write(target, "z" * 20_000)


@pytest.mark.fault(79)
@pytest.mark.parametrize("exchange", [True, False])
def test_killed_before_each_step_on_the_disk_a_whole_folder_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(durable, "_renameat2", lambda *_: errno.EINVAL)
    target = tmp_path / "export"
    write(target, "one")
    last = steps_of(lambda: write(target, "two"))
    assert last > 8
    seen = set()
    write(target, "one")
    for step in range(last):
        kill_at(step, lambda: write(target, "two"))
        sweep(target)
        found = read(target)
        assert len(found) == 1
        assert len(list((target / "inner").iterdir())) == 3
        assert beside(target) == []
        seen |= found
        if found == {"two"}:
            write(target, "one")
    assert seen == {"one", "two"}
    write(target, "three")
    assert read(target) == {"three"}


def test_what_somebody_is_at_work_on_is_not_swept(tmp_path: Path) -> None:
    target = tmp_path / "export"
    code = (
        "import sys, time; from pathlib import Path; from bottleneck.system.staging import staged\n"
        "with staged(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'theirs').write_text('theirs'); print('ready', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            (theirs,) = tmp_path.glob(".export.*.making")
            write(target, "ours")
            assert (theirs / "theirs").read_text() == "theirs"
            assert read(target) == {"ours"}
        finally:
            process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 120
    while theirs.exists() and time.monotonic() < deadline:
        sweep(target)
    assert not theirs.exists()


def test_other_names_beside_it_are_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "export"
    for name in (".export.notes", ".exported.12345678.making", "export.making", ".other.12345678.was"):
        (tmp_path / name).mkdir()
    write(target, "one")
    assert len(beside(target)) == 4


# ------------------------------------------------------------------------------------------- one file or folder aside


def write_one(path: Path, text: str, folder: bool) -> Path:
    file = path / "inner" / "file" if folder else path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return path


def read_one(path: Path) -> str:
    return (path / "inner" / "file" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_the_new_takes_the_place_of_the_old(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "model"
    for text in ("one", "two"):
        with written_aside(target) as path:
            write_one(path, text, folder)
            (path.parent / "scratch").mkdir()
        assert read_one(target) == text
        assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_a_failure_leaves_the_old(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "model"
    write_one(target, "one", folder)
    with pytest.raises(FileNotFoundError), written_aside(target) as path:
        path.with_name("not there").rename(write_one(path, "two", folder))
    assert read_one(target) == "one"
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
    write_one(target, "mine", not folder)
    with pytest.raises(OSError, match=r"model"), written_aside(target) as path:
        write_one(path, "new", folder)
    assert read_one(target) == "mine"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path: Path) -> None:
    target = tmp_path / "model"
    left = tmp_path / ".model.0badcafe.making"
    write_one(left / "model", "half", folder=True)
    with written_aside(target) as path:
        assert not left.exists()
        # Two at work do not sweep each other.
        with written_aside(target) as other:
            assert path.parent.is_dir()
            write_one(other, "one", folder=False)
        write_one(path, "two", folder=False)
    assert target.read_text() == "two"
    assert list(tmp_path.iterdir()) == [target]
