"""Builders share one store: real processes, killed, paused, started late; one result, little of it computed twice."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from bottleneck.extraction.worker.main import Worker
from bottleneck.schema import BaseRequest, Cache
from bottleneck.sources import open_source
from bottleneck.store.plan_files import publish_plan
from bottleneck.store.read import open_store
from bottleneck.store.task_locks import TaskLocks
from tests.extraction.builder_processes import finish, start, twice
from tests.extraction.fake_runs import check_served, counts, here
from tests.fakes import FakeForward, base, write_images

TASKS, ROWS = 64, 4


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(
        tmp_path_factory.mktemp("images"), {"cat": TASKS * ROWS // 2, "dog": TASKS * ROWS // 2}
    )


@pytest.fixture(scope="module")
def straight(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The shard files of one undisturbed run."""
    cache = tmp_path_factory.mktemp("straight")
    here(source, cache, task_rows=ROWS)
    return shards(cache)


def store_of(cache: Path) -> Path:
    (folder,) = (cache / "stores").iterdir()
    return folder


def shards(cache: Path) -> dict[str, str]:
    """Every file of every shard with its hash; nothing else may be there."""
    folder = store_of(cache) / "shards"
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def leftovers(cache: Path) -> list[str]:
    folder = store_of(cache)
    parts = [*(folder / "locks").iterdir(), *(folder / "plans").iterdir(), *folder.rglob(".*")]
    return sorted(path.name for path in parts)


def wait_for_records(cache: Path, count: int, timeout: float = 300) -> None:
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if len(list(cache.glob("stores/*/shards/*.json"))) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {count} records after {timeout} s")


@pytest.mark.fault(21)
@pytest.mark.parametrize("builders", [2, 8])
def test_builders_at_once_share_the_work(
    source: Path, tmp_path: Path, straight: dict[str, str], builders: int
) -> None:
    running = [start(source, tmp_path, task_rows=ROWS) for _ in range(builders)]
    reports = [finish(builder) for builder in running]
    assert twice(reports, TASKS * ROWS) <= 0.1
    assert all(r["computed"] + r["reused"] == TASKS * ROWS for r in reports)
    assert shards(tmp_path) == straight
    assert leftovers(tmp_path) == []
    check_served(source, tmp_path)


@pytest.mark.fault(1, 21)
def test_killed_halfway_and_gone_on_with_by_others_the_files_are_the_same(
    source: Path, tmp_path: Path, straight: dict[str, str]
) -> None:
    draw = random.Random(3)
    running = [start(source, tmp_path, task_rows=ROWS) for _ in range(3)]
    wait_for_records(tmp_path, TASKS // 4)
    # Names alone: the builders are at work, and a part file seen now may be gone when it is opened.
    before = {path.name for path in (store_of(tmp_path) / "shards").iterdir()}
    for builder in running:
        builder.kill()
        builder.communicate()
        time.sleep(draw.uniform(0, 0.1))
    running = [start(source, tmp_path, task_rows=ROWS) for _ in range(2)]
    time.sleep(0.5)
    running.append(start(source, tmp_path, task_rows=ROWS))
    for builder in running:
        finish(builder)
    assert shards(tmp_path) == straight
    assert before - set(straight) <= {name for name in before if name.startswith(".")}
    assert leftovers(tmp_path) == []


def test_a_builder_that_starts_later_cuts_the_same_tasks(
    source: Path, tmp_path: Path, straight: dict[str, str]
) -> None:
    first = start(source, tmp_path, task_rows=ROWS)
    wait_for_records(tmp_path, 3)
    # It would cut otherwise, left to itself.
    second = start(source, tmp_path, task_rows=ROWS * 4)
    reports = [finish(first), finish(second)]
    assert all(report["computed"] for report in reports)
    assert shards(tmp_path) == straight


@pytest.mark.fault(27)
def test_a_paused_owner_is_waited_for_and_then_done_without(
    source: Path, tmp_path: Path, straight: dict[str, str]
) -> None:
    paused = start(source, tmp_path, task_rows=ROWS)
    wait_for_records(tmp_path, 3)
    paused.send_signal(signal.SIGSTOP)
    try:
        report = finish(start(source, tmp_path, task_rows=ROWS, patience=1))
        assert report["computed"] + report["reused"] == TASKS * ROWS
        assert shards(tmp_path) == straight
        dates = {p: p.stat().st_mtime_ns for p in (store_of(tmp_path) / "shards").iterdir()}
    finally:
        paused.send_signal(signal.SIGCONT)
    finish(paused)
    assert {p: p.stat().st_mtime_ns for p in (store_of(tmp_path) / "shards").iterdir()} == dates


@pytest.mark.fault(26)
def test_the_lock_of_a_dead_owner_is_free_at_once(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 8})
    first = start(source, tmp_path / "cache", task_rows=4, patience=600)
    wait_for_records(tmp_path / "cache", 1)
    first.kill()
    first.communicate()
    started = time.monotonic()
    done, _, _ = here(source, tmp_path / "cache", task_rows=4)
    assert time.monotonic() - started < 300, "half of the patience, and more than a busy machine needs"
    assert done.rows == 8
    assert leftovers(tmp_path / "cache") == []


