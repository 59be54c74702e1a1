"""Files read by processes elsewhere: the same inventory, and no row lost to a machine that does not see a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bottleneck.contracts import Readers
from bottleneck.errors import EngineError
from bottleneck.extraction.engines.relay import relay_errors
from bottleneck.inventory import hashing
from bottleneck.inventory.scan import scan_source
from bottleneck.sources import open_source
from bottleneck.sources.folder import FolderSource
from tests.sources.tiny_files import png, zipped

FILES = 40


class Processes:
    """Readers of a pool of processes."""

    room = 4

    def __init__(self) -> None:
        self.calls = 0

    def __enter__(self) -> Processes:
        self._pool = ProcessPoolExecutor(2)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        self.calls += 1
        return relay_errors(self._pool.submit(work, *arguments), "processes")


class Told(FolderSource):
    """Writes down which process reads which file."""

    def read(self, path: bytes) -> bytes:
        with open(f"{self.location}.log", "a") as log:
            log.write(f"{os.getpid()} {os.fsdecode(path)}\n")
        return super().read(path)


class HalfSeen(Told):
    """Other processes do not see files of uneven numbers."""

    def read(self, path: bytes) -> bytes:
        if os.getpid() != int(Path(f"{self.location}.home").read_text()) and path[-5:-4] in b"13579":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", os.fsdecode(path))
        return super().read(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number:03d}.png").write_bytes(png(number))
    (folder / "notes.txt").write_text("no image")
    (tmp_path / "images.home").write_text(str(os.getpid()))
    return folder


@pytest.fixture(autouse=True)
def asked_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_FEW", 2)
    monkeypatch.setattr(hashing, "_ELSEWHERE", 4)


def readers_of(root: Path) -> dict[str, list[str]]:
    """Which files each process read."""
    found: dict[str, list[str]] = {}
    for line in Path(f"{root}.log").read_text().splitlines():
        process, name = line.split(" ", 1)
        found.setdefault(process, []).append(name)
    return found


def test_the_inventory_is_the_same_and_nearly_nothing_is_read_here(root: Path, tmp_path: Path) -> None:
    plain = scan_source(open_source(root), None)
    readers: Readers = Processes()
    found = scan_source(Told(str(root)), tmp_path / "scans", readers=readers)
    assert found.table.equals(plain.table)
    assert found.ignored == plain.ignored
    assert found.unreadable == plain.unreadable
    by = readers_of(root)
    assert by.pop(str(os.getpid())) == ["000.png"]  # what the others must see
    assert sorted({name for names in by.values() for name in names}) == sorted(os.listdir(root))
    again = scan_source(Told(str(root)), tmp_path / "scans", readers=readers)
    assert again.table.equals(plain.table)


def test_what_a_process_elsewhere_cannot_read_is_read_here(root: Path) -> None:
    plain = scan_source(open_source(root), None)
    found = scan_source(HalfSeen(str(root)), None, readers=Processes())
    assert found.table.equals(plain.table)
    assert found.unreadable == ()
    here = readers_of(root)[str(os.getpid())]
    assert sorted(here) == ["000.png", *(f"{number:03d}.png" for number in range(1, FILES, 2))]


class HalfThere(Told):
    """Nobody can read one of the files."""

    def read(self, path: bytes) -> bytes:
        if path == b"020.png":
            raise PermissionError(errno.EACCES, "Permission denied", os.fsdecode(path))
        return super().read(path)


def test_what_nobody_can_read_is_unreadable_as_ever(root: Path) -> None:
    (root / "021.png").write_bytes(b"")
    plain = scan_source(HalfThere(str(root)), None)
    found = scan_source(HalfThere(str(root)), None, readers=Processes())
    assert [one.path for one in found.unreadable] == ["020.png"]
    assert found.table.equals(plain.table)
    assert (found.unreadable, found.ignored) == (plain.unreadable, plain.ignored)


def test_an_archive_is_opened_once_in_each_process(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "images.zip", {f"{number:03d}.png": png(number) for number in range(FILES)})
    plain = scan_source(open_source(archive), None, rehash=True)
    found = scan_source(open_source(archive), None, rehash=True, readers=Processes())
    assert found.table.equals(plain.table)
    first, second = (hashing._first_copy("a scan", open_source(archive)) for _ in range(2))
    assert first is second
    assert hashing._first_copy("another scan", open_source(archive)) is not first


class Elsewhere(FolderSource):
    """Other processes see other files under the same names."""

    def read(self, path: bytes) -> bytes:
        there = os.getpid() != int(Path(f"{self.location}.home").read_text())
        return super().read(path) + b"!" * there


def test_another_source_there_ends_the_scan_and_leaves_no_index(root: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"sees another source: .*000.png.* holds other bytes there"):
        scan_source(Elsewhere(str(root)), tmp_path / "scans", readers=Processes())
    assert not (tmp_path / "scans").exists()


class Restless(FolderSource):
    """The file that others must see is written anew as soon as it was looked at here."""

    def read(self, path: bytes) -> bytes:
        data = super().read(path)
        file = Path(self.location, os.fsdecode(path))
        if path == b"000.png" and os.getpid() == int(Path(f"{self.location}.home").read_text()):
            file.write_bytes(png(1000))
        return data


def test_a_file_that_changes_while_it_is_compared_ends_nothing(root: Path) -> None:
    found = scan_source(Restless(str(root)), None, readers=Processes())
    assert found.table.equals(scan_source(open_source(root), None).table)
    assert found.unreadable == ()


class Deadly(FolderSource):
    """A process that reads the last file dies."""

    def read(self, path: bytes) -> bytes:
        if b"039" in path and os.getpid() != int(Path(f"{self.location}.home").read_text()):
            os._exit(1)
        return super().read(path)


def test_processes_that_break_are_named_by_their_engine(root: Path) -> None:
    with pytest.raises(EngineError, match="--engine processes: BrokenProcessPool"):
        scan_source(Deadly(str(root)), None, readers=Processes())


def test_of_few_files_nobody_elsewhere_is_asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_FEW", FILES + 2)
    readers = Processes()
    assert len(scan_source(open_source(root), None, readers=readers)) == FILES
    assert readers.calls == 0


def test_threads_read_what_no_process_could_be_shown(root: Path) -> None:
    """Where no file can be read here there is nothing that would tell one source from another."""

    class Gone(FolderSource):
        def read(self, path: bytes) -> bytes:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", os.fsdecode(path))

    readers = Processes()
    found = scan_source(Gone(str(root)), None, readers=readers)
    assert len(found) == 0 and len(found.unreadable) == FILES
    assert readers.calls == 0
