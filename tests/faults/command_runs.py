"""Runs of the command line in small tasks: started, waited for, killed; what they leave on the disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottleneck.extraction.report import Extraction
from bottleneck.extraction.worker.main import Worker
from bottleneck.inventory.scan import scan_source
from bottleneck.schema import BaseRequest, Cache
from bottleneck.schema.strict_json import MalformedDocument
from bottleneck.sources.open import open_source
from bottleneck.store.record import read_record
from bottleneck.system.progress import Silent
from tests.fakes import FakeForward
from tests.faults.reference_stores import FAKE, ROOT
from tests.in_process import extract_one

WIDE = "tests.faults.large_rows:wide"


@dataclass
class Ended:
    """A run that ended by itself."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def check_clean(self) -> None:
        """A typed error: its own exit status, one message, no traceback."""
        assert self.status in (1, 2, 3), (self.status, self.err)
        assert "Traceback" not in self.err, self.err
        assert self.json["error"] and "error: " in self.err


def start(
    source: Path,
    cache: Path,
    *,
    base: str = FAKE,
    rows: int = 4,
    patience: float = 20,
    prefix: Sequence[str] = (),
    command: str = "extract",
    more: Sequence[object] = (),
    **environment: str,
) -> subprocess.Popen[str]:
    """A run of the command line with `rows` images a task."""
    return subprocess.Popen(
        [
            *prefix,
            *(sys.executable, "-m", "tests.faults.small_tasks", str(rows), str(patience)),
            *(command, str(source), "--base", base, "--cache", str(cache), "--json", "--quiet"),
            *map(str, more),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(running: subprocess.Popen[str], timeout: float = 3000) -> Ended:
    """Wait for it; one that hangs is killed and an error."""
    try:
        out, err = running.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        running.kill()
        running.communicate()
        raise
    return Ended(running.returncode, out, err)


def run(source: Path, cache: Path, **options: Any) -> Ended:
    return end(start(source, cache, **options))


def again(source: Path, cache: Path, forward: FakeForward | None = None, rows: int = 4) -> Extraction:
    """The same command in this process: as the worker does it, without the process. Milliseconds."""
    opened, where = open_source(source), Cache(cache)
    done, _, _ = extract_one(
        opened,
        lambda: scan_source(opened, where.scans),
        BaseRequest(base="object:fake"),
        where,
        Silent(),
        worker=Worker(forward or FakeForward(), opened, where),
        task_rows=rows,
    )
    return done


def shard_files(cache: Path) -> dict[str, str]:
    """Every file of every shard that has a name, with its hash."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in cache.glob("stores/*/shards/*")
        if not path.name.startswith(".")
    }


def committed(cache: Path) -> set[str]:
    """Names of the records that count: whole, and beside a shard of the size they say."""
    found: set[str] = set()
    for path in cache.glob("stores/*/shards/*.json"):
        with contextlib.suppress(OSError, MalformedDocument):
            record = read_record(path.parent, path.name)
            if not record.rows or (path.parent / record.shard).lstat().st_size == record.file_bytes:
                found.add(path.name)
    return found


def leftovers(cache: Path) -> list[str]:
    """Temporaries, locks and plans that are still there."""
    found = [*cache.glob("stores/*/locks/*"), *cache.glob("stores/*/plans/*"), *cache.glob("stores/**/.*")]
    return sorted(path.name for path in found)


def wait_until(true: Callable[[], object], timeout: float = 300, pause: float = 0.002) -> None:
    until = time.monotonic() + timeout
    while not true():
        if time.monotonic() > until:
            raise AssertionError(f"not so after {timeout} s")
        time.sleep(pause)


def children(process: int) -> list[int]:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
        return [int(number) for number in text.split()]
    return []


def state_of(process: int) -> str:
    """The kernel's letter for it: R, S, D, T (stopped), Z (dead), X where it is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def is_alive(process: int) -> bool:
    return state_of(process) not in "ZX"


@contextlib.contextmanager
def ended_at_last(running: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Whatever a test does or fails to do, nothing goes on behind its back."""
    try:
        yield running
    finally:
        running.kill()
        running.communicate()
