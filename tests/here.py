"""The command line in this process, and a worker in it too, where processes are not the subject: milliseconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from bottleneck import cli
from bottleneck.bases import custom
from bottleneck.extraction.worker.main import Worker
from bottleneck.schema import BaseRequest, Cache, Limits

FAKE = "tests.fakes:base"


class WorkerHere(Worker):
    """What `WorkerProcess` is to `fill`, without the process."""

    def __init__(self, requests: Sequence[BaseRequest], cache: Cache, limits: Limits | None = None) -> None:
        super().__init__(custom.call(requests[0].base), cache, requests)


@dataclass
class Said:
    """What a command ended with and said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on standard output; more or less than one is an error."""
        return json.loads(self.out)


Call = Callable[..., Said]


def caller(capfdbinary: pytest.CaptureFixture[bytes]) -> Call:
    """A function that runs one command and gives back all that it said."""

    def call(*arguments: object) -> Said:
        capfdbinary.readouterr()
        status = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capfdbinary.readouterr()
        return Said(status, out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "surrogateescape"))

    return call
