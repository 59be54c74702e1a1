"""Stores of the fake base with random rows."""

from pathlib import Path

import numpy as np

from bottleneck.schema import Cache
from bottleneck.store.commit import commit
from bottleneck.store.header import begin_store
from bottleneck.store.plan import task_id
from bottleneck.store.read import Store
from tests.fakes import base

SPEC = base().spec


def some(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (count, 32)).astype(np.uint8), draw.random((count, 6)).astype(np.float32)


def put(cache: Cache, keys: np.ndarray, rows: np.ndarray, **more: object) -> Path:
    folder, header = begin_store(cache, SPEC, 4)
    arguments = {"rejected": [], "environment": {"forward": "fake"}, "canary": "0" * 64, **more}
    commit(folder / "shards", task_id(keys), header.spec, keys, rows, **arguments)
    return folder / "shards"


def served(store: Store, keys: np.ndarray) -> np.ndarray:
    return store.gather(store.find(keys))
