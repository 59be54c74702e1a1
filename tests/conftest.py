"""Settings of the suite: no deadlines on a shared machine, a cache of its own, tools skipped by name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# A law is a law however busy the machine is; the seed is fixed so that a red run can be had again.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may touch, or profit from, the cache of whoever runs it."""
    monkeypatch.setenv("BOTTLENECK_CACHE", str(tmp_path_factory.getbasetemp() / "unnamed-cache"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs_tool"):
        if shutil.which(mark.args[0]) is None:
            pytest.skip(f"needs the tool {mark.args[0]!r}")


@pytest.fixture
def cache_folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"
