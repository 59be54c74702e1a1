"""How much builders of one store compute twice: `python -m tests.extraction.measure_builders BUILDERS TASKS [ROWS]`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.extraction.builder_processes import finish, start, twice
from tests.fakes import write_images


def measure(builders: int, tasks: int, rows: int = 4) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        source = write_images(Path(folder) / "in", {"cat": tasks * rows}, size=(4, 4))
        started = time.perf_counter()
        running = [start(source, Path(folder) / "cache", task_rows=rows) for _ in range(builders)]
        reports = [finish(builder, 600) for builder in running]
        seconds = time.perf_counter() - started
    return {
        "builders": builders,
        "tasks": tasks,
        "twice": twice(reports, tasks * rows),
        "seconds": seconds,
        "fewest": min(report["computed"] for report in reports),
        "most": max(report["computed"] for report in reports),
    }


if __name__ == "__main__":
    print(measure(*map(int, sys.argv[1:])))
