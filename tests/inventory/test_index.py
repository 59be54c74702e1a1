"""The scan index: what is read again, and what is not."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bottleneck.inventory.scan import index_file, scan_source
from bottleneck.schema import Entry
from bottleneck.sources import open_source
from tests.inventory.memory_source import OLD, Memory, contents
from tests.sources.tiny_files import png, tree


@pytest.fixture
def source() -> Memory:
    return Memory({b"%03d.png" % number: png(number) for number in range(100)})


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
