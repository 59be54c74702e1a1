"""Bases whose rows are large, so that a run spends its time writing: `--base tests.faults.large_rows:…`.

`traced` says in the file that FAULTS_TRACE names what the worker is at, so that what a kill -9 hit is known after it.
"""

from __future__ import annotations

import mmap
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck.extraction.worker import row_writer
from bottleneck.store import commit
from tests.fakes import WIDTH, FakeForward

#: Rows of 96 KiB.
TIMES = 4096

_STAGE, _PASSES, _SIZE = 48, 8, 64

_KINDS = {".h5": "shard", ".blocks": "block hashes", ".json": "record"}


class WideForward(FakeForward):
    """Each feature of the fake base, many times over."""

    def __init__(self) -> None:
        super().__init__()
        recipe = self.spec.recipe.model_copy(update={"base_digest": "f" * 64})
        self.spec = self.spec.model_copy(update={"shape": (TIMES * WIDTH,), "recipe": recipe})

    def features(self, pixels: np.ndarray) -> np.ndarray:
        factors = np.arange(1, TIMES + 1, dtype=np.float32)
        rows = super().features(pixels)
        return (rows[:, None, :] * factors[:, None]).reshape(len(rows), -1)


class Trace:
    """A few bytes that outlive whoever writes them.

    Parameters
    ----------
    path : Path
        Made where it is not there.
    """

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(_SIZE)
            self._bytes = mmap.mmap(file.fileno(), _SIZE)

    @property
    def stage(self) -> str:
        """What the worker is at; empty before it has a base."""
        return self._bytes[:_STAGE].rstrip(b"\0").decode()

    @stage.setter
    def stage(self, text: str) -> None:
        self._bytes[:_STAGE] = text.encode().ljust(_STAGE, b"\0")

    @property
    def passes(self) -> int:
        """Forward passes of all workers that wrote here."""
        return int.from_bytes(self._bytes[_STAGE : _STAGE + _PASSES], "little")

    def passed(self) -> None:
        self._bytes[_STAGE : _STAGE + _PASSES] = (self.passes + 1).to_bytes(_PASSES, "little")


class TracedForward(WideForward):
    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def decode(self, data: bytes) -> np.ndarray:
        self._trace.stage = "reading and decoding"
        return super().decode(data)

    def features(self, pixels: np.ndarray) -> np.ndarray:
        self._trace.stage = "forward pass"
        self._trace.passed()
        return super().features(pixels)


def wide() -> FakeForward:
    return WideForward()


def traced() -> FakeForward:
    trace = Trace(Path(os.environ["FAULTS_TRACE"]))
    _watch(trace)
    return TracedForward(trace)


def cramped() -> FakeForward:
    """From now on this process may have so many MiB more than it has."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    bound = held + (int(os.environ["FAULTS_SPARE_MIB"]) << 20)
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    return WideForward()


class HungryForward(WideForward):
    """Two GiB a forward pass, once the store is founded."""

    passes = 0

    def features(self, pixels: np.ndarray) -> np.ndarray:
        self.passes += 1
        held = np.ones(1 << 28 if self.passes > 3 else 1)
        rows = super().features(pixels)
        del held
        return rows


def hungry() -> FakeForward:
    return HungryForward()


def _watch(trace: Trace) -> None:
    """Have the steps of a commit traced. Only in a worker process of its own: nothing is put back."""
    kind = "header"

    def during(module: Any, name: str, stage: Callable[..., str], after: str | None = None) -> None:
        real = getattr(module, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            trace.stage = stage(*arguments)
            result = real(*arguments, **options)
            if after is not None:
                trace.stage = after
            return result

        setattr(module, name, wrapped)

    def publishing(path: Path, *_: object) -> str:
        nonlocal kind
        kind = _KINDS.get(path.suffix, "header")
        return f"{kind}: opening the temporary"

    during(commit, "publish", publishing, "between two files")
    during(commit, "build_shard", lambda *_: "building the shard")
    during(row_writer, "commit", lambda *_: "building the shard", "between two tasks")
    for name in ("posix_fallocate", "write"):
        during(os, name, lambda *_: f"{kind}: writing the temporary")
    during(os, "fsync", lambda *_: f"{kind}: fsync")
    for name in ("link", "unlink"):
        during(os, name, lambda *_: f"{kind}: naming")
