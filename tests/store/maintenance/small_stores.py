"""Small stores made by hand, for what verifies them and keeps house in them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from bottleneck.schema import Cache, Record, RejectedContent, canonical_json
from bottleneck.store.commit import commit
from bottleneck.store.header import begin_store
from bottleneck.store.plan import task_id
from bottleneck.store.read import open_store
from tests.fakes import base

SPEC = base().spec


def some(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (count, 32)).astype(np.uint8), draw.random((count, 6)).astype(np.float32)


def put(cache: Cache, keys: np.ndarray, rows: np.ndarray, **more: object) -> Record:
    folder, header = begin_store(cache, SPEC, 4)
    arguments = {"rejected": [], "environment": {"forward": "fake"}, "canary": "0" * 64, **more}
    return commit(folder / "shards", task_id(keys), header.spec, keys, rows, **arguments)


def house(cache: Cache, shards: int = 4, rows: int = 10) -> tuple[Path, np.ndarray, np.ndarray]:
    """A store of so many shards of so many rows: its folder, all keys, all rows."""
    parts = [some(rows, seed) for seed in range(shards)]
    for keys, features in parts:
        put(cache, keys, features)
    return cache.stores / SPEC.folder, *(np.concatenate(part) for part in zip(*parts, strict=True))


def served(cache: Cache, keys: np.ndarray) -> np.ndarray:
    store = open_store(cache, SPEC)
    return store.gather(store.find(keys))


def reseal(path: Path, **changes: object) -> None:
    """Another record under the same name, with a right hash of its own."""
    document = json.loads(path.read_bytes())
    document.pop("self")
    document |= changes
    document["self"] = hashlib.sha256(canonical_json(document)).hexdigest()
    path.write_text(json.dumps(document))


def rejection(number: int, *, retry: bool = False) -> RejectedContent:
    return RejectedContent(content=f"{number:064x}", stage="decode", reason="not an image", retry=retry)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
