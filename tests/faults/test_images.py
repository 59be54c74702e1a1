"""Images that go, change, lie or attack: rows 54 to 72. Much of it is tested where it lives, and marked there."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import shutil
import socket
import stat
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import bottleneck
from bottleneck.bases import digest_cache
from bottleneck.errors import TooManyBadImages
from bottleneck.extraction.report import Extraction
from bottleneck.extraction.worker.channel import WorkerChannel
from bottleneck.schema import Cache
from tests.fakes import SIZE, base, rows_by_hand, write_images
from tests.faults import bad_bases
from tests.faults.plugin import regime
from tests.faults.reference_stores import FAKE, check_served, python, shards_of
from tests.in_process import Call

Note = Callable[[str], None]

MEDDLING = "tests.faults.bad_bases:meddling"


def adds_up(done: Extraction) -> Extraction:
    assert done.images == done.computed + done.reused + done.duplicates + done.rejected
    assert done.rows == done.computed + done.reused
    return done


def bitmap(seed: int, size: tuple[int, int] = (11, 9)) -> bytes:
    """An image whose file has the same length whatever it shows."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "BMP")
    return buffer.getvalue()


def row_of(data: bytes) -> np.ndarray:
    """The reference row of an image file's bytes."""
    forward = base()
    batch = np.zeros((forward.batch, SIZE, SIZE, 3), np.float32)
    batch[0] = forward.decode(data)
    return forward.features(batch)[0]


# --------------------------------------------------------------------------------- 54, 55: while a run goes on


