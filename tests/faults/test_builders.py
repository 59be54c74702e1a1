"""Rows 21 to 25 and 28: several builders, readers and housekeepers of one cache, under clocks that disagree."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bottleneck.bases import custom
from bottleneck.errors import DamagedShard
from bottleneck.schema import Cache
from bottleneck.store.read import Store, open_store
from tests.extraction.builder_processes import finish
from tests.extraction.builder_processes import start as start_builder
from tests.fakes import base, rows_by_hand, write_images
from tests.faults.command_runs import (
    WIDE,
    again,
    committed,
    end,
    ended_at_last,
    leftovers,
    run,
    shard_files,
    start,
    wait_until,
)
from tests.faults.ld_preload import CLOCK, compiled
from tests.faults.reference_stores import FAKE, check_served, put, run_command, snapshot, some

SLOW = "tests.fakes:slow_base"
Note = Callable[[str], None]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve tasks."""
    return write_images(tmp_path_factory.mktemp("images"), {"cat": 24, "dog": 24})


@pytest.fixture(scope="module")
def straight(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    cache = tmp_path_factory.mktemp("straight")
    again(source, cache)
    return shard_files(cache)


@pytest.mark.fault(21)
def test_the_same_command_several_times_at_once(
    source: Path, tmp_path: Path, straight: dict[str, str], full: bool, note: Note
) -> None:
    for count in (2, 3, 4, 6, 8) if full else (3,):
        cache = tmp_path / str(count)
        ends = [end(one) for one in [start(source, cache, base=SLOW) for _ in range(count)]]
        assert [one.status for one in ends] == [0] * count, [one.err for one in ends]
        assert all(one.json["computed"] + one.json["reused"] == 48 for one in ends)
        computed = sum(one.json["computed"] for one in ends)
        assert 48 <= computed <= 48 + 4 * count
        assert shard_files(cache) == straight
        assert leftovers(cache) == []
        note(f"{count} at once: {computed - 48} of 48 rows computed twice")


@pytest.mark.fault(22)
def test_builders_of_different_bases_in_one_cache(source: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    bases = (FAKE, "tests.fakes:other_base", WIDE)
    ends = [end(one) for one in [start(source, cache, base=name) for name in bases]]
    assert [one.status for one in ends] == [0, 0, 0], [one.err for one in ends]
    assert len({one.json["store"] for one in ends}) == 3
    for name in bases:
        forward = custom.call(name)
        store = open_store(Cache(cache), forward.spec)
        rows = {row.tobytes() for row in np.asarray(store.rows(np.arange(len(store))))}
        assert rows == {row.tobytes() for row in rows_by_hand(source, forward).values()}, name


def check_store(store: Store, by_hand: set[bytes]) -> None:
    """Every row is one of these."""
    if len(store):
        assert {row.tobytes() for row in np.asarray(store.rows(np.arange(len(store))))} <= by_hand


@pytest.mark.fault(23)
def test_a_reader_during_a_build_sees_ever_more_right_rows(source: Path, tmp_path: Path, note: Note) -> None:
    cache, spec = tmp_path / "cache", base().spec
    by_hand = {row.tobytes() for row in rows_by_hand(source).values()}
    seen: list[int] = []
    keys: set[bytes] = set()
    opened: list[Store] = []
    with ended_at_last(start(source, cache, base="tests.faults.bad_bases:unhurried")) as running:
        while running.poll() is None:
            store = open_store(Cache(cache), spec)
            assert store.damaged == {}
            check_store(store, by_hand)
            now = {key.tobytes() for key in store.index.keys}
            assert keys <= now, "rows only come"
            keys = now
            seen.append(len(store))
            opened.append(store)
        assert end(running).status == 0
    for store, count in zip(opened, seen, strict=True):
        assert len(store) == count, "what was opened stays as it was"
        check_store(store, by_hand)
    assert len(set(seen)) > 3
    note(f"{len(seen)} openings, {len(set(seen))} different counts of rows")


HOUSEKEEPING = """
import sys, time
from pathlib import Path
from bottleneck.schema import Cache
from bottleneck.store.maintenance.compact import compact_store
from bottleneck.store.maintenance.prune import KeptContents, prune_store
from tests.faults.reference_stores import put, some

cache, until = Cache(Path(sys.argv[1])), time.monotonic() + float(sys.argv[2])
parts = [some(8, seed) for seed in range(6)]
rounds = 0
while time.monotonic() < until:
    for keys, rows in parts[1:]:
        put(cache, keys, rows)
    (folder,) = cache.stores.iterdir()
    compact_store(folder)
    prune_store(folder, KeptContents(parts[0][0]), done=True)
    rounds += 1
print(rounds)
"""


@pytest.mark.fault(24)
def test_a_reader_beside_compact_and_prune(tmp_path: Path, full: bool, note: Note) -> None:
    """Rows come, are compacted and pruned, again and again; those of the first shard always stay."""
    cache = Cache(tmp_path / "cache")
    spec = base().spec
    parts = [some(8, seed) for seed in range(6)]
    reference = {key.tobytes(): row for keys, rows in parts for key, row in zip(keys, rows, strict=True)}
    put(cache, *parts[0])
    arguments = (str(cache.root), "20" if full else "2")
    keeper = subprocess.Popen(
        [sys.executable, "-c", HOUSEKEEPING, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    counts = {"served": 0, "refused": 0, "openings": 0}
    told: set[str] = set()
    try:
        while keeper.poll() is None:
            store = open_store(cache, spec)
            counts["openings"] += 1
            for position, key in enumerate(store.index.keys):
                place = store.find(key[None])
                assert place[0] >= 0, position
                try:
                    row = store.gather(place)[0]
                except DamagedShard as error:
                    told.add("removed since" if "removed since" in str(error) else str(error))
                    counts["refused"] += 1
                else:
                    np.testing.assert_array_equal(row, reference[key.tobytes()])
                    counts["served"] += 1
    finally:
        out, err = end_of(keeper)
    assert keeper.returncode == 0, err
    assert int(out) > 1
    store = open_store(cache, spec)
    np.testing.assert_array_equal(store.gather(store.find(parts[0][0])), parts[0][1])
    assert counts["served"] > 100
    assert told <= {"removed since"}
    note(f"{int(out)} rounds of both; {counts}")


def end_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate(timeout=300)
    finally:
        process.kill()


COMMITS = """
import sys
from pathlib import Path
from bottleneck.schema import Cache
from tests.faults.reference_stores import put, some

for number in range(25):
    put(Cache(Path(sys.argv[1])), *some(4, 1000 * int(sys.argv[2]) + number))
"""


@pytest.mark.fault(25)
def test_many_builders_committing_at_once(tmp_path: Path, note: Note) -> None:
    """Six processes, 25 commits each, nobody waiting for anybody: 150 of 150 records."""
    cache = Cache(tmp_path / "cache")
    running = [
        subprocess.Popen(
            [sys.executable, "-c", COMMITS, str(cache.root), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    for one in running:
        _, err = end_of(one)
        assert one.returncode == 0, err
    store = open_store(cache, base().spec)
    assert store.damaged == {}
    assert len(store.shards.files) == 150
    for number in range(6):
        for commit in range(25):
            keys, rows = some(4, 1000 * number + commit)
            np.testing.assert_array_equal(store.gather(store.find(keys)), rows)
    note(f"{len(store.shards.files)} of 150 records")


@pytest.mark.fault(25)
def test_small_tasks_of_several_builders(source: Path, tmp_path: Path, straight: dict[str, str]) -> None:
    """Whole builders this time, one image a task: every record comes, whoever makes it."""
    running = [start_builder(source, tmp_path, task_rows=1, base=FAKE) for _ in range(3)]
    reports = [finish(one) for one in running]
    assert len(committed(tmp_path)) == 48
    assert all(report["computed"] + report["reused"] == 48 for report in reports)
    assert check_served(source, tmp_path) == 48


# ---------------------------------------------------------------------------------------------------- clocks


DAY = 86400


class Clock:
    """A date that is off, for those who are started with its `flags`."""

    def __init__(self, folder: Path, days: int) -> None:
        folder.mkdir()
        self._file = folder / "clock"
        self.set(days)
        self.flags = {"LD_PRELOAD": compiled(CLOCK, folder), "FAULTS_CLOCK": str(self._file)}

    def set(self, days: int) -> None:
        self._file.write_text(str(days * DAY))


@pytest.mark.fault(28)
@pytest.mark.needs_tool("cc")
def test_clocks_a_day_off(source: Path, tmp_path: Path, straight: dict[str, str], full: bool) -> None:
    """Two builders share the work though their clocks are two days apart; whatever the date, later runs find it."""
    cache = tmp_path / "cache"
    clocks = [Clock(tmp_path / str(days), days) for days in (-1, 1)]
    ends = [end(one) for one in [start(source, cache, base=SLOW, **clock.flags) for clock in clocks]]
    assert [one.status for one in ends] == [0, 0], [one.err for one in ends]
    assert sum(one.json["computed"] for one in ends) <= 48 + 8
    assert shard_files(cache) == straight
    assert leftovers(cache) == []
    assert dates_of_logs(cache) <= {date(-1), date(1)}, "their clocks were off"
    clock = clocks[0]
    for days in (-1, 1, -10_000, 3_000) if full else (-1,):
        clock.set(days)
        ended = run(source, cache, base=SLOW, **clock.flags)
        assert (ended.json["computed"], ended.json["reused"]) == (0, 48), days
    stores = snapshot(cache / "stores")
    clock.set(3_000)
    arguments = ("store", "prune", "--keep", source, "--yes", "--cache", cache, "--quiet")
    done = run_command(*arguments, **clock.flags)
    assert done.returncode == 0, done.stderr
    assert snapshot(cache / "stores") == stores, "nothing expires"


@pytest.mark.fault(28)
@pytest.mark.needs_tool("cc")
def test_a_clock_that_is_set_back_under_way(source: Path, tmp_path: Path, straight: dict[str, str]) -> None:
    cache, clock = tmp_path / "cache", Clock(tmp_path / "clock", 1)
    with ended_at_last(start(source, cache, base=SLOW, **clock.flags)) as running:
        wait_until(lambda: len(committed(cache)) >= 3)
        clock.set(-1)
        ended = end(running)
    assert ended.status == 0, ended.err
    assert ended.json["computed"] == 48
    assert shard_files(cache) == straight
    assert again(source, cache).reused == 48
    assert dates_of_logs(cache) == {date(-1)}, "its clock was set back"


def date(days: int) -> str:
    return time.strftime("%Y%m%d", time.gmtime(time.time() + days * DAY))


def dates_of_logs(cache: Path) -> set[str]:
    return {path.name[:8] for path in cache.glob("stores/*/log/*.json")}


@pytest.mark.fault(28)
def test_dates_of_files_decide_nothing_about_rows(
    source: Path, tmp_path: Path, straight: dict[str, str]
) -> None:
    cache = tmp_path / "cache"
    again(source, cache)
    for number, path in enumerate(sorted(cache.rglob("*"))):
        moment = time.time() + (-1) ** number * DAY * (1 + number)
        os.utime(path, (moment, moment))
    assert again(source, cache).reused == 48
    assert shard_files(cache) == straight
    assert check_served(source, cache) == 48
