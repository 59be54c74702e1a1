"""What a supervisor looks at before it computes, and whom it blames."""

from __future__ import annotations

import dataclasses
import os
import platform
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import BaseError, BottleneckError, EngineError
from bottleneck.extraction.engines.supervisor import Assignment, Supervisor, check_machine, shared_probe
from bottleneck.extraction.resources import WorkerSlot
from bottleneck.extraction.worker.messages import Open
from bottleneck.inventory.scan import scan_source
from bottleneck.schema import BaseRequest, Cache, Inventory, Limits, Task
from bottleneck.sources.open import open_source
from bottleneck.store.header import open_for_building
from bottleneck.store.plan import plan_tasks
from bottleneck.store.read import open_store
from tests.fakes import base, other_base, write_images


@pytest.fixture
def scanned(tmp_path: Path) -> tuple[Assignment, Inventory]:
    source = open_source(write_images(tmp_path / "in", {"cat": 4}))
    cache = Cache(tmp_path / "cache")
    inventory = scan_source(source, cache.scans)
    open_for_building(cache, open_store(cache, base().spec).folder)
    request = BaseRequest(base="tests.fakes:base")
    return Assignment(Open(source, (request,), cache), Limits(), (base().spec,)), inventory


@pytest.fixture
def assignment(scanned: tuple[Assignment, Inventory]) -> Iterator[Assignment]:
    given, inventory = scanned
    with shared_probe(given.opening.source, inventory, given.opening.cache) as probe:
        yield dataclasses.replace(given, probe=probe)


def task_of(scanned: tuple[Assignment, Inventory]) -> Task:
    given, inventory = scanned
    return plan_tasks(inventory, given.specs[0], np.zeros(len(inventory), bool))[0]


def test_a_machine_that_sees_everything_may_work_and_leaves_no_trace(assignment: Assignment) -> None:
    before = sorted(os.listdir(assignment.opening.cache.root))
    check_machine(assignment)
    assert sorted(os.listdir(assignment.opening.cache.root)) == before


@pytest.mark.fault(78)
def test_what_a_machine_does_not_see_is_named_with_the_machine(
    assignment: Assignment, tmp_path: Path
) -> None:
    probe = assignment.probe
    assert probe is not None and probe.image is not None
    moved = dataclasses.replace(probe.image, path=b"cat/nine.png")
    other_bytes = dataclasses.replace(probe.image, content=bytes(32))
    elsewhere = Cache(tmp_path / "elsewhere")
    cases = {
        "does not see the cache": {
            "probe": dataclasses.replace(probe, path=elsewhere.root / "probe"),
            "opening": dataclasses.replace(assignment.opening, cache=elsewhere),
        },
        "sees another cache": {"probe": dataclasses.replace(probe, token="of another run")},
        "does not see the source: cat/nine.png": {"probe": dataclasses.replace(probe, image=moved)},
        "sees another source": {"probe": dataclasses.replace(probe, image=other_bytes)},
        "has bottleneck-features .*, this run 0.0.1": {"version": "0.0.1"},
    }
    for said, other in cases.items():
        with pytest.raises(EngineError, match=f"worker on {platform.node()} .*{said}"):
            check_machine(dataclasses.replace(assignment, **other))


def test_an_image_that_vanished_since_the_scan_is_no_machines_fault(
    scanned: tuple[Assignment, Inventory],
) -> None:
    given, inventory = scanned
    Path(given.opening.source.location, "cat/000.png").unlink()
    with shared_probe(given.opening.source, inventory, given.opening.cache) as probe:
        assert probe.image is not None and probe.image.path == b"cat/001.png"
        check_machine(dataclasses.replace(given, probe=probe))
    assert list(given.opening.cache.root.glob(".*")) == []


def test_a_base_that_is_another_one_there_computes_nothing(scanned: tuple[Assignment, Inventory]) -> None:
    supervisor = Supervisor(dataclasses.replace(scanned[0], specs=(other_base().spec,)), WorkerSlot())
    with pytest.raises(BaseError, match=f"fake as built on {platform.node()} has recipe"):
        supervisor.compute(task_of(scanned), lambda _: None)
    supervisor.end()
    assert list(scanned[0].opening.cache.root.glob("stores/*/shards/*")) == []


def test_the_worker_outlives_the_thread_that_asked_for_it(scanned: tuple[Assignment, Inventory]) -> None:
    """Linux ends a child when the thread that started it ends."""
    supervisor, told = Supervisor(scanned[0], WorkerSlot()), []
    asking = threading.Thread(target=lambda: supervisor.compute(task_of(scanned), told.append))
    asking.start()
    asking.join()
    process = supervisor._worker._channel.process
    assert told[-1] == 4
    assert process is not None
    assert process.poll() is None
    supervisor.end()
    assert process.poll() is not None
    with pytest.raises(BottleneckError, match="ended with its run"):
        supervisor.compute(task_of(scanned), told.append)
