"""Single flipped bits, each judged in a child process: one that hangs, dies or serves a wrong row is told apart.

The parent flips a bit of a file, asks the child what comes of it, waits at most half a minute, and puts the bit back.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bottleneck.errors import BottleneckError
from bottleneck.extraction.run import ExtractionRun
from bottleneck.schema import Cache
from tests.faults.reference_stores import ROOT, SPEC, WIDE, check_served, serve, some_store
from tests.in_process import InProcessWorker

DEADLINE = 30.0
#: Importing NumPy and this package on a busy machine takes longer than any flip may.
_START = 120.0


@dataclass(frozen=True)
class Flip:
    """One bit of one file."""

    path: Path
    offset: int
    bit: int

    def toggle(self) -> None:
        with self.path.open("r+b") as file:
            byte = os.pread(file.fileno(), 1, self.offset)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 1 << self.bit]), self.offset)

    def __str__(self) -> str:
        return f"bit {self.bit} of byte {self.offset} of {self.path.name}"


@dataclass
class Tally:
    """What came of many flips."""

    count: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ("detected", "harmless", "SILENT", "HANG", "CRASH")
        each = ", ".join(f"{self.count[kind]:,} {kind.lower()}" for kind in kinds)
        return f"{self.count.total():,} flips: {each}"


def positions(path: Path, count: int, seed: int = 0) -> list[Flip]:
    """`count` bits of a file, spread evenly over it with a random one in each stretch: every region has its share."""
    size = path.stat().st_size * 8
    edges = np.linspace(0, size, min(count, size) + 1, dtype=np.int64)
    draw = np.random.default_rng(seed)
    bits = [int(draw.integers(low, high)) for low, high in itertools.pairwise(edges)]
    return [Flip(path, bit // 8, bit % 8) for bit in bits]


def sweep(flips: list[Flip], question: str) -> Tally:
    """Judge each flip by what the child answers to `question` meanwhile."""
    tally = Tally()
    child: Child | None = None
    try:
        for flip in flips:
            child = child or Child()
            flip.toggle()
            try:
                answer = child.answer(question)
            finally:
                flip.toggle()
            kind, _, why = answer.partition(":")
            tally.count[kind] += 1
            if kind not in ("detected", "harmless"):
                tally.bad.append(f"{kind} at {flip}: {why}")
            if kind in ("HANG", "CRASH"):
                child.end()
                child = None
    finally:
        if child is not None:
            child.end()
    return tally


class Child:
    """The process that looks at damaged stores."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.bit_flips"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        if self._line(_START) != "ready":
            raise AssertionError(f"the child did not start: {self._obituary()}")

    def answer(self, question: str) -> str:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(question.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return f"CRASH: {self._obituary()}"
        line = self._line(DEADLINE)
        if line is None:
            return f"HANG: no answer within {DEADLINE:g} s"
        return line or f"CRASH: {self._obituary()}"

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self, deadline: float) -> str | None:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], deadline)
        return self._process.stdout.readline().decode().rstrip("\n") if ready else None

    def _obituary(self) -> str:
        assert self._process.stderr is not None
        status = self._process.wait()
        return f"status {status}; {self._process.stderr.read().decode(errors='replace')[-300:]!r}"


def stored(cache: Cache, shards: int, rows: int, *, wide: bool = False) -> str:
    """The child is to serve every row of a store that `some_store` made."""
    return json.dumps({"cache": str(cache.root), "shards": shards, "rows": rows, "wide": wide})


def added_to(cache: Cache, images: Path, expected: list[str]) -> str:
    """The child is to extract `images`, of which `cache` has a part, to a copy of it; `expected` names the shards."""
    return json.dumps({"cache": str(cache.root), "images": str(images), "expected": expected})


def main() -> None:
    """In the child: one JSON question a line in, one verdict a line out."""
    ExtractionRun.worker_type = InProcessWorker
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        verdict = _add(**asked) if "images" in asked else _serve(**asked)
        print(" ".join(verdict.split())[:400], flush=True)


@functools.cache
def _reference(shards: int, rows: int, wide: bool) -> tuple[np.ndarray, np.ndarray]:
    # Made anew by the same arithmetic: nothing on the disk under test vouches for itself.
    with tempfile.TemporaryDirectory() as scratch:
        return some_store(Cache(Path(scratch)), shards, rows, WIDE if wide else SPEC)


def _serve(cache: str, shards: int, rows: int, wide: bool) -> str:
    served = serve(Cache(Path(cache)), *_reference(shards, rows, wide), WIDE if wide else SPEC)
    return f"{served.verdict}: {' | '.join(served.told)}"


def _add(cache: str, images: str, expected: list[str]) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        copy = Cache(Path(scratch) / "cache")
        shutil.copytree(cache, copy.root)
        try:
            check_served(Path(images), copy.root)
        except BottleneckError as error:
            return f"detected: {error}"
        except AssertionError as error:
            return f"SILENT: {error}"
        there = sorted(path.name for path in copy.stores.glob("*/shards/*.h5"))
    return "harmless: " if there == expected else f"SILENT: shards {there}, not {expected}"


if __name__ == "__main__":
    main()
