"""Rows 59 to 64: folders and what lies in them."""

from __future__ import annotations

import os
import socket
import stat
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

import bottleneck
from bottleneck.schema import Cache
from tests.fakes import write_images
from tests.faults.bitmaps import Note, adds_up, bitmap, row_of
from tests.faults.reference_stores import FAKE, check_served, python
from tests.in_process import Call


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
