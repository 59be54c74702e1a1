"""Run the command line and its worker in this process, in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from bottleneck import cli
from bottleneck.bases import custom
from bottleneck.contracts import Source
from bottleneck.extraction.report import Extraction
from bottleneck.extraction.run import ExtractionRun
from bottleneck.extraction.setup import RunOptions
from bottleneck.extraction.worker.main import Worker
from bottleneck.extraction.worker.messages import Open
from bottleneck.schema import BaseRequest, Cache, Inventory, Limits
from bottleneck.store.read import Store
from bottleneck.system.progress import Progress

FAKE = "tests.fakes:base"


class InProcessWorker(Worker):
    """A stand-in for `WorkerProcess` that needs no process."""

    def __init__(self, opening: Open, limits: Limits | None = None) -> None:
        forward = custom.call(opening.requests[0].base)
        super().__init__(forward, opening.source, opening.cache, opening.requests)


@dataclass
class CommandResult:
    """Exit status and output of one command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on standard output; more or less than one is an error."""
        return json.loads(self.out)


Call = Callable[..., CommandResult]


def caller(capfdbinary: pytest.CaptureFixture[bytes]) -> Call:
    """Return a function that runs one command and returns its output."""

    def call(*arguments: object) -> CommandResult:
        capfdbinary.readouterr()
        status = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capfdbinary.readouterr()
        return CommandResult(
            status, out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "surrogateescape")
        )

    return call


def extract_one(
    source: Source,
    scan: Callable[[], Inventory],
    request: BaseRequest,
    cache: Cache,
    progress: Progress,
    *,
    task_rows: int | None = None,
    patience: float | None = None,
    **options: Any,
) -> tuple[Extraction, Inventory, Store]:
    """Run an `ExtractionRun` at one cut; `options` are those of `RunOptions`."""
    run = ExtractionRun(source, scan, [request], cache, progress, RunOptions(**options))
    run.task_rows = task_rows
    if patience is not None:
        run.patience = patience
    (done,), inventory = run.run()
    return done.report, inventory, done.store
