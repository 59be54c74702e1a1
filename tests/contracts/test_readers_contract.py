"""Clusters that read the files of a scan, with real schedulers."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import bottleneck
from bottleneck import catalog
from bottleneck.contracts import Readers
from bottleneck.errors import EngineError
from bottleneck.inventory.scan import scan_source
from bottleneck.schema import WorkerConfig
from bottleneck.sources.folder import FolderSource
from bottleneck.sources.open import open_source
from tests.contracts.test_engine_contract import NEEDS, OnlyHere, on_clusters
from tests.fakes import write_images


@pytest.fixture(autouse=True)
def asked_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottleneck.inventory.hashing._FEW", 2)
    monkeypatch.setattr("bottleneck.inventory.hashing._ELSEWHERE", 4)


@contextmanager
def cluster(engine: str) -> Iterator[str]:
    """The address of one of two processes that is there before the run."""
    if engine == "dask":
        from distributed import LocalCluster

        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as made:
            yield made.scheduler_address
        return
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield "auto"
    finally:
        ray.shutdown()


@contextmanager
def readers(engine: str) -> Iterator[Readers]:
    """Of such a cluster."""
    with cluster(engine) as address:
        made: Callable[[WorkerConfig], Readers] = catalog.load("engine", catalog.READERS, engine)
        yield made(WorkerConfig(engine=engine, address=address))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", {"cat": 20, "dog": 20})


class Told(FolderSource):
    """Writes down which process reads."""

    def read(self, path: bytes) -> bytes:
        with open(f"{self.location}.log", "a") as log:
            log.write(f"{os.getpid()}\n")
        return super().read(path)


def test_every_engine_that_has_addresses_reads_for_scans() -> None:
    assert set(catalog.READERS) == set(NEEDS) - {"local"}


@on_clusters
def test_a_cluster_reads_the_files_of_a_scan(engine: str, source: Path, tmp_path: Path) -> None:
    with readers(engine) as there:
        found = scan_source(Told(str(source)), tmp_path / "scans", readers=there)
        with pytest.raises(EngineError, match=rf"{platform.node()}.*does not see the source: .*000.png"):
            scan_source(OnlyHere(str(source)), None, readers=there)
    assert found.table.equals(scan_source(open_source(source), None).table)
    by = Path(f"{source}.log").read_text().split()
    assert by.count(str(os.getpid())) == 1  # what the others must see
    assert len(by) >= 40 + 1


class DiesOnce(FolderSource):
    """The first process elsewhere that reads one of the files dies of it."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.home = os.getpid()

    def read(self, path: bytes) -> bytes:
        died = Path(f"{self.location}.died")
        if b"007" in path and os.getpid() != self.home and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(path)


@pytest.mark.fault(4)
@on_clusters
def test_a_process_that_is_killed_while_it_reads_costs_no_row(engine: str, source: Path) -> None:
    with readers(engine) as there:
        found = scan_source(DiesOnce(str(source)), None, readers=there)
    assert Path(f"{source}.died").exists()
    assert found.table.equals(scan_source(open_source(source), None).table)
    assert found.unreadable == ()


@on_clusters
def test_extract_has_its_cluster_read(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_images(tmp_path / "few", {"cat": 2, "dog": 2})
    asked: list[int] = []
    made = catalog.load("engine", catalog.READERS, engine)
    submit = made.submit
    monkeypatch.setattr(made, "submit", lambda *given: (asked.append(1), submit(*given))[1])
    with cluster(engine) as address:
        done = bottleneck.extract(
            source, base="tests.fakes:base", cache=tmp_path / "cache", engine=engine, address=address
        )
    assert done.computed == 4
    assert asked == [1]
