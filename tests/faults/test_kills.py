"""Rows 1 to 6, 26 and 27: processes that are killed, starved and paused while they write."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes import write_images
from tests.faults.command_runs import (
    WIDE,
    again,
    children,
    committed,
    end,
    is_alive,
    leftovers,
    run,
    shard_files,
    start,
    wait_until,
)
from tests.faults.large_rows import Trace, WideForward
from tests.faults.reference_stores import check_served

TRACED = "tests.faults.large_rows:traced"
TASKS, ROWS = 32, 4
#: Forward passes with which a worker begins.
CANARY = 3


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), {"cat": 64, "dog": 64}, size=(4, 4))


@pytest.fixture(scope="module")
def straight(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The shard files of a run that nobody disturbed."""
    cache = tmp_path_factory.mktemp("straight")
    assert again(source, cache, WideForward()).computed == TASKS * ROWS
    return shard_files(cache)


@dataclass(frozen=True)
class Hit:
    """What a kill met: what the worker was at, records by then, tasks that were computed again though committed."""

    whom: str
    stage: str
    records: int
    again: int


def kill(
    source: Path, straight: dict[str, str], folder: Path, moment: float, whom: str, real: bool
) -> Hit | None:
    """Kill a run after `moment` tasks, which is no whole number, and go on; None where it was over by then.

    `whom` is ``run``, whose worker ends with it, or ``worker``, whose run goes on. The rerun is a `real` one, or
    in this process.
    """
    folder.mkdir()
    cache, trace = folder / "cache", Trace(folder / "trace")
    running = start(source, cache, base=TRACED, FAULTS_TRACE=str(folder / "trace"))
    try:
        wait_until(lambda: trace.stage or running.poll() is not None)
        began = time.monotonic()
        wait_until(lambda: records(cache) >= int(moment) or running.poll() is not None, pause=0.005)
        pace = (time.monotonic() - began) / max(1, records(cache))
        time.sleep((moment % 1) * pace)
        (worker,) = children(running.pid) or [0]
        if not worker:
            return None
        os.kill(worker if whom == "worker" else running.pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(worker))
        stage, passes, before = trace.stage, trace.passes, committed(cache)
        assert before <= set(straight)
        present = shard_files(cache)
        if whom == "worker":
            done = end(running)
            assert done.status == 0, done.err
            # None where the last task was done: then no other worker was started.
            computed = max(0, trace.passes - passes - CANARY)
        else:
            running.communicate()
            assert running.returncode == -signal.SIGKILL
            if real:
                done = run(source, cache, base=WIDE)
                assert done.status == 0, done.err
                computed = done.json["computed"] // ROWS
            else:
                computed = again(source, cache, WideForward()).computed // ROWS
            # Where nothing is lacking nothing is written, and a plan that was not cleared away stays for `prune`.
            assert leftovers(cache) == [] or len(before) == TASKS
    finally:
        running.kill()
        running.communicate()
    assert shard_files(cache) == straight, (whom, stage)
    assert {name: present[name] for name in before}.items() <= straight.items()
    shutil.rmtree(folder)
    return Hit(whom, stage, len(before), computed - (TASKS - len(before)))


def records(cache: Path) -> int:
    return sum(1 for _ in cache.glob("stores/*/shards/*.json"))


@pytest.mark.fault(1, 4)
def test_killed_at_any_moment_of_writing(
    source: Path, straight: dict[str, str], tmp_path: Path, full: bool, note: Callable[[str], None]
) -> None:
    """Half of the kills meet the run as a whole and half its worker; every seventh rerun is a process of its own."""
    wanted, draw = (200 if full else 4), random.Random(1)
    tries = [(draw.uniform(0, TASKS - 1), "worker" if n % 2 else "run") for n in range(wanted * 2)]

    def attempt(number: int) -> Hit | None:
        return kill(source, straight, tmp_path / str(number), *tries[number], real=number % 14 == 0)

    hits: list[Hit] = []
    # Twice as many as processors: a run waits for the disk half of its time.
    with ThreadPoolExecutor(4) as pool:
        for first in range(0, len(tries), wanted):
            lack = wanted - len(hits)
            hits += [hit for hit in pool.map(attempt, range(first, first + lack)) if hit is not None]
    assert len(hits) == wanted
    assert [hit for hit in hits if hit.whom == "run" and hit.again] == []
    # A worker that had committed and was killed before it could say so does that one task again, to no effect.
    late = ("record: ", "between two ")
    assert [h for h in hits if h.again not in ((0, 1) if h.stage.startswith(late) else (0,))] == []
    met = Counter(hit.stage for hit in hits)
    note(
        f"{wanted} kills -9, {sum(hit.whom == 'run' for hit in hits)} of the run and the others of its worker, after "
        f"{min(hit.records for hit in hits)} to {max(hit.records for hit in hits)} of {TASKS} commits; the rerun (or "
        f"the run, without its worker) completed by itself {wanted} of {wanted} times with the files of an undisturbed "
        f"run, byte for byte; committed rows computed again by a rerun: "
        f"{ROWS * sum(hit.again for hit in hits if hit.whom == 'run')}; by a run whose worker had committed and died "
        f"before it could say so: {ROWS * sum(hit.again for hit in hits if hit.whom == 'worker')}"
    )
    note("the kills met " + ", ".join(f"{count} x {stage}" for stage, count in met.most_common()))


