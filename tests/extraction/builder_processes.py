"""Several builders of one store as real processes: the same work, started so many times.

    python -m tests.extraction.builder_processes SOURCE CACHE [BASE [TASK_ROWS [PATIENCE [ENGINE WORKERS]]]]

is one of them; `start` and `finish` are for tests and for measurements of any size.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bottleneck.inventory.scan import scan_source
from bottleneck.schema import BaseRequest, Cache, Limits, WorkerConfig
from bottleneck.sources.open import open_source
from bottleneck.system.progress import Silent
from tests.in_process import extract_one

SLOW = "tests.fakes:slow_base"
ROOT = Path(__file__).parent.parent.parent


def start(
    source: Path,
    cache: Path,
    *,
    base: str = SLOW,
    task_rows: int = 4,
    patience: float = 20.0,
    team: tuple[str, ...] = (),
) -> subprocess.Popen[str]:
    """One more builder."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.extraction.builder_processes", str(source), str(cache)),
            *(base, str(task_rows), str(patience), *team),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(builder: subprocess.Popen[str], timeout: float = 600) -> dict[str, Any]:
    """What a builder reports; an error of its own is an error here."""
    out, err = builder.communicate(timeout=timeout)
    assert builder.returncode == 0, err
    return json.loads(out)


def twice(reports: list[dict[str, Any]], rows: int) -> float:
    """Share of the rows that were computed more than once."""
    return sum(report["computed"] for report in reports) / rows - 1


def main(
    source: str,
    cache: str,
    base: str = SLOW,
    task_rows: str = "4",
    patience: str = "20",
    engine: str = "",
    workers: str = "2",
) -> dict[str, Any]:
    opened = open_source(source)
    where = Cache(Path(cache))
    done, _, _ = extract_one(
        opened,
        lambda: scan_source(opened, where.scans),
        BaseRequest(base=base),
        where,
        Silent(),
        limits=Limits(deadline=60),
        workers=WorkerConfig(engine=engine, workers=int(workers)) if engine else None,
        task_rows=int(task_rows),
        patience=float(patience),
    )
    names = ("images", "computed", "reused", "duplicates", "rejected", "seconds")
    return {name: value for name, value in dataclasses.asdict(done).items() if name in names}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
