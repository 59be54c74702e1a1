"""Zip and tar: read in place, at random, from threads, within bounds."""

from __future__ import annotations

import os
import shutil
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import pytest

from bottleneck.errors import Rejected, SourceError
from bottleneck.sources import open_source
from bottleneck.sources.archive import TarSource
from tests.sources.tiny_files import labels, png, tarred, zipped

CLASSES = {"cats/1.png": 1, "dogs/deep/2.png": 2}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_zip_members_by_method(tmp_path: Path, method: int) -> None:
    source = open_source(zipped(tmp_path / "a.ZIP", CLASSES, method))
    assert labels(source) == {b"cats/1.png": ("cats", None), b"dogs/deep/2.png": ("dogs", None)}
    assert source.read(b"dogs/deep/2.png") == png(2)


def test_a_zip_method_that_is_not_read_is_a_rejection(tmp_path: Path) -> None:
    source = open_source(zipped(tmp_path / "a.zip", CLASSES, zipfile.ZIP_LZMA))
    with pytest.raises(Rejected, match="method 14 is not read here; pack with deflate"):
        source.read(b"cats/1.png")


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_archives_have_the_layouts_of_folders(tmp_path: Path, pack: object) -> None:
    def packed(files: dict[str, int]) -> dict[bytes, tuple[str | None, str | None]]:
        name = "a.zip" if pack is zipped else "a.tar"
        return labels(open_source(pack(tmp_path / name, files)))  # type: ignore[operator]

    assert packed({"train/cats/1.png": 1, "val/cats/2.png": 2}) == {
        b"train/cats/1.png": ("cats", "train"),
        b"val/cats/2.png": ("cats", "validation"),
    }
    assert packed({"1.png": 1}) == {b"1.png": (None, None)}
    assert packed({"./cats/1.png": 1, "stray.png": 2})[b"cats/1.png"] == ("cats", None)
    assert packed({"photos/cats/1.png": 1, "photos/dogs/2.png": 2, "README": 3, "photos/LICENSE": 4}) == {
        b"photos/cats/1.png": ("cats", None),
        b"photos/dogs/2.png": ("dogs", None),
        b"README": (None, None),
        b"photos/LICENSE": (None, None),
    }
    assert packed({"cats/deep/1.png": 1, "cats/2.png": 2}) == {
        b"cats/deep/1.png": ("cats", None),
        b"cats/2.png": ("cats", None),
    }
    assert packed({"data/set/train/cats/1.png": 1, "data/set/test/cats/2.png": 2}) == {
        b"data/set/train/cats/1.png": ("cats", "train"),
        b"data/set/test/cats/2.png": ("cats", "test"),
    }
    assert packed({"cats/1.png": 1}) == {b"cats/1.png": ("cats", None)}


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_macosx_and_system_members_are_counted(tmp_path: Path, pack: object) -> None:
    files = {**CLASSES, "__MACOSX/cats/._1.png": 9, "cats/.DS_Store": b"x", ".git/x": b"x"}
    source = open_source(pack(tmp_path / ("a.zip" if pack is zipped else "a.tar"), files))  # type: ignore[operator]
    assert set(labels(source)) == {b"cats/1.png", b"dogs/deep/2.png"}
    assert source.passed_over() == {"in a __MACOSX folder": 1, "system file": 1, "in a hidden folder": 1}


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", CLASSES)
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[directory + 8] |= 1  # the flag of an encrypted member
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"1 of 2 members are encrypted, cats/1\.png among them; unpack it"):
        open_source(path)


def test_the_last_of_duplicate_members_wins(tmp_path: Path) -> None:
    for source in (
        open_source(tarred(tmp_path / "a.tar", [("cats/1.png", 1), ("dogs/2.png", 2), ("./cats/1.png", 3)])),
        open_source(_zip_with_duplicates(tmp_path / "a.zip")),
    ):
        assert set(labels(source)) == {b"cats/1.png", b"dogs/2.png"}
        assert source.read(b"cats/1.png") == png(3)
        assert source.passed_over() == {"older member of the same name": 1}


