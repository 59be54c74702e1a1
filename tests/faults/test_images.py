"""Rows 54 to 58: images that go or change while a run goes on, or between runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

import bottleneck
from bottleneck.schema import Cache
from tests.fakes import rows_by_hand, write_images
from tests.faults import bad_bases
from tests.faults.bitmaps import adds_up, bitmap, row_of
from tests.faults.reference_stores import FAKE, check_served

MEDDLING = "tests.faults.bad_bases:meddling"


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
