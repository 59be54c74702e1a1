"""Every engine of the catalog, with real schedulers and a base that needs no TensorFlow."""

from __future__ import annotations

import errno
import importlib.util
import io
import logging
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bottleneck import catalog
from bottleneck.errors import EngineError
from bottleneck.extraction.engines.pool import start_pool
from bottleneck.extraction.engines.supervisor import Assignment
from bottleneck.extraction.report import Extraction
from bottleneck.extraction.worker.messages import Open
from bottleneck.inventory.scan import scan_source
from bottleneck.schema import BaseRequest, Cache, Limits, WorkerConfig
from bottleneck.sources.folder import FolderSource
from bottleneck.sources.open import open_source
from bottleneck.store.header import open_for_building
from bottleneck.store.plan import plan_tasks
from bottleneck.store.read import open_store
from bottleneck.system.progress import Silent
from tests.extraction.builder_processes import finish, start
from tests.extraction.test_scheduler import leftovers, shards, wait_for_records
from tests.fakes import slow_base, write_images
from tests.in_process import extract_one

NEEDS = {"local": None, "dask": "distributed", "ray": "ray"}
TASKS, ROWS = 12, 4


def test_every_engine_is_named_here() -> None:
    assert set(NEEDS) == set(catalog.ENGINES)


def where_installed(name: str) -> object:
    module = NEEDS[name]
    is_missing = module is not None and importlib.util.find_spec(module) is None
    return pytest.param(
        name, marks=pytest.mark.skipif(is_missing, reason=f"engine {name}: {module} is not installed")
    )


everywhere = pytest.mark.parametrize("engine", [where_installed(name) for name in NEEDS])
on_clusters = pytest.mark.parametrize("engine", [where_installed(name) for name in NEEDS if name != "local"])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    half = TASKS * ROWS // 2
    return write_images(tmp_path_factory.mktemp("images"), {"cat": half, "dog": half})


