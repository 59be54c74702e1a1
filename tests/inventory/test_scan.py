"""The scan: contents, the index that saves reading, and everything that must not upset it."""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bottleneck.errors import Rejected
from bottleneck.inventory import hashing
from bottleneck.inventory.duplicates import duplicates
from bottleneck.inventory.index import index_file
from bottleneck.inventory.scan import scan_source
from bottleneck.schema import Entry, Inventory
from bottleneck.sources import open_source
from tests.sources.tiny_files import png, tree, zipped

OLD = 10**18  # a time long ago, in ns


class Memory:
    """A source of files in memory that counts what is read."""

    location = "/memory"

    def __init__(self, files: Mapping[bytes, bytes], modified: int = OLD, changed: int = OLD) -> None:
        self.files = dict(files)
        self.read_paths: list[bytes] = []
        self.modified, self.changed = modified, changed
        self.failing: dict[bytes, Exception] = {}
        self.sizes: dict[bytes, int] = {}
        self.named: set[bytes] = set()
        self.origin = 1

    def entries(self) -> Iterator[Entry]:
        for path, data in reversed(self.files.items()):
            size = self.sizes.get(path, len(data))
            # A kernel gives one change time after the other.
            changed = self.changed if self.changed != OLD else OLD + zlib.crc32(path)
            yield Entry(
                path, (size, self.modified, changed, 7, self.origin), "label", named=path in self.named
            )

    def read(self, path: bytes) -> bytes:
        self.read_paths.append(path)
        if path in self.failing:
            raise self.failing[path]
        return self.files[path]

    def passed_over(self) -> Mapping[str, int]:
        return {"FIFO, socket or device": 1}


def contents(inventory: Inventory) -> dict[bytes, bytes]:
    return {record.path: record.content for record in inventory}


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


def test_a_second_scan_reads_nothing_and_gives_the_same(source: Memory, tmp_path: Path) -> None:
    first = scan_source(source, tmp_path / "scans")
    assert sorted(source.read_paths) == sorted(source.files)
    source.read_paths.clear()
    file = index_file(tmp_path / "scans", "/memory")
    before = file.stat().st_ino
    second = scan_source(source, tmp_path / "scans")
    assert source.read_paths == []
    assert file.stat().st_ino == before, "an index that says it all already is not written again"
    assert second.table.equals(first.table)


def test_only_what_changed_is_read(source: Memory, tmp_path: Path) -> None:
    scan_source(source, tmp_path)
    source.read_paths.clear()
    source.files[b"new.png"] = png(1000)
    source.files[b"005.png"] = png(1001) + b" longer"
    del source.files[b"006.png"]
    inventory = scan_source(source, tmp_path)
    assert sorted(source.read_paths) == [b"005.png", b"new.png"]
    assert contents(inventory) == {p: hashlib.sha256(d).digest() for p, d in source.files.items()}
    source.read_paths.clear()
    scan_source(source, tmp_path)
    assert source.read_paths == []


@pytest.mark.parametrize("field", range(5))
def test_each_number_of_the_signature_counts(tmp_path: Path, field: int) -> None:
    class Signed(Memory):
        signature = (3, OLD, OLD, 7, 9)

        def entries(self) -> Iterator[Entry]:
            yield Entry(b"1.png", self.signature)  # type: ignore[arg-type]

    source = Signed({b"1.png": png(1)})
    scan_source(source, tmp_path)
    source.signature = tuple(n + (at == field) for at, n in enumerate(source.signature))
    source.read_paths.clear()
    scan_source(source, tmp_path)
    assert source.read_paths == [b"1.png"]


def test_rehash_reads_everything(source: Memory, tmp_path: Path) -> None:
    scan_source(source, tmp_path)
    changed = png(7)[:-1] + b"!"
    source.files[b"007.png"] = changed  # same length, same times: only reading can tell
    assert contents(scan_source(source, tmp_path))[b"007.png"] == hashlib.sha256(png(7)).digest()
    inventory = scan_source(source, tmp_path, rehash=True)
    assert contents(inventory)[b"007.png"] == hashlib.sha256(changed).digest()
    assert contents(scan_source(source, tmp_path)) == contents(inventory)


