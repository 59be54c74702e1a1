"""Which signatures the scan index believes: whatever could stand for other bytes is read again."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.contracts import Source
from bottleneck.inventory.scan import scan_source, trusted
from bottleneck.schema import Inventory
from bottleneck.sources import open_source, volumes
from tests.sources.tiny_files import png, tree

NOW = 2 * 10**18
OLD = 10**18


def contents(inventory: Inventory) -> dict[bytes, bytes]:
    return {record.path: record.content for record in inventory}


def believed(rows: list[tuple[int, int, int]]) -> list[bool]:
    """Of (mtime, ctime, origin)."""
    modified, changed, origins = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    nothing = np.zeros(len(rows), np.int64)
    return [bool(one) for one in trusted((nothing, modified, changed, nothing, origins), NOW)]


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files made a moment ago count as old."""
    monkeypatch.setattr("bottleneck.inventory.scan._SETTLED_NS", -(10**9))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Paths that folders were asked to read."""
    from bottleneck.sources.folder import FolderSource

    found: list[bytes] = []
    read = FolderSource.read

    def counted(source: Source, path: bytes) -> bytes:
        found.append(path)
        return read(source, path)  # type: ignore[arg-type]

    monkeypatch.setattr(FolderSource, "read", counted)
    return found


@given(st.lists(st.tuples(st.integers(OLD, OLD + 9), st.sampled_from([-3, -2, 0, 1, 2])), max_size=20))
def test_a_time_that_most_files_of_a_file_system_share_is_no_sign(rows: list[tuple[int, int]]) -> None:
    if not rows:
        return
    found = believed([(OLD, changed, origin) for changed, origin in rows])
    for (changed, origin), belief in zip(rows, found, strict=True):
        others = [time for time, place in rows if place == origin]
        shared = origin > 0 and len(others) > 1 and 2 * others.count(changed) > len(others)
        assert belief == (origin != 0 and not shared)


@given(st.lists(st.integers(0, 10**9), min_size=2, unique=True), st.sampled_from([-1, 1]))
def test_times_of_a_kernel_are_believed_once_they_are_old(times: list[int], origin: int) -> None:
    assert all(believed([(OLD, OLD + time, origin) for time in times]))
    assert not any(believed([(NOW - 10**9, OLD + time, origin) for time in times]))
    assert not any(believed([(OLD, NOW - time, origin) for time in times]))
    assert not any(believed([(OLD, OLD + time, 0) for time in times]))


@pytest.mark.usefixtures("settled")
def test_files_of_equal_modification_time_are_known_by_their_change_time(
    tmp_path: Path, reads: list[bytes]
) -> None:
    """An unpacked archive with normalised times: the kernel's own time still tells."""
    root = tmp_path / "images"
    for number in range(4):
        tree(root, {f"cats/{number}.png": number})
        os.utime(root / f"cats/{number}.png", ns=(10**18, 10**18))
        while (status := os.stat(root / f"cats/{number}.png")).st_ctime_ns == os.stat(root).st_ctime_ns:
            os.utime(root / f"cats/{number}.png", ns=(10**18, status.st_mtime_ns))
        (root / f"tick{number}").mkdir()
    first = contents(scan_source(open_source(root), tmp_path / "scans"))
    reads.clear()
    scan_source(open_source(root), tmp_path / "scans")
    kept = len(reads)
    (root / "cats/1.png").write_bytes(png(8))
    os.utime(root / "cats/1.png", ns=(10**18, 10**18))
    again = contents(scan_source(open_source(root), tmp_path / "scans"))
    assert again == first | {b"cats/1.png": hashlib.sha256(png(8)).digest()}
    assert kept == 0


