"""Which part of a machine each worker gets: pure, so that eight GPUs need not be there."""

from __future__ import annotations

from pathlib import Path

import pytest

from bottleneck.errors import UsageError
from bottleneck.extraction.resources import (
    WorkerResources,
    WorkerSlot,
    gpus_here,
    number_slots,
    worker_resources,
)
from bottleneck.pipeline.session import Session
from bottleneck.schema import WorkerConfig


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(8, 1, 8), (8, 2, 4), (8, 3, 2), (2, 2, 1), (2, 5, 1)]
)
def test_workers_of_a_machine_share_its_cores(cores: int, workers: int, threads: int) -> None:
    assert {worker_resources(WorkerSlot(index, workers), cores).threads for index in range(workers)} == {
        threads
    }


def test_each_gpu_gets_one_worker_and_then_a_second() -> None:
    gpus = ["4", "GPU-8a", "6"]
    assert [worker_resources(WorkerSlot(index, 3), 12, gpus).gpu for index in range(3)] == gpus
    assert [worker_resources(WorkerSlot(index, 6), 12, gpus).gpu for index in range(6)] == gpus * 2
    assert worker_resources(WorkerSlot(1, 2), 4, gpus, threads=3) == WorkerResources(3, "GPU-8a")


def test_workers_are_numbered_on_their_own_machine() -> None:
    assert number_slots(["b", "a", "b", "b"]) == [
        WorkerSlot(0, 3),
        WorkerSlot(0, 1),
        WorkerSlot(1, 3),
        WorkerSlot(2, 3),
    ]


def test_a_worker_is_told_in_the_words_of_its_libraries() -> None:
    assert WorkerResources(2).environment() == {
        "TF_NUM_INTRAOP_THREADS": "2",
        "TF_NUM_INTEROP_THREADS": "2",
        "OMP_NUM_THREADS": "2",
    }
    assert WorkerResources(1, "3").environment()["CUDA_VISIBLE_DEVICES"] == "3"


@pytest.mark.parametrize(("said", "seen"), [("", []), ("-1", []), ("2,GPU-1", ["2", "GPU-1"])])
def test_gpus_are_those_that_the_environment_leaves(
    said: str, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert gpus_here() == seen


def test_gpus_are_counted_without_asking_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert gpus_here(tmp_path) == ["0", "1"]
    assert gpus_here(tmp_path / "none") == []


def test_one_worker_here_needs_no_engine_and_several_gpus_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Session.parse({}).engine_workers is None
    assert (
        Session.parse({"engine": "local", "workers": None, "threads": None, "address": None}).engine_workers
        is None
    )
    assert Session.parse({"workers": 2}).engine_workers == WorkerConfig(workers=2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert Session.parse({}).engine_workers == WorkerConfig()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"engine": "dusk"}, "no engine called 'dusk'; nearest: dask"),
        ({"workers": 0}, "workers"),
        ({"address": "tcp://host:8786"}, "the local engine has none"),
    ],
)
def test_teams_that_cannot_be_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Session.parse(given)
