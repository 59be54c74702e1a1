"""Fixtures of the fault suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bottleneck.schema import Cache
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
