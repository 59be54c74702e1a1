"""Rows 65 to 72: files that lie or attack, and images that cannot become a row."""

from __future__ import annotations

import io
import itertools
import json
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bottleneck
from bottleneck.bases import digest_cache
from bottleneck.errors import TooManyBadImages
from bottleneck.extraction.worker.channel import WorkerChannel
from bottleneck.schema import Cache
from tests.fakes import base, write_images
from tests.faults.bitmaps import Note, adds_up
from tests.faults.plugin import regime
from tests.faults.reference_stores import FAKE, check_served, python, shards_of
from tests.in_process import Call


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