@pytest.mark.usefixtures("settled")
def test_a_time_of_zero_is_no_time(tmp_path: Path, reads: list[bytes]) -> None:
    root = tree(tmp_path / "images", {"cats/1.png": 1})
    scan_source(open_source(root), tmp_path / "scans")
    reads.clear()
    scan_source(open_source(root), tmp_path / "scans")
    assert reads == []
    os.utime(root / "cats/1.png", ns=(0, 0))
    for _ in range(2):
        scan_source(open_source(root), tmp_path / "scans")
    assert reads == [b"cats/1.png"] * 2


@pytest.mark.usefixtures("settled")
def test_another_file_system_at_the_same_path_is_read(
    tmp_path: Path, reads: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Path, size, times and inode of every file are those of before: a mount of another image."""
    root = tree(tmp_path / "images", {"cats/1.png": 1})
    plain = volumes.volume_identity
    for asked in ("device", "own", "mount"):
        scan_source(open_source(root), tmp_path / "scans")
        reads.clear()
        scan_source(open_source(root), tmp_path / "scans")
        assert reads == [], asked
        if asked == "device":
            monkeypatch.setattr(volumes, "volume_identity", lambda path, device: plain(path, device + 1))
        elif asked == "own":
            monkeypatch.setattr(volumes, "_own_identity", lambda path: 7)
        else:
            monkeypatch.setattr(volumes, "_kind", lambda path: 0x73717368)
            monkeypatch.setattr(volumes, "_mount", lambda path: 11)
        scan_source(open_source(root), tmp_path / "scans")
        assert reads == [b"cats/1.png"], asked
    monkeypatch.setattr(volumes, "_mount", lambda path: 12)
    reads.clear()
    for _ in range(2):
        scan_source(open_source(root), tmp_path / "scans")
    assert reads == [b"cats/1.png"]
    monkeypatch.setattr(
        volumes, "_mount", lambda path: None
    )  # a kernel that does not number its mounts for good
    reads.clear()
    for _ in range(2):
        scan_source(open_source(root), tmp_path / "scans")
    assert reads == [b"cats/1.png"] * 2


def test_the_root_has_a_number_that_stays() -> None:
    device = os.stat("/").st_dev
    assert volumes.volume_identity("/", device) == volumes.volume_identity(b"/", device)
    assert volumes.volume_identity("/", device) != volumes.volume_identity("/", device + 1)
    met = volumes.Volumes()
    assert met.number_of("/nowhere at all", device) == volumes.NOWHERE
    assert met.number_of("/", device) == volumes.volume_identity(
        "/", device
    )  # one that is gone says nothing of the others


def _forged(data: bytes, crc: int) -> bytes:
    """`data` with its last four bytes such that its CRC-32 is `crc`."""
    table = [zlib.crc32(bytes([n ^ 0xFF])) ^ 0xFFFFFFFF for n in range(256)]
    table = [entry ^ (0xFFFFFFFF >> 8) for entry in table]
    by_top = {entry >> 24: number for number, entry in enumerate(table)}
    state = crc ^ 0xFFFFFFFF
    for _ in range(4):
        number = by_top[state >> 24]
        state = ((state ^ table[number]) << 8) & 0xFFFFFFFF | number
    start = zlib.crc32(data[:-4]) ^ 0xFFFFFFFF
    return data[:-4] + (state ^ start).to_bytes(4, "little")


@pytest.mark.usefixtures("settled")
def test_a_member_of_the_same_size_and_checksum_is_another_image(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    one, two = png(1) + b"    ", _forged(png(2) + b"    ", zlib.crc32(png(1) + b"    "))
    assert (len(one), zlib.crc32(one)) == (len(two), zlib.crc32(two))

    def pack(data: bytes) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(zipfile.ZipInfo("cats/1.png"), data)

    pack(one)
    status = os.stat(path)
    assert (
        contents(scan_source(open_source(path), tmp_path / "scans"))[b"cats/1.png"]
        == hashlib.sha256(one).digest()
    )
    pack(two)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert os.stat(path).st_size == status.st_size
    assert (
        contents(scan_source(open_source(path), tmp_path / "scans"))[b"cats/1.png"]
        == hashlib.sha256(two).digest()
    )
