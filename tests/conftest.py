"""Settings of the suite: no deadlines on a shared machine, a cache of its own, tools skipped by name."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from bottleneck.system import onednn
from tests.in_process import Call, InProcessWorker, caller
from tests.servers import ACCESS, Bucket, s3_server

pytest_plugins = ["tests.faults.plugin"]

# A law is a law however busy the machine is; the seed is fixed so that a red run can be had again.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")

# As the command sets them: a test that calls its `main` would otherwise set them for the processes of later tests
# alone, whose numbers are compared with this one's.
for _name, _value in {"TF_CPP_MIN_LOG_LEVEL": "2", **onednn.requested_environment()}.items():
    os.environ.setdefault(_name, _value)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may touch, or profit from, the cache of whoever runs it."""
    monkeypatch.setenv("BOTTLENECK_CACHE", str(tmp_path_factory.getbasetemp() / "unnamed-cache"))
    # The suite runs with and without a terminal, alone and in two processes: tables are as wide in each.
    monkeypatch.delenv("COLUMNS", raising=False)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs_tool"):
        if shutil.which(mark.args[0]) is None:
            pytest.skip(f"needs the tool {mark.args[0]!r}")


@pytest.fixture
def cache_folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def worker_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extraction by the worker's own code in this process, where processes are not the subject."""
    monkeypatch.setattr("bottleneck.extraction.run.ExtractionRun.worker_type", InProcessWorker)


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


@pytest.fixture(scope="session")
def _s3() -> Iterator[tuple[str, Iterator[int]]]:
    with s3_server() as endpoint:
        yield endpoint, itertools.count()


@pytest.fixture
def bucket(_s3: tuple[str, Iterator[int]], monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket of a real S3 server, and the environment in which clients find it."""
    endpoint, numbers = _s3
    for name, value in {**ACCESS, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    made = Bucket(endpoint, f"bucket-{next(numbers)}")
    made.put("", b"")
    return made
