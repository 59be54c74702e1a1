"""Publishing: there or not there, never half there; names that are safe to use and to show."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.schema import safe_name
from bottleneck.system import durable
from bottleneck.system.durable import publish, recover, shown, swap, sync_tree


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_of_concurrent_publishers_one_wins_whole(tmp_path: Path) -> None:
    contents = [bytes([65 + i]) * 200_000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda data: publish(tmp_path / "x", data), contents))
    assert made.count(True) == 1
    assert (tmp_path / "x").read_bytes() == contents[made.index(True)]
    assert names(tmp_path) == ["x"]


def _publish_some(folder: str, number: int) -> list[bool]:
    return [publish(Path(folder) / f"{i}", b"%d" % number * 1000) for i in range(30)]


def test_publishers_in_several_processes_agree_on_one(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        made = pool.starmap(_publish_some, [(str(tmp_path), number) for number in range(3)])
    for i in range(30):
        (winner,) = [number for number in range(3) if made[number][i]]
        assert (tmp_path / f"{i}").read_bytes() == b"%d" % winner * 1000


def test_replacing_replaces_whole_and_only_when_asked(tmp_path: Path) -> None:
    assert publish(tmp_path / "x", b"first")
    assert not publish(tmp_path / "x", b"second")
    assert (tmp_path / "x").read_bytes() == b"first"
    assert publish(tmp_path / "x", b"third", replace=True)
    assert (tmp_path / "x").read_bytes() == b"third"
    assert publish(tmp_path / "empty", b"") and (tmp_path / "empty").read_bytes() == b""


def test_a_link_under_the_final_name_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / "x").symlink_to("precious")
    assert not publish(tmp_path / "x", b"other")
    assert publish(tmp_path / "x", b"other", replace=True)
    assert (tmp_path / "precious").read_bytes() == b"mine"
    assert not (tmp_path / "x").is_symlink()


@pytest.mark.parametrize("step", ["posix_fallocate", "write", "fsync", "link"])
def test_after_a_failure_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        publish(tmp_path / "x", b"data" * 1000)
    assert names(tmp_path) == []


class NoLibrary:
    """A C library without `renameat2`."""

    def __init__(self, *_: object, **__: object) -> None:
        raise OSError("no such library")


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS, errno.EXDEV, errno.EOPNOTSUPP])
@pytest.mark.parametrize("library", [ctypes.CDLL, NoLibrary])
def test_without_hard_links_the_first_still_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, library: type
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(ctypes, "CDLL", library)
    assert publish(tmp_path / "x", b"first")
    assert not publish(tmp_path / "x", b"second")
    assert (tmp_path / "x").read_bytes() == b"first"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_link_that_fails_is_a_failure_and_no_lack_of_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(OSError, match=re.escape(os.strerror(error))):
        publish(tmp_path / "x", b"first")
    assert names(tmp_path) == []


def test_a_link_that_was_made_and_reported_as_there_already_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def twice(*arguments: object, **more: object) -> None:
        real(*arguments, **more)
        real(*arguments, **more)

    monkeypatch.setattr(os, "link", twice)
    assert publish(tmp_path / "x", b"mine")


def test_a_temporary_that_is_swept_is_written_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    sweeps = 1

    def sweep(descriptor: int) -> None:
        nonlocal sweeps
        real(descriptor)
        left = list(tmp_path.glob(".*.tmp"))
        if sweeps and left:
            sweeps -= 1
            left[0].unlink()

    monkeypatch.setattr(os, "fsync", sweep)
    assert publish(tmp_path / "x", b"data")
    assert (tmp_path / "x").read_bytes() == b"data"
    assert sweeps == 0
    sweeps = 2
    with pytest.raises(FileNotFoundError):
        publish(tmp_path / "y", b"data")
    assert names(tmp_path) == ["x"]


def test_a_failed_fsync_is_never_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        publish(tmp_path / "x", b"data")
    assert len(calls) == 1
    assert names(tmp_path) == []


def test_a_file_system_without_preallocation_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    assert publish(tmp_path / "x", b"data")
    assert (tmp_path / "x").read_bytes() == b"data"


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    data = bytes(range(256)) * 3
    assert publish(tmp_path / "x", memoryview(data))
    assert (tmp_path / "x").read_bytes() == data


@pytest.mark.parametrize("name", ["n" * 256, "missing/x"])
def test_names_that_cannot_be_leave_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match=r"File name too long|No such file"):
        publish(tmp_path / name, b"data")
    assert names(tmp_path) == []


def test_a_folder_that_is_no_folder_is_not_synced_in_silence(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        durable.sync_folder(tmp_path / "gone")


@given(st.text())
def test_safe_names_are_plain_short_and_never_hidden(text: str) -> None:
    name = safe_name(text)
    assert 1 <= len(name) <= 40
    assert name.isascii() and not name.startswith(".") and name not in ("", ".", "..")
    assert not set(name) & set('/\\:*?"<>| \n\0')
    assert safe_name(name) == name or name != name.rstrip("._")


@given(st.one_of(st.binary(), st.text(st.characters())))
def test_what_is_shown_is_one_harmless_line(path: bytes | str) -> None:
    text = shown(path)
    text.encode("utf-8")
    assert text.isprintable() or all(c.isprintable() or c.isspace() for c in text)
    assert len(text.splitlines()) <= 1
    assert not set(text) & set("\n\r\t\x1b\x7f\u202e\u2028")


@given(st.text(st.characters(categories=("L", "N", "P", "S"))))
def test_plain_names_are_shown_as_they_are(text: str) -> None:
    assert shown(text) == text
    assert shown(text.encode("utf-8")) == text


def folder(path: Path, text: str) -> Path:
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "file").write_text(text)
    return path


def text(path: Path) -> str:
    return (path / "inner" / "file").read_text()


def cannot_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_renameat2", lambda *_: errno.EINVAL)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_takes_the_name_of_another_which_is_handed_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        cannot_exchange(monkeypatch)
    made, target = folder(tmp_path / "made", "new"), folder(tmp_path / "target", "old")
    was = swap(made, target)
    assert was is not None
    assert (text(target), text(was)) == ("new", "old")
    assert len(names(tmp_path)) == 2


def test_a_folder_takes_a_name_that_nothing_has(tmp_path: Path) -> None:
    assert swap(folder(tmp_path / "made", "new"), tmp_path / "target") is None
    assert (text(tmp_path / "target"), names(tmp_path)) == ("new", ["target"])


def test_a_swap_that_the_system_refuses_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, target = folder(tmp_path / "made", "new"), folder(tmp_path / "target", "old")
    monkeypatch.setattr(durable, "_renameat2", lambda *_: errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        swap(made, target)
    assert (text(target), text(made)) == ("old", "new")
    cannot_exchange(monkeypatch)
    real = os.rename

    def full(one: Path, other: Path) -> None:
        if one == made:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(one, other)

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        swap(made, target)
    assert (text(target), text(made)) == ("old", "new")
    assert names(tmp_path) == ["made", "target"]


def test_a_folder_that_lost_its_name_to_a_kill_gets_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two renames: nothing handles the end of the first."""
    made, target = folder(tmp_path / "made", "new"), folder(tmp_path / "tar[get", "old")
    cannot_exchange(monkeypatch)
    real = os.rename

    class Killed(BaseException):
        pass

    def killed(one: Path, other: Path) -> None:
        if one != target:
            raise Killed
        real(one, other)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(Killed):
        swap(made, target)
    assert not target.exists()
    monkeypatch.setattr(os, "rename", real)
    assert recover(target)
    assert text(target) == "old"
    assert not recover(target)


def test_a_tree_is_made_durable_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "a", "x")
    real, synced = os.fsync, []

    def note(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    sync_tree(tmp_path / "a")
    assert {
        str(tmp_path / "a" / "inner" / "file"),
        str(tmp_path / "a" / "inner"),
        str(tmp_path / "a"),
    } == set(synced)