def _zip_with_duplicates(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in (("cats/1.png", 1), ("dogs/2.png", 2), ("cats/1.png", 3)):
            archive.writestr(name, png(value))
    return path


def test_members_that_lead_out_links_and_devices_are_counted(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("cats/link.png", tarfile.SYMTYPE), ("cats/pipe", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        for name in ("../out/1.png", "cats/2.png"):
            archive.addfile(tarfile.TarInfo(name))
    source = open_source(tmp_path / "a.tar")
    assert set(labels(source)) == {b"cats/2.png"}
    assert source.passed_over() == {
        "link in an archive": 1,
        "FIFO, device or sparse file in an archive": 1,
        "member that leads out of the archive": 1,
    }


def test_a_damaged_zip_member_is_a_rejection_and_the_rest_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", CLASSES, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 2] ^= 1
    path.write_bytes(data)
    source = open_source(path)
    with pytest.raises(Rejected, match="damaged in the zip"):
        source.read(b"cats/1.png")
    assert source.read(b"dogs/deep/2.png") == png(2)


def test_a_member_that_unpacks_to_more_than_it_declares_is_a_rejection(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"cats/1.png": b"\0" * 50_000_000, "dogs/2.png": 2})
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = struct.pack("<I", 100)
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(Rejected, match="damaged in the zip"):
        open_source(path).read(b"cats/1.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
    data[directory + 24 : directory + 28] = struct.pack("<I", (1 << 30) + 1)
    path.write_bytes(data)
    with pytest.raises(Rejected, match="more than the limit"):
        open_source(path).read(b"cats/1.png")


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_archives_that_are_none_or_cut_off(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    whole = (zipped if name == "a.zip" else tarred)(
        path, {f"cats/{i}.png": os.urandom(5000) for i in range(9)}
    )
    data = whole.read_bytes()
    for damaged in (b"", b"no archive at all" * 100, data[: len(data) // 2], data[:30_000]):
        if name == "a.tar" and not damaged:
            continue  # an empty tar file is an empty tar to tarfile's reader
        path.write_bytes(damaged)
        with pytest.raises(SourceError, match=r"no sound|cut off"):
            open_source(path)


@pytest.mark.parametrize(
    ("suffix", "mode"), [(".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar.xz", "w:xz"), (".tar", "w:bz2")]
)
def test_a_compressed_tar_is_refused_with_what_to_do(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tarred(tmp_path / f"a{suffix}", CLASSES, mode)
    with pytest.raises(SourceError, match=r"compressed tar .*decompress it first"):
        open_source(path)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    found = labels(open_source(tarred(tmp_path / "a.tar", {"caf\udce9/1\n.png": 1, "dogs/2.png": 2})))
    assert found[b"caf\xe9/1\n.png"] == ("caf\\xe9", None)
    path = zipped(tmp_path / "a.zip", {"cafX/1.png": 1, "日本/2.png": 2})
    path.write_bytes(path.read_bytes().replace(b"cafX", b"caf\xe9"))
    source = open_source(path)
    assert set(labels(source)) == {b"caf\xe9/1.png", "日本/2.png".encode()}
    assert source.read(b"caf\xe9/1.png") == png(1)


def test_webdataset_labels_from_cls_and_json(tmp_path: Path) -> None:
    source = open_source(
        tarred(
            tmp_path / "a.tar",
            {
                "0001.jpg": 1,
                "0001.cls": b"7\n",
                "0002.seg.png": 2,
                "0002.cls": b"a, b",
                "a/0003.v1.png": 3,
                "a/0003.v1.json": b'{"label": 12, "group": "p", "split": "val"}',
                "0004.png": 4,
                "0004.json": b'{"class": "cat", "caption": "x"}',
                "0005.png": 5,
                "0005.json": b'{"caption": "x"}',
                "0006.png": 6,
            },
        )
    )
    assert labels(source) == {
        b"0001.jpg": ("7", None),
        b"0002.seg.png": ("a, b", None),
        b"a/0003.v1.png": ("12", "validation"),
        b"0004.png": ("cat", None),
        b"0005.png": (None, None),
        b"0006.png": (None, None),
    }
    assert {e.path: e.group for e in source.entries()}[b"a/0003.v1.png"] == "p"
    assert source.passed_over() == {"label file of WebDataset": 5}


@pytest.mark.parametrize(
    ("suffix", "data", "expected"),
    [
        ("cls", b" \n", "is empty"),
        ("cls", b"\xff", "no UTF-8"),
        ("json", b"{", "no JSON"),
        ("json", b"[1]", "JSON object, not list"),
        ("json", b'{"label": 1.5}', "the label in 1.json is 1.5"),
        ("json", b'{"label": true}', "expected text or a whole number"),
        ("json", b'{"label": "a\\ud800"}', "the label in 1.json is .*surrogates"),
        ("json", b'{"label": "a", "group": "\\udfff"}', "the group in 1.json is .*surrogates"),
        ("json", b'{"label": "a", "split": "tets"}', "the split in 1.json is 'tets'"),
    ],
)
def test_webdataset_labels_that_cannot_be(tmp_path: Path, suffix: str, data: bytes, expected: str) -> None:
    source = open_source(tarred(tmp_path / "a.tar", {"1.png": 1, f"1.{suffix}": data}))
    with pytest.raises(SourceError, match=expected):
        list(source.entries())


def test_json_about_a_class_does_not_make_a_webdataset(tmp_path: Path) -> None:
    found = labels(open_source(tarred(tmp_path / "a.tar", {**CLASSES, "cats/about.json": b"{}"})))
    assert found[b"cats/1.png"] == ("cats", None)


def test_a_tar_that_was_touched_has_new_signatures(tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", CLASSES)
    source = open_source(path)
    before = sorted(source.entries())
    data = path.read_bytes().replace(png(1), png(9))
    path.write_bytes(data)
    os.utime(path, ns=(0, 5))
    after = sorted(source.entries())
    assert [e.path for e in before] == [e.path for e in after]
    assert all(a.signature != b.signature for a, b in zip(after, before, strict=True))
    assert source.read(b"cats/1.png") == png(9)


def test_zip_signatures_follow_the_archive(tmp_path: Path) -> None:
    """A CRC can be made to order: a member is known by the file that holds it, too."""
    path = zipped(tmp_path / "a.zip", CLASSES)
    source = open_source(path)
    before, status = sorted(source.entries()), os.stat(path)
    assert sorted(source.entries()) == before
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = sorted(source.entries())
    assert [(e.path, e.signature[0]) for e in after] == [(e.path, e.signature[0]) for e in before]
    assert all(a.signature != b.signature for a, b in zip(after, before, strict=True))
    before = after
    os.replace(shutil.copy2(path, tmp_path / "b.zip"), path)
    assert all(a.signature != b.signature for a, b in zip(sorted(source.entries()), before, strict=True))


def test_members_of_one_archive_differ_by_checksum_and_place(tmp_path: Path) -> None:
    entries = list(open_source(zipped(tmp_path / "a.zip", {"a/1": b"one", "a/2": b"two"})).entries())
    one, two = (entry.signature for entry in entries)
    assert one[3] != two[3]
    assert one[4] ^ two[4] == zlib.crc32(b"one") ^ zlib.crc32(b"two")
    assert one[4] < 0 > two[4]


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    path = str(tarred(tmp_path / "a.tar", CLASSES))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        source = TarSource.open(path)
        source.read(b"cats/1.png")
        del source
    assert len(os.listdir("/proc/self/fd")) == before
