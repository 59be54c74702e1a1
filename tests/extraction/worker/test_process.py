"""Worker processes: when they start, die, and are started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bottleneck
from bottleneck.bases import digest_cache
from bottleneck.errors import SourceError
from bottleneck.extraction.worker.channel import WorkerDied, resident_bytes
from bottleneck.extraction.worker.image_reader import Watch
from bottleneck.extraction.worker.main import Worker
from bottleneck.extraction.worker.messages import Care, Open
from bottleneck.extraction.worker.process import WorkerProcess
from bottleneck.inventory import scan as scanning
from bottleneck.inventory.scan import scan_source
from bottleneck.pipeline.foresee import foresee
from bottleneck.schema import BaseRequest, Cache, Inventory
from bottleneck.sources.open import open_source
from bottleneck.store.plan import plan_tasks
from tests.extraction.fake_runs import FAKE, counts
from tests.fakes import base, write_images

ROOT = Path(__file__).parents[3]


def mark(source: Path, name: str, word: str) -> None:
    with (source / "cat" / name).open("ab") as file:
        file.write(word.encode())


def test_a_task_that_was_committed_before_its_worker_died_is_not_computed_again(tmp_path: Path) -> None:
    source, cache = open_source(write_images(tmp_path / "in", {"cat": 6})), Cache(tmp_path / "cache")
    (tmp_path / "in" / "cat" / "003.png").write_bytes(b"<html>")
    inventory = scan_source(source, None)
    (task,) = plan_tasks(inventory, base().spec, np.zeros(len(inventory), bool))
    with Worker(base(), source, cache) as first:
        (told,) = first.compute(task, lambda _: None)
    assert told.computed == 5
    seen: list[int] = []
    with Worker(base(), source, cache) as second:
        second.targets(task)
        second.forward.features = None  # type: ignore[method-assign]
        (again,) = second.run(task, Watch(seen.append), Care(careful=True))
    assert (again.task, again.computed, again.rejections) == (told.task, 5, told.rejections)
    assert sum(seen) == 6
    # What is not whole was never said.
    next(cache.stores.glob("*/shards/*.h5")).write_bytes(b"")
    with Worker(base(), source, cache) as third:
        passes, features = [], third.forward.features
        third.forward.features = lambda pixels: passes.append(0) or features(pixels)  # type: ignore
        assert third.run(task, Watch(seen.append), Care(careful=True))[0].computed == 5
        assert passes


def test_a_worker_that_somebody_kills_is_started_again(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 60}), tmp_path / "cache"
    opened, request = open_source(source), BaseRequest(base="tests.fakes:slow_base")
    opening = Open(opened, (request,), Cache(cache))
    with WorkerProcess(opening) as worker:
        assert worker.specs
        victim = worker._channel.process.pid

        def strike() -> None:
            time.sleep(0.4)
            os.kill(victim, signal.SIGKILL)

        thread = threading.Thread(target=strike)
        thread.start()
        from bottleneck.inventory.scan import scan_source
        from bottleneck.system.progress import Silent
        from tests.in_process import extract_one

        done, _, _ = extract_one(
            opened, lambda: scan_source(opened, None), request, Cache(cache), Silent(), worker=worker
        )
        thread.join()
        assert worker._channel.process.pid != victim
    assert counts(done) == {"computed": 60}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What went on, in order: the process of each worker that was begun early, and `scan` for every scan."""
    begun, whole, events = WorkerProcess.begin, scanning.scan_source, []

    def begin(worker: WorkerProcess) -> None:
        begun(worker)
        events.append(worker._channel.process)

    def scanned(*given: Any, **options: Any) -> Inventory:
        events.append("scan")
        return whole(*given, **options)

    monkeypatch.setattr(WorkerProcess, "begin", begin)
    monkeypatch.setattr(scanning, "scan_source", scanned)
    return events


@pytest.mark.parametrize("run", [bottleneck.extract, foresee])
def test_a_base_that_nobody_knows_is_built_beside_the_scan(
    tmp_path: Path, watched: list[Any], run: Callable[..., Any]
) -> None:
    run(write_images(tmp_path / "in", {"cat": 5}), FAKE, cache=tmp_path / "cache")
    worker, scanned = watched
    assert scanned == "scan"
    assert worker.poll() is not None, "it ends with the run"


def test_one_that_is_known_is_built_when_there_is_work(
    tmp_path: Path, watched: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 5}), tmp_path / "cache"
    monkeypatch.setattr(digest_cache, "recall_digests", lambda request, cache: base().spec)
    assert counts(bottleneck.extract(source, FAKE, cache=cache)) == {"computed": 5}
    assert counts(bottleneck.extract(source, FAKE, cache=cache)) == {"reused": 5}
    assert watched == ["scan", "scan"]


def test_a_scan_that_fails_ends_the_worker_that_was_begun(
    tmp_path: Path, watched: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **options: Any) -> Inventory:
        raise SourceError("no such thing")

    monkeypatch.setattr(scanning, "scan_source", broken)
    with pytest.raises(SourceError, match="no such thing"):
        bottleneck.extract(write_images(tmp_path / "in", {"cat": 5}), FAKE, cache=tmp_path / "cache")
    (worker,) = watched
    assert worker.poll() is not None


def test_a_worker_that_dies_before_it_is_waited_for_is_heard_of_then(tmp_path: Path) -> None:
    with WorkerProcess(Open(open_source(tmp_path), (BaseRequest(base=FAKE),), Cache(tmp_path))) as worker:
        worker.begin()
        first = worker._channel.process
        assert first is not None
        first.kill()
        first.wait()
        with pytest.raises(WorkerDied, match="ended by SIGKILL"):
            worker._channel.start()
        worker._channel.stop()
        worker.begin()
        assert [spec.shape for spec in worker.specs] == [base().spec.shape]
        second = worker._channel.process
        worker.begin()
        assert worker._channel.process is second, "it is there already"


def test_a_worker_dies_with_its_parent(tmp_path: Path) -> None:
    """kill -9 of the parent while the worker hangs in an image: nobody computes on."""
    source = write_images(tmp_path / "in", {"cat": 5})
    mark(source, "003.png", "HANGS")
    parent = subprocess.Popen(
        [
            *(sys.executable, "-m", "bottleneck", "extract", str(source), "--base", FAKE),
            *("--cache", str(tmp_path / "cache"), "--quiet"),
        ],
        cwd=ROOT,
    )
    worker = child_of(parent.pid)
    time.sleep(1.0)
    parent.kill()
    parent.wait()
    until = time.monotonic() + 120
    while time.monotonic() < until and Path(f"/proc/{worker}").exists() and not is_zombie(worker):
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists() or is_zombie(worker)


def child_of(parent: int) -> int:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for child in found:
            if "bottleneck.extraction.worker.main" in Path(f"/proc/{child}/cmdline").read_text():
                return int(child)
        time.sleep(0.02)
    raise AssertionError("no worker was started")


def is_zombie(process: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return True


def test_the_memory_of_a_process_is_what_the_system_says() -> None:
    assert 1 << 20 < resident_bytes(os.getpid()) < 1 << 40
    assert resident_bytes(1 << 30) == 0