def test_tasks_that_others_hold_are_passed_over_and_their_records_are_taken(tmp_path: Path) -> None:
    """A lock in this process stands for another builder; its work is done while we do the rest."""
    source, cache = write_images(tmp_path / "in", {"cat": 12}), tmp_path / "cache"
    other, _, _ = here(source, tmp_path / "other", task_rows=4)
    (their,) = sorted((other.store / "shards").glob("*.json"))[:1]
    folder = store_folder(cache)
    locks = TaskLocks(folder / "locks")
    lock = locks.take(their.stem)
    assert lock is not None

    class Watches(FakeForward):
        passes = 0

        def features(self, pixels: np.ndarray) -> np.ndarray:
            self.passes += 1
            if self.passes == 5:  # three of canary, one a task: now the others are done
                for path in (other.store / "shards").glob(f"{their.stem}*"):
                    os.link(path, folder / "shards" / path.name)
            return super().features(pixels)

    forward = Watches()
    done, _, _ = here(source, cache, forward, task_rows=4)
    assert counts(done) == {"computed": 8, "reused": 4}
    assert forward.passes == 5
    lock.release()


def store_folder(cache: Path) -> Path:
    folder = open_store(Cache(cache), base().spec).folder
    for part in ("shards", "plans", "locks", "log"):
        (folder / part).mkdir(parents=True)
    return folder


def test_where_locks_do_not_work_the_work_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    def refuse(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    source = write_images(tmp_path / "in", {"cat": 5})
    assert counts(here(source, tmp_path / "cache", task_rows=2)[0]) == {"computed": 5}


def test_a_plan_that_can_never_be_finished_is_in_nobodys_way(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 6}), tmp_path / "cache"
    folder = store_folder(cache)
    gone = np.random.default_rng(0).integers(0, 256, (9, 32)).astype(np.uint8)
    stale = publish_plan(folder / "plans", gone, 4)
    (folder / "plans" / ("ab" * 8 + ".plan")).write_bytes(b"bottleneck plan 1 4 4000000000\n")
    (folder / "plans" / ("cd" * 8 + ".plan")).symlink_to("/etc/passwd")
    done, _, _ = here(source, cache, task_rows=4)
    assert counts(done) == {"computed": 6}
    assert stale.exists()
    assert counts(here(source, cache)[0]) == {"reused": 6}


def test_leftovers_of_dead_builders_are_swept_and_those_of_live_ones_are_not(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 5}), tmp_path / "cache"
    folder = store_folder(cache)
    dead = folder / "shards" / f".{'a' * 16}-{'b' * 16}.h5.999.12345678.tmp"
    live = folder / "shards" / f".{'c' * 16}.json.999.12345678.tmp"
    dead.write_bytes(b"half")
    live.write_bytes(b"half")
    lock = TaskLocks(folder / "locks").take("c" * 16)
    assert lock is not None
    here(source, cache)
    assert not dead.exists()
    assert live.exists()
    lock.release()


def test_the_store_remembers_how_its_base_was_asked_for(tmp_path: Path) -> None:
    from bottleneck.store.header import read_header

    source = write_images(tmp_path / "in", {"cat": 3})
    finish(start(source, tmp_path / "cache"))
    header = read_header(store_of(tmp_path / "cache"))
    assert header is not None
    assert header.request == BaseRequest(base="tests.fakes:slow_base")
    assert Worker(FakeForward(), open_source(tmp_path), Cache(tmp_path)).specs == (base().spec,)