@pytest.mark.fault(54)
@pytest.mark.parametrize("what", ["files", "folder"])
def test_images_deleted_while_a_run_goes_on(
    tmp_path: Path, cache: Cache, worker_here: None, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    source = write_images(tmp_path / "in", {"a": 40, "z": 20})
    # The decoder reads a few ahead; the last class is out of its reach when this happens.
    victims = sorted((source / "z").iterdir())

    def delete() -> None:
        if what == "folder":
            shutil.rmtree(source / "z")
        else:
            for path in victims[5:]:
                path.unlink()

    monkeypatch.setattr(bad_bases, "meddle", delete)
    done = adds_up(bottleneck.extract(source, MEDDLING, cache=cache.root, max_bad=1.0))
    left = len(rows_by_hand(source))
    assert left == (40 if what == "folder" else 45)
    assert done.computed == left
    assert all("vanished" in why.reason for why in done.rejections)
    assert check_served(source, cache.root) == left
    again = bottleneck.extract(source, FAKE, cache=cache.root)
    assert (again.computed, again.rejected) == (0, 0)


@pytest.mark.fault(55)
def test_images_replaced_while_a_run_goes_on(
    tmp_path: Path, cache: Cache, worker_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same length, same time stamp: each row is of exactly one of the two contents, and its key says which."""
    (tmp_path / "in" / "x").mkdir(parents=True)
    paths = [tmp_path / "in" / "x" / f"{n:02d}.bmp" for n in range(50)]
    contents = {n: (bitmap(n), bitmap(n + 1000)) for n in range(50)}
    for n, path in enumerate(paths):
        path.write_bytes(contents[n][0])
        os.utime(path, ns=(10**18, 10**18))

    def replace() -> None:
        for n, path in enumerate(paths):
            path.write_bytes(contents[n][1])
            os.utime(path, ns=(10**18, 10**18))

    monkeypatch.setattr(bad_bases, "meddle", replace)
    reference = {hashlib.sha256(data).digest(): row_of(data) for both in contents.values() for data in both}
    done = adds_up(bottleneck.extract(tmp_path / "in", MEDDLING, cache=cache.root, max_bad=1.0))
    assert done.rows + done.rejected == 50
    store_rows = 0
    for serving in range(2):
        found = bottleneck.features(tmp_path / "in", FAKE, cache=cache.root)
        for path, key, row in zip(found.paths, found.keys, np.asarray(found.X), strict=True):
            np.testing.assert_array_equal(row, reference[key.tobytes()])
            # As scanned now, the second content is the only one.
            assert key.tobytes() == hashlib.sha256(contents[int(path[2:4])][1]).digest(), serving
        store_rows = len(found)
    assert store_rows == 50


@pytest.mark.fault(55)
def test_an_image_that_keeps_changing_is_left_for_the_next_run(
    tmp_path: Path, cache: Cache, worker_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bottleneck.sources.folder import FolderSource

    source = write_images(tmp_path / "in", {"a": 6})
    victim, plain, count = source / "a" / "003.png", FolderSource.read, iter(range(10**6))

    def read(self: FolderSource, path: bytes) -> bytes:
        data = plain(self, path)
        if path == b"a/003.png":
            victim.write_bytes(bitmap(next(count)))
        return data

    with monkeypatch.context() as patch:
        patch.setattr(FolderSource, "read", read)
        done = adds_up(bottleneck.extract(source, FAKE, cache=cache.root))
    assert (done.computed, done.rejected) == (5, 1)
    assert "changing" in done.rejections[0].reason and done.rejections[0].retry
    done = bottleneck.extract(source, FAKE, cache=cache.root)
    assert (done.computed, done.rejected) == (1, 0)
    assert check_served(source, cache.root) == 6


# --------------------------------------------------------------------- 56, 57, 58: between one run and another


@pytest.mark.fault(56)
def test_edits_between_runs_that_leave_every_time_stamp(
    tmp_path: Path, cache: Cache, worker_here: None
) -> None:
    """Length and modification time as before; what the system itself notes of the change is enough."""
    source = write_images(tmp_path / "in", {"a": 12})
    (source / "a" / "000.png").write_bytes(bitmap(1))
    time.sleep(2.1)  # so that the index trusts what it has seen
    bottleneck.extract(source, FAKE, cache=cache.root)
    victim = source / "a" / "000.png"
    state = victim.stat()
    data = bytearray(victim.read_bytes())
    data[-3] ^= 0xFF
    victim.write_bytes(data)
    os.utime(victim, ns=(state.st_atime_ns, state.st_mtime_ns))
    done = bottleneck.extract(source, FAKE, cache=cache.root)
    assert (done.computed, done.reused) == (1, 11)
    assert check_served(source, cache.root) == 12


@pytest.mark.fault(57, 58)
def test_renames_and_copies_cost_nothing_and_labels_follow(
    tmp_path: Path, cache: Cache, worker_here: None
) -> None:
    source = write_images(tmp_path / "in", {"cat": 8, "dog": 8})
    bottleneck.extract(source, FAKE, cache=cache.root)
    (source / "cat").rename(source / "lynx")
    for n in range(4):
        shutil.copy(source / "dog" / f"00{n}.png", source / "lynx" / f"dog{n}.png")
    done = adds_up(bottleneck.extract(source, FAKE, cache=cache.root))
    assert (done.computed, done.reused, done.duplicates) == (0, 16, 4)
    found = bottleneck.features(source, FAKE, cache=cache.root)
    assert [str(label) for label in found.y] == [path.split(b"/")[0].decode() for path in found.paths]
    assert (found.y == "lynx").sum() == 12
    assert check_served(source, cache.root) == 20


# --------------------------------------------------------------------- 59 to 64: folders and what lies in them


@pytest.mark.fault(59)
@pytest.mark.parametrize("layout", ["nothing", "an empty class", "empty splits", "a file of text"])
def test_a_tree_without_images_is_an_error_that_says_what_was_expected(
    tmp_path: Path, call: Call, layout: str
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in {"an empty class": ["cat"], "empty splits": ["train/cat", "val/cat"]}.get(layout, []):
        (source / name).mkdir(parents=True)
    if layout == "a file of text":
        (source / "readme.txt").write_text("nothing here")
    train, features = (
        ("train", source, "--run", tmp_path / "run"),
        ("features", source, "--out", tmp_path / "out"),
    )
    for command in (("extract", source), train, features):
        said = call(*command, "--base", FAKE, "--json")
        assert said.status == 1
        assert "no images were found" in said.json["error"] and "JPEG" in said.json["error"]
    assert not list(tmp_path.glob("[ro]*/*")), "nothing is in the run's folder, or the other one"


@pytest.mark.fault(59)
def test_one_image_is_a_source(tmp_path: Path, cache: Cache, worker_here: None) -> None:
    source = write_images(tmp_path / "in", {"cat": 1})
    (source / "dog").mkdir()
    assert bottleneck.extract(source, FAKE, cache=cache.root).computed == 1
    assert check_served(source, cache.root) == 1


@pytest.mark.fault(60)
def test_links_out_of_the_root_have_rows_and_loops_end(
    tmp_path: Path, cache: Cache, worker_here: None
) -> None:
    source = write_images(tmp_path / "in", {"cat": 5})
    outside = write_images(tmp_path / "out", {"dog": 4}, seed=1)
    (source / "dog").symlink_to(outside / "dog")
    (source / "again").symlink_to(outside / "dog")
    (source / "cat" / "one.png").symlink_to(outside / "dog" / "000.png")
    (source / "cat" / "up").symlink_to("../..")
    (source / "cat" / "here").symlink_to(".")
    (source / "a").symlink_to("b")
    (source / "b").symlink_to("a")
    (source / "gone.png").symlink_to("/nowhere/at/all.png")
    done = adds_up(bottleneck.extract(source, FAKE, cache=cache.root))
    assert (done.computed, done.duplicates, done.rejected) == (9, 1, 0)
    found = bottleneck.features(source, FAKE, cache=cache.root)
    for path, row in zip(found.paths, np.asarray(found.X), strict=True):
        np.testing.assert_array_equal(row, row_of((source / os.fsdecode(path)).read_bytes()))


@pytest.mark.fault(61)
def test_what_is_no_file_is_passed_over_without_waiting(
    tmp_path: Path, cache: Cache, worker_here: None
) -> None:
    source = write_images(tmp_path / "in", {"cat": 5})
    os.mkfifo(source / "cat" / "pipe.png")
    expected = 1
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{(fd := os.open(source / 'cat', os.O_RDONLY))}/socket.png")
        os.close(fd)
        expected += 1
        if os.geteuid() == 0:
            devices = {
                "endless": (stat.S_IFCHR, 1, 5),
                "random": (stat.S_IFCHR, 1, 8),
                "disk": (stat.S_IFBLK, 7, 0),
            }
            for name, (kind, *device) in devices.items():
                os.mknod(source / "cat" / f"{name}.png", kind | 0o600, os.makedev(*device))
                expected += 1
        started = time.monotonic()
        done = adds_up(bottleneck.extract(source, FAKE, cache=cache.root))
    assert time.monotonic() - started < 120, "it waited for a file without an end"
    assert (done.computed, done.rejected) == (5, 0)
    assert dict(done.ignored_why) == {"FIFO, socket or device": expected}
    for path in (source / "cat").iterdir():
        if not path.is_file():
            path.unlink()
    assert check_served(source, cache.root) == 5


NAMES = [
    b"new\nline", b"tab\t", b"return\r", b"-rf", b"x" * 251, "é".encode(), "e\u0301".encode(), b"not \xff utf-8",
    "\u202egnp.exe".encode(), "猫 עברית".encode(),
    b"back\\slash", b"%00", b"*?[a]", b"quo\"te'", b"a,b;c", b"$HOME `id`",
    b" space ", b"a..b", "\ufeffmark".encode(), b"\x01\x7f",
]  # fmt: skip


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A source of images under odd names, in a class folder of an odd name."""
    folder = os.fsencode(tmp_path / "in") + b"/cl\xe9 \n"
    os.makedirs(folder)
    for number, name in enumerate(NAMES):
        with open(folder + b"/" + name + b".png", "wb") as file:
            file.write(bitmap(number))
    return tmp_path / "in"


@pytest.mark.fault(63)
@pytest.mark.parametrize("kind", ["npy", "parquet", "h5"])
def test_names_of_any_bytes_go_through_and_come_back(
    odd: Path, tmp_path: Path, cache: Cache, worker_here: None, kind: Any
) -> None:
    found = bottleneck.features(odd, FAKE, cache=cache.root, out=tmp_path / "out", format=kind)
    expected = {b"cl\xe9 \n/" + name + b".png": number for number, name in enumerate(NAMES)}
    assert set(found.paths) == set(expected)
    for path, row in zip(found.paths, np.asarray(found.X), strict=True):
        np.testing.assert_array_equal(row, row_of(bitmap(expected[path])))
    if kind == "h5":
        with h5py.File(tmp_path / "out" / "features.h5") as file:
            written = [bytes(path) for path in file["path"][:]]
    else:
        name = "table.parquet" if kind == "npy" else "features.parquet"
        written = pq.read_table(tmp_path / "out" / name).column("path").to_pylist()
    assert written == list(found.paths)


@pytest.mark.fault(64)
def test_a_very_full_folder(tmp_path: Path, full: bool, note: Note) -> None:
    """What a scan of one folder takes does not grow with how full it is, beyond a line in a table for each file."""
    count = 100_000 if full else 4_000
    (tmp_path / "in" / "x").mkdir(parents=True)
    head = bitmap(0)[:54]
    for number in range(count):
        (tmp_path / "in" / "x" / f"{number:06d}.bmp").write_bytes(head + number.to_bytes(4, "little"))
    script = (
        "import resource, sys, time\nimport bottleneck\n"
        "bottleneck.scan(sys.argv[2], cache=sys.argv[3])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nstarted = time.perf_counter()\n"
        "found = bottleneck.scan(sys.argv[1], cache=sys.argv[3])\n"
        "print(len(found), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.perf_counter() - started)"
    )
    done = python(
        script, tmp_path / "in", write_images(tmp_path / "few", {"x": 3}), tmp_path / "cache", timeout=500
    )
    assert done.returncode == 0, done.stderr
    rows, kilobytes, seconds = done.stdout.split()
    assert int(rows) == count
    assert int(kilobytes) < 40_000 + count
    note(f"{count:,} files: {int(kilobytes) / 1024:.0f} MiB more, {float(seconds):.1f} s")


# -------------------------------------------------------------------------- 65 to 69: files that lie or attack


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: Iterator[bytes] | None = None) -> bytes:
    """A PNG whose pixels, when there are any, are packed a row at a time."""
    packer = zlib.compressobj(9)
    packed = b"".join(map(packer.compress, rows or ())) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def gif(width: int, height: int) -> bytes:
    """A GIF of one colour that unpacks to all of its pixels: clear codes and single pixels, over and over."""
    body = bytes.fromhex("4401") * 120_000
    parts = b"".join(
        bytes([len(part)]) + part for part in (body[n : n + 255] for n in range(0, len(body), 255))
    )
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return b"GIF89a" + screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2" + parts + b"\0;"


def jpeg_header(width: int, height: int) -> bytes:
    return b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes(9) + b"\xff\xd9"


BOMBS: dict[str, Callable[[], bytes]] = {
    "pixels.png": lambda: png(16384, 16384, (bytes(1 + 3 * 16384) for _ in range(16384))),
    "frame.gif": lambda: gif(65535, 10924),
    "header.jpg": lambda: jpeg_header(65000, 65000),
    "header.png": lambda: png(100_000, 100_000),
}


@pytest.mark.fault(67)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_from_its_header(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BOMBS[name]())
    script = (
        "import resource, sys, time\nfrom pathlib import Path\n"
        "from bottleneck.errors import Rejected\nfrom bottleneck.pixels.header import check_header\n"
        "data = Path(sys.argv[1]).read_bytes()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nstarted = time.process_time()\n"
        "try: check_header(data)\nexcept Rejected as why: print(why.stage, why.retry)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.process_time() - started)"
    )
    done = python(script, tmp_path / name)
    assert done.returncode == 0, done.stderr
    verdict, figures = done.stdout.splitlines()
    assert verdict == "header True"
    kilobytes, seconds = map(float, figures.split())
    assert kilobytes < 50 * 1024
    assert seconds < 0.1


@pytest.mark.fault(65)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_the_beginning_of_an_image_has_no_row(
    tmp_path: Path, cache: Cache, worker_here: None, kind: str
) -> None:
    source = write_images(tmp_path / "in", {"cat": 3})
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)).save(
        buffer, kind
    )
    whole = buffer.getvalue()
    for size in (0, 1, 2, 4, 8, 12, 20):
        (source / "cat" / f"{size}.jpg").write_bytes(whole[:size])
    done = adds_up(bottleneck.extract(source, FAKE, cache=cache.root, max_bad=1.0))
    assert (done.computed, done.rejected) == (3, 7)
    assert all(why.reason for why in done.rejections)
    assert check_served(source, cache.root) == 3


