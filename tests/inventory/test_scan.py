"""The scan: contents, the index that saves reading, and everything that must not upset it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bottleneck.errors import Rejected
from bottleneck.inventory import hashing
from bottleneck.inventory.duplicates import duplicates
from bottleneck.inventory.scan import scan_source
from bottleneck.schema import Entry
from bottleneck.sources import open_source
from tests.inventory.memory_source import Memory, contents
from tests.sources.tiny_files import png, zipped


@pytest.fixture
def source() -> Memory:
    return Memory({b"%03d.png" % number: png(number) for number in range(100)})


def test_contents_are_sha256_and_rows_sorted_by_path_bytes() -> None:
    names = [b"b/1.png", b"a/2.png", b"a\xff/3.png", b"a-/4.png", b"new\nline.png"]
    source = Memory({name: png(number) for number, name in enumerate(names)})
    inventory = scan_source(source, None)
    assert [record.path for record in inventory] == sorted(names)
    assert contents(inventory) == {n: hashlib.sha256(png(i)).digest() for i, n in enumerate(names)}
    assert inventory.location == "/memory"
    assert inventory.ignored == {"FIFO, socket or device": 1}


def test_what_counts_as_an_image(tmp_path: Path) -> None:
    source = Memory(
        {
            b"real.png": png(1),
            b"no_suffix": png(2),
            b"called.txt": png(3),
            b"web_page.JPG": b"<html>",
            b"empty.jpeg": b"",
            b"notes.txt": b"text",
            b".png": b"a name and no suffix",
            b"named.txt": b"a table says so",
        }
    )
    source.named = {b"named.txt"}
    kept = [b"called.txt", b"empty.jpeg", b"named.txt", b"no_suffix", b"real.png", b"web_page.JPG"]
    for _ in range(2):  # once read, once from the index
        inventory = scan_source(source, tmp_path)
        assert [record.path for record in inventory] == kept
        assert inventory.ignored["not an image"] == 2
        assert inventory.unreadable == ()


@pytest.mark.fault(62)
def test_unreadable_files_are_rejections_and_tried_again(tmp_path: Path) -> None:
    source = Memory({name: png(1) for name in (b"a.png", b"b\n.png", b"c.txt", b"d.txt", b"e", b"f.png")})
    source.named = {b"d.txt"}
    for path in (b"b\n.png", b"c.txt", b"d.txt", b"e"):
        source.failing[path] = PermissionError(13, "Permission denied")
    source.failing[b"f.png"] = FileNotFoundError(2, "No such file or directory")
    inventory = scan_source(source, tmp_path)
    assert [record.path for record in inventory] == [b"a.png"]
    assert [(r.path, r.stage, r.reason, r.retry) for r in inventory.unreadable] == [
        ("b\\n.png", "read", "permission denied", True),
        ("d.txt", "read", "permission denied", True),
        ("e", "read", "permission denied", True),
        ("f.png", "read", "vanished between the listing and the reading", True),
    ]
    assert inventory.ignored["not an image by its name, and unreadable"] == 1
    source.failing.clear()
    inventory = scan_source(source, tmp_path)
    assert len(inventory) == 6
    assert inventory.unreadable == ()


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    source = Memory({b"a.png": png(1), b"video.mp4": b"x"})
    source.sizes = {b"a.png": 2 << 30, b"video.mp4": 2 << 30}
    inventory = scan_source(source, tmp_path)
    assert source.read_paths == []
    assert "more than the limit" in inventory.unreadable[0].reason
    assert inventory.ignored["not an image by its name, and unreadable"] == 1


def test_a_rejected_member_keeps_its_reason(tmp_path: Path) -> None:
    source = Memory({b"a.png": png(1)})
    source.failing[b"a.png"] = Rejected("read", "damaged in the zip")
    assert scan_source(source, tmp_path).unreadable[0].reason == "damaged in the zip"


def test_an_error_of_another_kind_is_not_swallowed(source: Memory) -> None:
    source.failing[b"050.png"] = MemoryError()
    with pytest.raises(MemoryError):
        scan_source(source, None)


def test_an_empty_source_has_an_empty_inventory(tmp_path: Path) -> None:
    for _ in range(2):
        inventory = scan_source(Memory({}), tmp_path)
        assert len(inventory) == 0
        assert inventory.keys.shape == (0, 32)
        assert inventory.classes == ()


def test_work_waits_in_a_short_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_HERE", 2)
    waiting: list[int] = []
    plain = hashing.ThreadPoolExecutor.submit

    def submit(pool: object, *work: object) -> object:
        waiting.append(pool._work_queue.qsize())  # type: ignore[attr-defined]
        return plain(pool, *work)  # type: ignore[arg-type]

    monkeypatch.setattr(hashing.ThreadPoolExecutor, "submit", submit)
    source = Memory({b"%04d.png" % n: png(n) for n in range(200)})
    read = source.read
    monkeypatch.setattr(source, "read", lambda path: (time.sleep(0.001), read(path))[1])
    assert len(scan_source(source, None, workers=3)) == 200
    assert len(waiting) == 100
    assert max(waiting) <= 6


def test_progress_counts_every_file(source: Memory, tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    class Counting:
        def bar(self, label: str, total: int | None, unit: str = "images", *, brief: bool = False) -> object:
            class Bar:
                def update(self, count: int = 1) -> None:
                    seen[label] = seen.get(label, 0) + count

                def note(self, text: str) -> None:
                    pass

                def __enter__(self) -> Bar:
                    return self

                def __exit__(self, *error: object) -> None:
                    pass

            return Bar()

    scan_source(source, tmp_path, progress=Counting())  # type: ignore[arg-type]
    assert seen == {"scan": 100, "hash": 100}


def test_archives_are_trusted_while_they_are_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bottleneck.inventory.scan._SETTLED_NS", -(10**9))
    path = zipped(tmp_path / "a.zip", {"cats/1.png": 1, "dogs/2.png": 2})
    first = scan_source(open_source(path), tmp_path / "scans")
    monkeypatch.setattr("bottleneck.sources.archive.ZipSource.read", lambda self, path: 1 / 0)
    assert scan_source(open_source(path), tmp_path / "scans").table.equals(first.table)


@pytest.mark.fault(58)
def test_duplicates_labels_and_straddling() -> None:
    class Labelled(Memory):
        def entries(self) -> Iterator[Entry]:
            for path, label, split in (
                (b"a", "cat", "train"),
                (b"b", "dog", "test"),
                (b"c", "cat", None),
                (b"d", "dog", "test"),
                (b"e", None, None),
            ):
                yield Entry(path, (1, 1, 1, 1, 1), label, None, split, named=True)  # type: ignore[arg-type]

    same, other, third = png(1), png(2), png(3)
    found = duplicates(
        scan_source(Labelled({b"a": same, b"b": same, b"c": other, b"d": third, b"e": other}), None)
    )
    assert (found.unique, found.copies) == (3, 2)
    assert [(c.values, c.paths) for c in found.two_labels] == [(("cat", "dog"), (b"a", b"b"))]
    assert [(c.values, c.content) for c in found.straddling] == [
        (("test", "train"), hashlib.sha256(same).digest())
    ]
