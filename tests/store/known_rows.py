"""Small stores of known rows, without images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bottleneck.schema import Cache, StoreSpec
from bottleneck.store.commit import commit
from bottleneck.store.header import begin_store
from bottleneck.store.plan import task_id
from bottleneck.store.read import Store, open_store
from bottleneck.store.rows import Rows
from tests.fakes import base


def spec_of(shape: tuple[int, ...], dtype: str = "float32") -> StoreSpec:
    spec = base().spec
    recipe = spec.recipe.model_copy(update={"dtype": dtype})
    return spec.model_copy(update={"shape": shape, "recipe": recipe})


def stored(folder: Path, rows: np.ndarray, *, task_rows: int = 7, **more: object) -> tuple[Store, np.ndarray]:
    """A store of `rows` (n, *shape), and the content (n, 32) of each."""
    spec = spec_of(rows.shape[1:], rows.dtype.name)
    cache = Cache(folder)
    shards, header = begin_store(cache, spec, 4)
    keys = np.random.default_rng(len(rows)).integers(0, 256, (len(rows), 32)).astype(np.uint8)
    given = {"rejected": [], "environment": {"forward": "fake"}, "canary": "0" * 64, **more}
    for start in range(0, len(rows), task_rows):
        part = slice(start, start + task_rows)
        commit(shards / "shards", task_id(keys[part]), header.spec, keys[part], rows[part], **given)  # type: ignore[arg-type]
    return open_store(cache, spec), keys


def as_rows(folder: Path, rows: np.ndarray, *, task_rows: int = 7) -> Rows:
    """`rows` on disk, in the same order."""
    store, keys = stored(folder, rows, task_rows=task_rows)
    return store.rows(store.find(keys))
