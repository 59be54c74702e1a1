"""Measure reading a store: batches, scans, opening, training beyond memory.

Parts of benchmarks/bench.py (`store`, `open`, `memory`). Stores are made of random rows by the package's own
commit. With arguments of its own this file is a child process of these measurements.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Steps, say, shown, spread, table
from watching import MIB

from bottleneck.schema import Cache, Pixels, Preprocessing, Recipe, StoreSpec
from bottleneck.store.batches import batches, epoch_order
from bottleneck.store.commit import commit
from bottleneck.store.header import begin_store
from bottleneck.store.plan import task_id
from bottleneck.store.read import open_store
from bottleneck.store.rows import Rows

BATCH = 64
CLASSES = 10


def spec_of(width: int, dtype: str) -> StoreSpec:
    recipe = Recipe(
        base_digest="0" * 64,
        pooling="avg",
        pixels=Pixels(height=8, width=8),
        preprocessing=Preprocessing(),
        precision="float32",
        dtype=dtype,
    )
    return StoreSpec(base="made", cut="top", shape=(width,), recipe=recipe)


def made(work: Path, rows: int, width: int, dtype: str, task_rows: int) -> Cache:
    """Make a store of `rows` rows of ten overlapping classes, once."""
    cache = Cache(work / "caches" / f"made-{rows}-{width}-{dtype}")
    spec = spec_of(width, dtype)
    if len(open_store(cache, spec)) == rows:
        return cache
    say(f"making a store of {rows:,} x {width} {dtype}")
    shutil.rmtree(cache.root, ignore_errors=True)
    folder, _ = begin_store(cache, spec, 32)
    centres = np.random.default_rng(1).normal(size=(CLASSES, width)).astype(np.float32) * 0.1
    for start in range(0, rows, task_rows):
        numbers = np.arange(start, min(rows, start + task_rows))
        features = np.random.default_rng(start).standard_normal((len(numbers), width), np.float32)
        features += centres[numbers % CLASSES]
        keys = np.zeros((len(numbers), 32), np.uint8)
        keys[:, :8] = (
            (numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
            .astype(">u8")
            .view(np.uint8)
            .reshape(-1, 8)
        )
        keys[:, 8:16] = numbers.astype(">u8").view(np.uint8).reshape(-1, 8)
        commit(
            folder / "shards",
            task_id(keys),
            spec,
            keys,
            features.astype(dtype),
            rejected=[],
            environment={"forward": "made"},
            canary="0" * 64,
        )
    return cache


def in_order(cache: Cache, width: int, dtype: str) -> tuple[Rows, np.ndarray]:
    """All rows as they were made, and their labels."""
    store = open_store(cache, spec_of(width, dtype))
    numbers = np.ascontiguousarray(store.index.keys[:, 8:16]).view(">u8").ravel().astype(np.int64)
    order = np.argsort(numbers[store.index.numbers])
    return store.rows(order), np.arange(len(order)) % CLASSES


# ------------------------------------------------------------------------------------------------ batches and scans


def store(given: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """Time shuffled epochs and full scans against NumPy and h5py."""
    count, width, shards = 20_000, 2_048, 8
    cache = made(given.work, count, width, "float16", count // shards)
    command = [sys.executable, __file__, "epochs", str(cache.root), str(width), str(given.work / "flat")]
    rounds = []
    for number in range(given.rounds):
        rounds.append(steps.run(f"round {number + 1} of {given.rounds}", lambda: _child(command)))
    names = list(rounds[0])
    rows = {name: spread(r[name] for r in rounds) for name in names}

    def ratio(over: str, under: str) -> dict[str, Any]:
        return spread(r[under] / r[over] for r in rounds)

    ratios = {
        "streamed over memory": ratio("streamed", "memory"),
        "streamed over h5py": ratio("streamed", "h5py"),
        "loaded over memory": ratio("loaded", "memory"),
        "scan over np.load": ratio("scan", "np.load"),
    }
    bounds = {"streamed over memory": 0.35, "streamed over h5py": 40, "loaded over memory": 0.9}
    bounds["scan over np.load"] = 0.8
    microseconds = ("memory", "streamed", "loaded", "h5py")
    table(
        f"store: {count:,} x {width:,} float16 over {shards} shards, batches of {BATCH}, {given.rounds} processes",
        ["", "microseconds a row"],
        [[name, shown({**rows[name], **_scaled(rows[name], 1e6 / count)}, 3)] for name in microseconds],
    )
    table(
        "whole matrix",
        ["", "seconds"],
        [[name, shown(rows[name], 4)] for name in names if name not in microseconds],
    )
    table(
        "rows/s, ratios",
        ["", "ratio", "at least"],
        [[name, shown(found), f"{bounds[name]:g}"] for name, found in ratios.items()],
    )
    return {"rows": count, "width": width, "shards": shards, **rows, "ratios": ratios, "rounds": rounds}


def _scaled(figures: dict[str, Any], factor: float) -> dict[str, Any]:
    return {name: figures[name] * factor for name in ("median", "min", "max")}


def _epochs(root: str, width: str, flat: str) -> dict[str, float]:
    """Return median seconds of each contender over five turns."""
    import h5py

    folder = Path(flat)
    folder.mkdir(parents=True, exist_ok=True)
    cache = Cache(Path(root))
    started = time.perf_counter()
    X, _ = in_order(cache, int(width), "float16")
    seconds: dict[str, list[float]] = {"opening": [time.perf_counter() - started]}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        seconds.setdefault(name, []).append(time.perf_counter() - started)
        return result

    timed("first scan, with hashing", lambda: np.asarray(X))
    hashed, _ = in_order(cache, int(width), "float16")
    timed("hashing alone", hashed.check)
    array = timed("load time of the in-memory mode", X.read)
    flat_file, chunked = folder / "rows.npy", folder / "rows.h5"
    if not flat_file.is_file():
        np.save(flat_file, array)
        with h5py.File(chunked, "w") as file:
            file.create_dataset("features", data=array, chunks=(BATCH, array.shape[1]))
    np.load(flat_file)

    def every(X: Any, order: np.ndarray) -> None:
        for _ in batches(X, BATCH, order):
            pass

    def plain(X: np.ndarray, order: np.ndarray) -> None:
        for start in range(0, len(order), BATCH):
            X[order[start : start + BATCH]]

    def sorted_first(X: Any, order: np.ndarray) -> None:
        for start in range(0, len(order), BATCH):
            X[np.sort(order[start : start + BATCH])]

    with h5py.File(chunked) as file:
        for epoch in range(-1, 5):
            order = epoch_order(0, epoch + 2, len(X))
            if epoch < 0:  # warm
                seconds_before = dict(seconds)
            timed("memory", lambda o=order: plain(array, o))
            timed("streamed", lambda o=order: every(X, o))
            timed("loaded", lambda o=order: every(array, o))
            timed("scan", lambda: np.asarray(X))
            timed("np.load", lambda: np.load(flat_file))
            if epoch < 0:
                seconds = seconds_before
            elif epoch == 0:
                timed("h5py", lambda o=order: sorted_first(file["features"], o))
    return {name: statistics.median(begin_store) for name, begin_store in seconds.items()}


# ------------------------------------------------------------------------------------------------ opening


def opening(given: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """Measure opening a store of 1,000,000 x 64 float32."""
    cache = made(given.work, 1_000_000, 64, "float32", 1024)
    command = [sys.executable, __file__, "opened", str(cache.root), "64"]
    rounds = []
    for number in range(given.rounds):
        rounds.append(steps.run(f"round {number + 1} of {given.rounds}", lambda: _child(command)))
    rows = {name: spread(r[name] for r in rounds) for name in rounds[0]}
    table(
        f"open: 1,000,000 x 64 float32 over 977 shards, {given.rounds} processes",
        ["", "", "at most"],
        [
            ["seconds", shown(rows["seconds"]), "2"],
            ["peak MiB of the process", shown(rows["peak_mib"], 0), "200"],
            ["of it before opening", shown(rows["before_mib"], 0), ""],
        ],
    )
    return {"rows": 1_000_000, "width": 64, **rows, "rounds": rounds}


def _opened(root: str, width: str) -> dict[str, float]:
    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before, started = peak(), time.perf_counter()
    opened = open_store(Cache(Path(root)), spec_of(int(width), "float32"))
    seconds = time.perf_counter() - started
    assert len(opened) == 1_000_000
    return {"seconds": seconds, "peak_mib": peak(), "before_mib": before}


# ------------------------------------------------------------------------------------------------ less memory than rows


def memory(given: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """Train on stores of one to three times the allowed memory."""
    limit, width = 1 << 30, 25_088  # VGG16's last maps, flattened
    figures: dict[str, dict[str, Any]] = {}
    for times in (1, 2, 3):
        cache = made(given.work, times * limit // (4 * width), width, "float32", 256)
        for head in ("logistic", "dense"):
            # Fewer iterations or epochs over more rows. Of the dense head, that makes as many steps at every size: what
            # a process holds settles over its first thousand, and only the size of the store is to differ. An iteration
            # of the logistic head takes several passes, as many as it needs: the table says how many there were.
            most = {"logistic": 12, "dense": 6}[head] // times
            command = [sys.executable, __file__, "trained", str(cache.root), str(width), head, str(most)]
            figures[f"{head} {times}x"] = steps.run(
                f"{head} on {times} GiB of rows in 1 GiB", lambda c=command: _limited(c, limit)
            )
        shutil.rmtree(cache.root)
    flat = {}
    for head in ("logistic", "dense"):
        anonymous = [figures[f"{head} {times}x"]["peak_anonymous_mib"] for times in (1, 2, 3)]
        flat[head] = max(abs(found / anonymous[0] - 1) for found in anonymous)
    table(
        f"memory: {width}-wide float32 rows, at most {limit // MIB:,} MiB by {figures['dense 1x']['limited_by']}",
        ["", "rows", "peak RssAnon MiB", "seconds", "accuracy", "passes"],
        [
            [
                name,
                f"{found['rows']:,}",
                f"{found['peak_anonymous_mib']:.0f}",
                f"{found['seconds']:.0f}",
                f"{found['accuracy']:.3f}",
                str(found["passes"]),
            ]
            for name, found in figures.items()
        ],
    )
    print("  largest change from 1x: " + ", ".join(f"{head} {part:.1%}" for head, part in flat.items()))
    return {"limit": limit, "width": width, **figures, "largest_change": flat}


def _trained(root: str, width: str, head: str, most: str) -> dict[str, Any]:
    """Fit on all rows and return the peak of anonymous memory.

    `most` iterations of the logistic head, of several passes over the rows each, or epochs of the dense one.
    """
    peak, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            lines = Path("/proc/self/status").read_text("ascii").splitlines()
            peak[0] = max(peak[0], *(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))

    threading.Thread(target=watch, daemon=True).start()
    from bottleneck.heads.make import make
    from bottleneck.schema import HeadSpec

    X, codes = in_order(Cache(Path(root)), int(width), "float32")
    labels = np.array([f"class {code}" for code in range(CLASSES)])[codes]
    settings: dict[str, Any] = {"max_iter": int(most)}
    if head == "dense":
        settings = {"epochs": int(most), "patience": None, "hidden": (64,)}
    started = time.perf_counter()
    fitted = make(HeadSpec(name=head, settings=settings)).fit(X, labels)
    seconds = time.perf_counter() - started
    part = slice(0, None, 10)
    accuracy = float((fitted.predict(X.select(part)) == labels[part]).mean())
    over.set()
    return {
        "rows": len(X),
        "seconds": seconds,
        "accuracy": accuracy,
        "passes": getattr(fitted, "passes_", fitted.n_iter_),
        "peak_anonymous_mib": peak[0] / 1024,
    }


def _limited(command: list[str], limit: int) -> dict[str, Any]:
    """Run the child within `limit` bytes, by control group or data segment."""
    for root, name in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = root / f"bench-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / name).write_text(str(limit))
            enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
            return {**_child(["sh", "-c", enter, "sh", *command]), "limited_by": f"cgroup {name}"}
        except OSError:
            continue
        finally:
            group.rmdir()
    found = _child(["prlimit", f"--data={limit}", *command])
    return {**found, "limited_by": "prlimit --data"}


def _child(command: list[str]) -> Any:
    with tempfile.TemporaryFile() as errors:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            check=False,
        )
        errors.seek(0)
        if done.returncode:
            raise SystemExit(f"exit status {done.returncode}: {errors.read().decode()[-2000:]}")
    return json.loads(done.stdout.decode().strip().splitlines()[-1])


if __name__ == "__main__":
    children = {"epochs": _epochs, "opened": _opened, "trained": _trained}
    print(json.dumps(children[sys.argv[1]](*sys.argv[2:])))