@pytest.fixture(scope="module")
def straight(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The shard files of one worker on this machine."""
    cache = tmp_path_factory.mktemp("straight")
    run(source, cache, None)
    return shards(cache)


def run(
    source: Path,
    cache: Path,
    team: WorkerConfig | None,
    *,
    base: str = "tests.fakes:base",
    progress: object = None,
) -> Extraction:
    opened, where = open_source(source), Cache(cache)
    done, _, _ = extract_one(
        opened,
        lambda: scan_source(opened, where.scans),
        BaseRequest(base=base),
        where,
        progress or Silent(),  # type: ignore[arg-type]
        limits=Limits(deadline=60),
        workers=team,
        task_rows=ROWS,
    )
    return done


class Counting:
    """Progress that adds up; from any thread."""

    def __init__(self) -> None:
        self.images, self.notes = 0, []

    def bar(self, label: str, total: int | None, unit: str = "images", *, brief: bool = False) -> Counting:
        return self

    def update(self, count: int = 1) -> None:
        self.images += count

    def note(self, text: str) -> None:
        self.notes.append(text)

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def below(process: int) -> dict[int, str]:
    """Processes below one, by number, with their command lines."""
    found, level = {}, [process]
    while level:
        parents, level = level, []
        for parent in parents:
            for thread in Path(f"/proc/{parent}/task").glob("*"):
                try:
                    children = [int(n) for n in (thread / "children").read_text().split()]
                except OSError:
                    continue
                for child in children:
                    try:
                        found[child] = (
                            Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                        )
                    except OSError:
                        continue
                    level.append(child)
    return found


def workers_below(process: int) -> list[int]:
    return [number for number, line in below(process).items() if "bottleneck.extraction.worker.main" in line]


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(true: Callable[[], object], timeout: float = 120) -> None:
    until = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


@everywhere
def test_two_workers_make_the_same_files_and_leave_no_process(
    engine: str, source: Path, tmp_path: Path, straight: dict[str, str]
) -> None:
    counted = Counting()
    done = run(source, tmp_path, WorkerConfig(engine=engine, workers=2), progress=counted)
    assert done.computed == TASKS * ROWS == counted.images
    assert shards(tmp_path) == straight
    assert leftovers(tmp_path) == []
    assert list(tmp_path.glob(".*")) == []
    wait_until(lambda: workers_below(os.getpid()) == [])


@pytest.mark.fault(4)
@everywhere
def test_a_process_that_is_killed_costs_its_shard_alone(
    engine: str, source: Path, tmp_path: Path, straight: dict[str, str]
) -> None:
    running = start(source, tmp_path, task_rows=ROWS, team=(engine, "2"))
    wait_for_records(tmp_path, 2)
    victim = workers_below(running.pid)[0]
    if engine != "local":  # the scheduler's own process goes, and its worker with it
        worker, victim = victim, parent_of(victim)
    os.kill(victim, signal.SIGKILL)
    if engine != "local":
        wait_until(lambda: not Path(f"/proc/{worker}").exists())
    assert finish(running)["computed"] == TASKS * ROWS
    assert shards(tmp_path) == straight
    assert leftovers(tmp_path) == []


@pytest.mark.fault(3)
@everywhere
def test_ctrl_c_ends_every_process_at_once(engine: str, source: Path, tmp_path: Path) -> None:
    command = ("extract", str(source), "--base", "tests.fakes:stuck_base", "--cache", str(tmp_path))
    running = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "bottleneck",
            *command,
            "--engine",
            engine,
            "--workers",
            "2",
            "--deadline",
            "3600",
        ],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_until(lambda: workers_below(running.pid) and list(tmp_path.glob("stores/*/canary.f32")))
    processes = below(running.pid)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=300)  # the base is stuck for an hour
    assert running.returncode == 130, said
    assert b"Traceback" not in said
    wait_until(lambda: not [n for n in processes if is_alive(n)])


@pytest.mark.fault(3)
@pytest.mark.parametrize("engine", [where_installed("dask")])
def test_what_a_scheduler_started_here_says_of_its_end_is_not_the_users(
    engine: str, source: Path, tmp_path: Path
) -> None:
    """Ctrl-C while a worker tells how far it is: a critical line with a traceback, once in some hundred times."""
    said, logger = io.StringIO(), logging.getLogger("distributed")
    logger.addHandler(as_dask_does := logging.StreamHandler(said))
    opening = Open(open_source(source), (BaseRequest(base="tests.fakes:base"),), Cache(tmp_path))
    assignment = Assignment(opening, Limits(), ())
    try:
        with catalog.load("engine", catalog.ENGINES, engine)(
            WorkerConfig(engine=engine, workers=1), assignment
        ):
            logging.getLogger("distributed.scheduler").critical("of no use to anybody")
        assert said.getvalue() == ""
        logger.critical("of use")
        assert "of use" in said.getvalue()
    finally:
        logger.removeHandler(as_dask_does)


@pytest.mark.fault(78)
@everywhere
def test_a_shard_that_is_run_twice_at_once_is_one_shard(
    engine: str, source: Path, tmp_path: Path, straight: dict[str, str]
) -> None:
    """As when a scheduler takes a worker for dead that is only slow: both finish, and one record stands."""
    opened, cache, request = open_source(source), Cache(tmp_path), BaseRequest(base="tests.fakes:slow_base")
    inventory = scan_source(opened, cache.scans)
    spec = slow_base().spec
    open_for_building(cache, open_store(cache, spec).folder)
    todo = plan_tasks(inventory, spec, np.zeros(len(inventory), bool), task_rows=ROWS)
    assignment = Assignment(Open(opened, (request,), cache), Limits(), (spec,))
    with start_pool(WorkerConfig(engine=engine, workers=2), assignment, inventory) as pool:
        at_once = [pool.begin(todo[0], lambda _: None) for _ in range(2)]
        late = [future.result() for future in at_once] and pool.begin(todo[0], lambda _: None)
        outcomes = [future.result() for future in [*at_once, late]]
    assert [outcome.computed for (outcome,) in outcomes] == [ROWS] * 3
    made = shards(tmp_path)
    assert {name: straight[name] for name in made} == made
    assert open_store(cache, spec).known(inventory.keys).sum() == ROWS


class OnlyHere(FolderSource):
    """Files that other processes do not see."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.home = os.getpid()

    def read(self, path: bytes) -> bytes:
        if os.getpid() != self.home:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", os.fsdecode(path))
        return super().read(path)


@pytest.mark.fault(78)
@on_clusters
def test_a_cluster_that_does_not_see_the_source_is_told_so_before_anything_is_computed(
    engine: str, source: Path, tmp_path: Path
) -> None:
    opened, cache = OnlyHere(str(source)), Cache(tmp_path)
    with pytest.raises(EngineError, match=rf"{platform.node()}.*does not see the source: .*000.png"):
        extract_one(
            opened,
            lambda: scan_source(opened, cache.scans),
            BaseRequest(base="tests.fakes:base"),
            cache,
            Silent(),
            workers=WorkerConfig(engine=engine, workers=2),
        )
    assert list(tmp_path.glob("stores/*/shards/*")) == []


@on_clusters
def test_an_address_where_nobody_listens_is_said_to_be_one(
    engine: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bottleneck.extraction.engines.dask_engine._CONNECT", 0.5)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(EngineError, match=f"--engine {engine}: no .* at {address}"):
            run(source, tmp_path, WorkerConfig(engine=engine, address=address))
    assert list(tmp_path.glob(".*")) == []
