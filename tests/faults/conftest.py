"""Fixtures of the fault suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bottleneck.schema import Cache
from tests.faults.plugin import NOTE, regime
from tests.here import Call, WorkerHere, caller


@pytest.fixture
def full() -> bool:
    """Whole sweeps (`scripts/faults`), or one seeded sample of each."""
    return regime() == "full"


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Adds a remark to the row's line in the table: counts, mostly."""
    return lambda text: request.node.user_properties.append((NOTE, text))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def worker_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extraction by the worker's own code in this process, where processes are not the subject."""
    monkeypatch.setattr("bottleneck.extraction.fill.WorkerProcess", WorkerHere)


@pytest.fixture
def call(
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    worker_here: None,
) -> Call:
    """The command line in this process."""
    monkeypatch.setenv("BOTTLENECK_CACHE", str(tmp_path / "cache"))
    return caller(capfdbinary)