STEPS = "openat,mkdir,write,fallocate,fsync,link,linkat,unlink,rename,renameat2,flock"


@pytest.mark.fault(2)
@pytest.mark.needs_tool("strace")
def test_killed_at_every_system_call_that_touches_the_cache(
    tmp_path: Path, full: bool, note: Callable[[str], None]
) -> None:
    """Index, plan, lock, header, canary, shard, block hashes, record, log: killed before each call, then gone on with.

    The worker is in the run's process here, so that calls can be counted; the sweep ends where no fault fires any more.
    """
    source = write_images(tmp_path / "in", {"cat": 4})
    whole = tmp_path / "cache0"
    flags = {"FAULTS_HERE": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    log = tmp_path / "log"
    prefix = ("strace", "-f", "-qq", "-o", str(log), "-e")
    ended = run(source, whole, prefix=(*prefix, f"trace={STEPS}"), **flags)
    assert ended.status == 0, ended.err
    straight = shard_files(whole)
    steps = steps_of(log.read_text(), whole)
    assert {"write", "fsync", "linkat", "unlink", "fallocate"} <= {call for call, _ in steps}
    chosen = steps if full else random.Random(2).sample(steps, 3)

    def attempt(number: int, call: str, which: int) -> int:
        cache = tmp_path / f"cache{number}"
        rules = (f"trace={call}", "-e", f"inject={call}:signal=KILL:when={which}")
        died = run(source, cache, prefix=(*prefix[:3], "-o", f"{log}{number}", "-e", *rules), **flags)
        # Strace ends as its child did.
        kept = committed(cache)
        done = again(source, cache)
        assert (done.computed, done.reused) == (0, 4) if kept else (4, 0), (call, which)
        assert shard_files(cache) == straight, (call, which)
        assert leftovers(cache) == [] or kept, (call, which)
        assert check_served(source, cache) == 4
        return died.status

    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda n: attempt(n + 1, *chosen[n]), range(len(chosen))))
    assert set(ends) == {-signal.SIGKILL}
    met = Counter(call for call, _ in chosen)
    if full:
        # One more than there are, of each kind: nothing fires.
        total = counts_of(log.read_text())
        for number, call in enumerate(met):
            assert attempt(1000 + number, call, total[call] + 1) == 0, call
    note(
        f"{len(chosen)} of {len(steps)} calls: " + ", ".join(f"{n} x {call}" for call, n in met.most_common())
    )


def lines_of(log: str) -> Iterator[tuple[str, str]]:
    """Calls of the first process with what they were about, in order."""
    first = log.split(maxsplit=1)[0]
    for line in log.splitlines():
        process, _, rest = line.partition(" ")
        call, paren, about = rest.strip().partition("(")
        if process == first and paren and call.isidentifier():
            yield call, about


def counts_of(log: str) -> Counter[str]:
    return Counter(call for call, _ in lines_of(log))


def steps_of(log: str, cache: Path) -> list[tuple[str, int]]:
    """Calls from the first that names the cache to the last of its files: name, and number among those of that name."""
    count: Counter[str] = Counter()
    found: list[tuple[str, int]] = []
    inside: set[str] = set()
    for call, about in lines_of(log):
        count[call] += 1
        if str(cache) in about:
            found.append((call, count[call]))
            opened = re.search(r"= (\d+)$", about)
            if call == "openat" and opened:
                inside.add(opened[1])
        elif call == "openat":
            opened = re.search(r"= (\d+)$", about)
            inside.discard(opened[1] if opened else "")
        elif call in ("write", "fsync", "fallocate", "flock") and about.split(",")[0].split(")")[0] in inside:
            found.append((call, count[call]))
    return found
