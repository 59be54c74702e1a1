"""Run the command line with small tasks, as a process of its own.

    python -m tests.faults.small_tasks ROWS PATIENCE COMMAND …

What a run acknowledges, task by task, goes to the file that FAULTS_ACKS names: a task is acknowledged when the worker
has said that it is done. With FAULTS_HERE the worker is in the same process, for what is laid on one process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bottleneck import cli
from bottleneck.extraction.run import ExtractionRun
from bottleneck.extraction.worker.process import WorkerProcess
from tests.in_process import InProcessWorker


def acknowledge(path: Path) -> None:
    """Have every finished task written down."""
    real = WorkerProcess.compute

    def compute(self: WorkerProcess, task: Any, on_progress: Callable[[int], None]) -> Any:
        outcome = real(self, task, on_progress)
        with path.open("a", encoding="ascii") as file:
            file.write(task.id + "\n")
        return outcome

    WorkerProcess.compute = compute  # type: ignore[method-assign]


def main(rows: str, patience: str, *arguments: str) -> None:
    ExtractionRun.task_rows, ExtractionRun.patience = int(rows), float(patience)
    if "FAULTS_ACKS" in os.environ:
        acknowledge(Path(os.environ["FAULTS_ACKS"]))
    if "FAULTS_HERE" in os.environ:
        ExtractionRun.worker_type = InProcessWorker
    cli.main(list(arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
