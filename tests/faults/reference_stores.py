"""What the tests of faults stand on: small stores with a reference beside them, and the oracle for what they serve."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import bottleneck
from bottleneck.errors import BottleneckError
from bottleneck.schema import Cache, Record, StoreSpec, canonical_json
from bottleneck.store.commit import commit
from bottleneck.store.header import begin_store
from bottleneck.store.plan import task_id
from bottleneck.store.read import open_store
from bottleneck.store.record import read_record
from tests.fakes import FakeForward, base, rows_by_hand

ROOT = Path(__file__).parents[2]
FAKE = "tests.fakes:base"

SPEC = base().spec
#: Rows of 16 KiB, so that a shard of 40 has three hashed blocks.
WIDE = SPEC.model_copy(update={"shape": (4096,)})


def some(count: int, seed: int = 0, spec: StoreSpec = SPEC) -> tuple[np.ndarray, np.ndarray]:
    """Keys (count, 32) and rows (count, *shape), made up."""
    draw = np.random.default_rng(seed)
    keys = draw.integers(0, 256, (count, 32)).astype(np.uint8)
    return keys, draw.random((count, *spec.shape)).astype(spec.recipe.dtype)


def put(cache: Cache, keys: np.ndarray, rows: np.ndarray, spec: StoreSpec = SPEC) -> Record:
    """Commit one shard."""
    folder, header = begin_store(cache, spec, 4)
    return commit(
        folder / "shards",
        task_id(keys),
        header.spec,
        keys,
        rows,
        rejected=[],
        environment={"forward": "fake 1", "batch": "4"},
        canary="0" * 64,
    )


def shards_of(cache: Cache) -> Path:
    """The folder of shards of the cache's only store."""
    (folder,) = cache.stores.glob("*/shards")
    return folder


def files(cache: Cache, suffix: str) -> list[Path]:
    """The files of a store's shards with this suffix."""
    return sorted(shards_of(cache).glob(f"*{suffix}"))


def some_store(
    cache: Cache, shards: int = 3, rows: int = 20, spec: StoreSpec = SPEC
) -> tuple[np.ndarray, np.ndarray]:
    """A store of several shards; gives back the keys and rows of all of them."""
    parts = [some(rows, seed, spec) for seed in range(shards)]
    for keys, values in parts:
        put(cache, keys, values, spec)
    keys, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    return keys, values


@dataclass
class Served:
    """What a store gave for a reference's keys: counts of rows, and what was said."""

    right: int = 0
    wrong: int = 0
    missing: int = 0
    refused: int = 0
    told: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """``harmless``, ``detected``, or ``SILENT``: a wrong row, or one that is gone without a word."""
        if self.wrong or (self.missing and not self.told):
            return "SILENT"
        return "detected" if self.refused or self.missing else "harmless"


def serve(cache: Cache, keys: np.ndarray, rows: np.ndarray, spec: StoreSpec = SPEC) -> Served:
    """Open the store anew and ask for every row of the reference, one by one."""
    found = Served()
    try:
        store = open_store(cache, spec)
    except BottleneckError as error:
        return Served(refused=len(keys), told=[str(error)])
    found.told += store.damaged.values()
    if len(store) > len(keys):
        found.wrong += len(store) - len(keys)
    for position, row in zip(store.find(keys), rows, strict=True):
        if position < 0:
            found.missing += 1
            continue
        try:
            same = np.array_equal(store.gather(np.array([position]))[0], row)
        except BottleneckError as error:
            found.refused += 1
            found.told.append(str(error))
        else:
            found.right += same
            found.wrong += not same
    return found


def edit_record(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a record and put its own hash right, as somebody with bad intentions would."""
    document = json.loads(path.read_bytes())
    del document["self"]
    change(document)
    document["self"] = hashlib.sha256(canonical_json(document)).hexdigest()
    path.write_text(json.dumps(document))


def vouch(folder: Path, keys: np.ndarray, data: bytes) -> Path:
    """Other bytes for the shard of `keys`, under a record that vouches for their length and hash; gives the file."""
    path = folder / f"{task_id(keys)}.json"
    record = read_record(folder, path.name)
    for part in (record.shard, record.blocks):
        (folder / part).rename(
            folder / f"{record.id}-{hashlib.sha256(data).hexdigest()[:16]}{Path(part).suffix}"
        )
    edit_record(path, lambda d: d.update(file_sha256=hashlib.sha256(data).hexdigest(), file_bytes=len(data)))
    shard = folder / read_record(folder, path.name).shard
    shard.write_bytes(data)
    return shard


@contextmanager
def patched(
    path: Path, changes: Mapping[int, bytes] | None = None, data: bytes | None = None
) -> Iterator[None]:
    """`path` with some bytes replaced (offset -> bytes), or with other contents; put back at the end."""
    whole = path.read_bytes()
    if data is None:
        broken = bytearray(whole)
        for offset, part in (changes or {}).items():
            broken[offset : offset + len(part)] = part
        data = bytes(broken)
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(whole)


def snapshot(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file below `folder`."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def check_served(source: Path, cache: Path, forward: FakeForward | None = None) -> int:
    """Every row that the pipeline serves for `source` equals the one made by hand from the file as it is now."""
    found = bottleneck.features(source, FAKE, cache=cache, max_bad=1.0)
    by_hand = rows_by_hand(source, forward)
    assert set(found.paths) <= set(by_hand)
    for path, row in zip(found.paths, np.asarray(found.X), strict=True):
        np.testing.assert_array_equal(row, by_hand[path])
    return len(found)


def python(
    script: str, *arguments: object, prefix: Sequence[str] = (), timeout: float = 600, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script in a Python of its own, from the root of the checkout."""
    return subprocess.run(
        [*prefix, sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def run_command(
    *arguments: object, prefix: Sequence[str] = (), **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return python("from bottleneck.cli import main; main()", *arguments, prefix=prefix, **more)
