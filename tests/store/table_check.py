"""Whether `table.parquet` is of the matrix beside it, as whoever takes features out may check it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bottleneck.errors import StoreError
from bottleneck.schema.strict_json import MalformedDocument, parse_as
from bottleneck.store.writers import NOTE, TABLE, RowFacts
from bottleneck.system.durable import shown

_PIECE = 64 << 20


def check_pair(folder: Path) -> RowFacts:
    """Check that each matrix that `features --out` wrote is its table's own. Raises `StoreError`."""
    facts = _facts(folder / TABLE)
    there = [folder / name for name in ("features.npy", "features.h5") if (folder / name).exists()]
    if not there:
        raise StoreError(
            f"{shown(str(folder))} holds a {TABLE} and no matrix beside it: take the features out again"
        )
    for matrix in there:
        rows = _rows(matrix)
        found = RowFacts(shape=rows.shape, dtype=rows.dtype.name, sha256=_digest(rows), recipe=facts.recipe)
        if found != facts:
            raise StoreError(
                f"{shown(str(matrix))} is not the matrix that {TABLE} was written with: its rows are {found.shape} "
                f"{found.dtype} with sha256 {found.sha256[:16]}…, expected {facts.shape} {facts.dtype} with "
                f"{facts.sha256[:16]}…. A row may lie beside another image's name: take the features out again"
            )
    return facts


def _facts(table: Path) -> RowFacts:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        schema, count = parquet.read_schema(table), parquet.read_metadata(table).num_rows
        note = (schema.metadata or {}).get(NOTE)
        facts = None if note is None else parse_as(RowFacts, note)
    except (OSError, pa.ArrowException, MalformedDocument) as error:
        raise StoreError(
            f"{shown(str(table))} cannot be read ({error}): take the features out again"
        ) from error
    if facts is None or facts.shape[0] != count:
        raise StoreError(
            f"{shown(str(table))} does not say which rows its {count:,} lines are of: take the features out again"
        )
    return facts


def _rows(matrix: Path) -> Any:
    try:
        if matrix.suffix == ".h5":
            with h5py.File(matrix, "r") as file:
                return file["features"][:]
        return np.load(matrix, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise StoreError(
            f"{shown(str(matrix))} cannot be read ({error}): take the features out again"
        ) from error


def _digest(rows: Any) -> str:
    step = max(1, _PIECE // max(1, int(np.prod(rows.shape[1:])) * rows.dtype.itemsize))
    digest = hashlib.sha256()
    for start in range(0, len(rows), step):
        piece = np.ascontiguousarray(rows[start : start + step])
        digest.update(piece.data.cast("B") if piece.size else b"")
    return digest.hexdigest()