@pytest.mark.parametrize("which", ["modified", "changed"])
def test_files_changed_just_now_are_not_trusted(tmp_path: Path, which: str) -> None:
    young = Memory({b"1.png": png(1)}, **{which: time.time_ns()})
    scan_source(young, tmp_path)
    young.read_paths.clear()
    scan_source(young, tmp_path)
    assert young.read_paths == [b"1.png"]


@pytest.mark.fault(56)
def test_a_real_file_edited_with_its_time_put_back_is_read_again(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", {"cats/1.png": 1, "dogs/2.png": 2})
    time.sleep(2.1)
    scan_source(open_source(root), tmp_path / "scans")
    status = os.stat(root / "cats/1.png")
    (root / "cats/1.png").write_bytes(png(3))
    os.utime(root / "cats/1.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    found = contents(scan_source(open_source(root), tmp_path / "scans"))
    assert found[b"cats/1.png"] == hashlib.sha256(png(3)).digest()


def test_the_index_is_one_plain_parquet_file_a_source(source: Memory, tmp_path: Path) -> None:
    scan_source(source, tmp_path)
    file = index_file(tmp_path, "/memory")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert file.stem == hashlib.sha256(b"/memory").hexdigest()[:16]
    table = pq.read_table(file)
    numbers = ["size", "mtime_ns", "ctime_ns", "inode", "origin"]
    assert table.column_names == ["path", *numbers, "sha256", "image"]
    assert table.column("path").to_pylist() == sorted(source.files)


def test_a_damaged_index_costs_reading_again_and_never_a_wrong_content(
    source: Memory, tmp_path: Path
) -> None:
    expected = contents(scan_source(source, tmp_path))
    file = index_file(tmp_path, "/memory")
    sound = file.read_bytes()
    damaged = [b"", b"PAR1", sound[: len(sound) // 2], b"x" * len(sound)]
    for at in range(0, len(sound), max(1, len(sound) // 150)):
        damaged.append(sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :])
    for data in damaged:
        file.write_bytes(data)
        assert contents(scan_source(source, tmp_path)) == expected
    source.read_paths.clear()
    assert contents(scan_source(source, tmp_path)) == expected
    assert source.read_paths == []


def test_an_index_of_another_version_is_rebuilt(source: Memory, tmp_path: Path) -> None:
    scan_source(source, tmp_path)
    file = index_file(tmp_path, "/memory")
    table = pq.read_table(file)
    before = table.drop_columns("origin").replace_schema_metadata({"bottleneck scan index": "1"})
    for other in (table.replace_schema_metadata({"bottleneck scan index": "0"}), before):
        pq.write_table(other, file)
        source.read_paths.clear()
        scan_source(source, tmp_path)
        assert len(source.read_paths) == len(source.files)
        assert pq.read_metadata(file).metadata[b"bottleneck scan index"] == b"2"


def test_a_cache_that_cannot_be_written_is_no_error(source: Memory, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert len(scan_source(source, tmp_path / "file")) == len(source.files)
    assert len(scan_source(source, tmp_path / "file" / "scans")) == len(source.files)


def test_large_indexes_are_matched_group_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bottleneck.inventory import index

    monkeypatch.setattr(index, "_GROUP", 7)
    source = Memory({b"%03d.png" % (number * 2): png(number) for number in range(100)})
    scan_source(source, tmp_path)
    assert pq.ParquetFile(index_file(tmp_path, "/memory")).num_row_groups == 15
    for number in range(0, 200, 5):
        source.files[b"%03d.png" % number] = png(number + 500) + b"changed"
    del source.files[b"012.png"]
    source.read_paths.clear()
    assert contents(scan_source(source, tmp_path)) == {
        p: hashlib.sha256(d).digest() for p, d in source.files.items()
    }
    assert len(source.read_paths) == 40


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
