"""Ctrl-C, SIGTERM, read-only and vanishing caches: real processes, real signals, and a rerun that goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bottleneck.errors import StoreError
from bottleneck.pipeline.foresee import foresee
from tests.extraction.fake_runs import check_served, counts, here
from tests.extraction.test_scheduler import store_of, wait_for_records
from tests.fakes import FakeForward, write_images

ROOT = Path(__file__).parent.parent.parent
KEPT = "finished shards are kept, and the same command goes on from there"


def extract(
    source: Path, cache: Path, *more: str, base: str = "tests.fakes:slow_base"
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "bottleneck", "extract", str(source), "--base", base),
            *("--cache", str(cache), "--json", *more),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two tasks; the second one takes seconds."""
    return write_images(tmp_path / "in", {"cat": 700, "dog": 700}, size=(4, 4))


@pytest.mark.fault(3)
@pytest.mark.parametrize(
    ("signals", "status"),
    [
        ([signal.SIGINT], 130),
        ([signal.SIGTERM], 143),
        ([signal.SIGINT, signal.SIGINT], 130),
        ([signal.SIGTERM, signal.SIGTERM], 143),
    ],
)
def test_interrupted_finished_shards_are_kept_and_the_rest_is_gone_on_with(
    source: Path, tmp_path: Path, signals: list[int], status: int
) -> None:
    cache = tmp_path / "cache"
    running = extract(source, cache)
    wait_for_records(cache, 1)
    time.sleep(0.3)
    for number in signals:
        running.send_signal(number)
        time.sleep(0.001)
    out, err = running.communicate(timeout=300)
    # A second signal may find Python half gone already, and ends it then: 128 and its number to a shell, too.
    ended = {status, -signals[1]} if signals[1:] else {status}
    assert running.returncode in ended, err
    assert KEPT in err
    assert "Traceback" not in err
    if len(signals) == 1:
        assert json.loads(out)["exit_status"] == status
        assert [p.name for p in store_of(cache).rglob("*.tmp")] == []
        (log,) = (store_of(cache) / "log").iterdir()
        assert json.loads(log.read_text())["ended"] in ("KeyboardInterrupt", "Terminated")
    again = extract(source, cache, base="tests.fakes:base")  # the same rows, sooner
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    done = json.loads(out)
    assert (done["computed"], done["reused"]) == (376, 1024)
    assert [p.name for p in store_of(cache).rglob(".*")] == []


@pytest.mark.fault(17)
def test_with_nothing_to_compute_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 6}), tmp_path / "cache"
    here(source, cache)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    def look(path: object, flags: int, *more: object, **options: object) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            refuse()
        return opened(path, flags, *more, **options)

    opened = os.open
    monkeypatch.setattr(os, "open", look)
    for name in ("mkdir", "unlink", "link", "rename", "replace"):
        monkeypatch.setattr(os, name, refuse)
    assert counts(here(source, cache)[0]) == {"reused": 6}


@pytest.mark.fault(17)
def test_a_cache_that_cannot_be_written_is_refused_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 6}), tmp_path / "cache"
    done, _, _ = here(source, cache)
    write_images(source, {"dog": 2}, seed=5)

    class Untouched(FakeForward):
        def features(self, pixels: object) -> None:
            raise AssertionError("computed before it was known whether it can be kept")

    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).startswith(str(done.store)) and real(path, mode)
    )
    with pytest.raises(StoreError, match=f"{cache} cannot be written to.*{done.store.name}"):
        here(source, cache, Untouched())


@pytest.mark.fault(20)
def test_a_cache_that_is_removed_under_way_ends_the_run_and_does_not_come_back_half(
    source: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    running = extract(source, cache)
    wait_for_records(cache, 1)
    while cache.exists():  # A file may be written into a folder while that is being emptied.
        shutil.rmtree(cache, ignore_errors=True)
    out, err = running.communicate(timeout=300)
    assert running.returncode == 1
    assert "removed or moved away" in json.loads(out)["error"]
    assert "Traceback" not in err
    assert not cache.exists()


def test_a_dry_run_says_what_there_is_to_do_and_writes_nothing(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 6, "dog": 4}), tmp_path / "cache"
    shutil.copy(source / "cat" / "000.png", source / "dog" / "copy.png")
    left = foresee(source, "tests.fakes:base", cache=cache)
    assert (left.images, left.to_compute, left.reused, left.tasks, left.bytes) == (11, 10, 0, 1, 10 * 6 * 4)
    assert not cache.exists()
    here(source, cache)
    write_images(source, {"cow": 3}, seed=4)
    before = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    running = extract(source, cache, "--dry-run", base="tests.fakes:base")
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    said = json.loads(out)
    assert (said["to_compute"], said["reused"], said["tasks"], said["bytes"]) == (3, 10, 1, 3 * 6 * 4)
    assert {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()} == before
    check_served(source, cache)
