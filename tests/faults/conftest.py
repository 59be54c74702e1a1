"""Fixtures of the fault suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bottleneck.schema import Cache
from tests.fakes import write_images
from tests.faults.command_runs import again, shard_files
from tests.faults.plugin import NOTE, regime


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


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three tasks."""
    return write_images(tmp_path_factory.mktemp("images"), {"cat": 7, "dog": 5})


@pytest.fixture(scope="session")
def straight(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The shard files of a run that nobody disturbed."""
    cache = tmp_path_factory.mktemp("straight")
    again(source, cache)
    return shard_files(cache)