@pytest.mark.keras
@pytest.mark.fault(65, 66, 67, 68)
def test_the_real_decoder_among_liars(tmp_path: Path, cache: Cache, note: Note) -> None:
    """One extraction by a real base and decoder: bombs, stumps and wrong suffixes among sound images."""
    source = write_images(tmp_path / "in", {"cat": 4}, size=(48, 40))
    picture = Image.open(source / "cat" / "000.png")
    for kind, suffix in (("JPEG", "png"), ("PNG", "jpg"), ("GIF", "webp"), ("BMP", "jpg"), ("WEBP", "bmp")):
        buffer = io.BytesIO()
        picture.rotate(90 * len(kind)).save(buffer, kind)
        for right in (False, True):
            folder = source / ("right" if right else "wrong")
            folder.mkdir(exist_ok=True)
            # One byte behind the end, which no decoder minds, makes it another content.
            name = f"{kind}.{kind.lower() if right else suffix}"
            (folder / name).write_bytes(buffer.getvalue() + b"\0" * right)
    bad = {**{name: make() for name, make in BOMBS.items()}, "empty.jpg": b"", "one.jpg": b"\xff"}
    buffer = io.BytesIO()
    picture.resize((300, 200)).save(buffer, "JPEG", quality=95)
    whole = buffer.getvalue()
    bad |= {f"cut{n:02d}.jpg": whole[: len(whole) * n // 50] for n in range(1, 50)}
    (source / "bad").mkdir()
    for name, data in bad.items():
        (source / "bad" / name).write_bytes(data)
    options: dict[str, Any] = {"weights": "random:0", "size": 32, "cache": cache.root, "max_bad": 1.0}
    done = adds_up(bottleneck.extract(source, "squeezenet", **options))
    assert (done.computed, done.rejected) == (14, len(bad))
    assert {Path(why.path).name for why in done.rejections} == set(bad)
    found = bottleneck.features(source, "squeezenet", **options)
    rows = dict(zip(found.paths, np.asarray(found.X), strict=True))
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"):
        (wrong,) = [row for path, row in rows.items() if path.startswith(f"wrong/{kind}.".encode())]
        np.testing.assert_array_equal(wrong, rows[f"right/{kind}.{kind.lower()}".encode()])
    note(f"{len(bad)} rejected, 5 wrong suffixes read by their content")


# ---------------------------------------------------------------------------------------- 70, 71, 72: bad ones


WORDS, PLACES = ("ABORT", "KILLED", "HANGS"), (0, 17, 35)
SOME = itertools.product(WORDS, PLACES) if regime() == "full" else zip(WORDS, PLACES, strict=True)


@pytest.mark.fault(70)
@pytest.mark.parametrize(("word", "place"), list(SOME))
def test_an_image_that_ends_or_hangs_its_decoder_costs_itself(
    tmp_path: Path, cache: Cache, word: str, place: int
) -> None:
    source = write_images(tmp_path / "in", {"a": 36})
    victim = source / "a" / f"{place:03d}.png"
    with victim.open("ab") as file:
        file.write(word.encode())
    done = adds_up(bottleneck.extract(source, FAKE, cache=cache.root, deadline=4, max_bad=0.5))
    assert (done.computed, done.rejected) == (35, 1)
    assert done.rejections[0].path == f"a/{place:03d}.png"
    assert done.rejections[0].retry
    victim.unlink()
    assert check_served(source, cache.root) == 35


@pytest.mark.fault(70)
def test_several_such_images_cost_themselves(tmp_path: Path, cache: Cache) -> None:
    source = write_images(tmp_path / "in", {"a": 30})
    for place, word in ((3, b"ABORT"), (4, b"KILLED"), (20, b"ABORT")):
        with (source / "a" / f"{place:03d}.png").open("ab") as file:
            file.write(word)
    done = adds_up(bottleneck.extract(source, FAKE, cache=cache.root, deadline=30, max_bad=0.5))
    assert (done.computed, done.rejected) == (27, 3)
    assert sorted(why.path for why in done.rejections) == ["a/003.png", "a/004.png", "a/020.png"]


@pytest.mark.fault(70)
def test_a_folder_of_such_images_costs_its_second_run_nothing(
    tmp_path: Path, cache: Cache, full: bool, note: Note
) -> None:
    """42 of them, of every kind that has to be given up, among sound ones; one of each in a sample."""
    each = 14 if full else 1
    words = ("ABORT", "KILLED", "HANGS")
    source = write_images(tmp_path / "in", {"a": 40})
    bad = [(word, number) for number in range(each) for word in words]
    for place, (word, _) in enumerate(bad, 40):
        (source / "a" / f"{place:03d}.png").write_bytes(
            (source / "a" / "000.png").read_bytes() + b"%d" % place
        )
        with (source / "a" / f"{place:03d}.png").open("ab") as file:
            file.write(word.encode())
    options: dict[str, Any] = {"deadline": 4, "cache": cache.root, "max_bad": 0.9}
    started = time.monotonic()
    first = adds_up(bottleneck.extract(source, FAKE, **options))
    took = time.monotonic() - started
    assert (first.computed, first.rejected) == (40, len(bad))
    assert all(why.final for why in first.rejections)
    with pytest.MonkeyPatch.context() as patch:
        # Not even asked what the base is, were it one of the catalog: a light start, as where nothing is to compute.
        patch.setattr(digest_cache, "recall_digests", lambda request, where: base().spec)
        patch.setattr("bottleneck.extraction.setup.is_function", lambda name: False)
        patch.setattr(WorkerChannel, "begin", lambda link: pytest.fail("a worker was begun"))
        started = time.monotonic()
        second = adds_up(bottleneck.extract(source, FAKE, **options))
        again = time.monotonic() - started
    assert (second.computed, second.reused, second.rejected) == (0, 40, len(bad))
    assert second.rejections == first.rejections
    note(f"{len(bad)} that hang or crash: first run {took:.0f} s, second {again:.2f} s")


@pytest.mark.fault(71)
def test_three_in_ten_bad(tmp_path: Path, call: Call) -> None:
    source = write_images(tmp_path / "in", {"cat": 42})
    bad = [f"bad{n:02d}.jpg" for n in range(18)]
    for n, name in enumerate(bad):
        (source / "cat" / name).write_bytes(
            [b"", b"<html>", b"\xff\xd8\xff" + bytes(50)][n % 3] + b"%d" % n * (n % 3)
        )
    said = call("extract", source, "--base", FAKE, "--json")
    assert said.status == 3
    text = said.json["error"]
    assert "60 images" in text and "--max-bad 0.01" in text
    refused = int(text.split(" of ")[0].replace(",", ""))
    assert refused == 18 and f"The other {60 - refused} are stored" in text
    said = call("extract", source, "--base", FAKE, "--json", "--max-bad", "0.3")
    assert said.status == 0
    assert (said.json["computed"], said.json["reused"], said.json["rejected"]) == (0, 42, 18)
    assert {Path(why["path"]).name for why in said.json["rejections"]} == set(bad)
    assert call("extract", source, "--base", FAKE, "--max-bad", "0.29").status == 3


@pytest.mark.fault(72)
def test_a_base_that_gives_nothing_finite_stores_no_row(tmp_path: Path, call: Call, cache: Cache) -> None:
    source = write_images(tmp_path / "in", {"cat": 9})
    name = "tests.faults.bad_bases:infinite"
    said = call("extract", source, "--base", name, "--json")
    assert said.status == 3
    assert "the base fake gave NaN or infinity" in said.json["error"]
    assert not list(cache.stores.glob("*/shards/*.h5"))
    said = call("extract", source, "--base", name, "--json", "--max-bad", "1")
    assert said.status == 0
    assert (said.json["rows"], said.json["rejected"]) == (0, 9)
    assert all("NaN or infinity" in why["reason"] for why in said.json["rejections"])
    for record in shards_of(cache).glob("*.json"):
        assert json.loads(record.read_text())["rows"] == 0
    with pytest.raises(TooManyBadImages):
        bottleneck.extract(source, name, cache=cache.root)


def test_the_gif_bomb_is_one() -> None:
    """Small, and of one frame that declares it all."""
    data = gif(65535, 10924)
    assert len(data) < 500_000
    assert sys.getsizeof(data) < 500_000
