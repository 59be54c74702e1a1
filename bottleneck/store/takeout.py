"""Features for other tools: a matrix and a table in the same order, readable with NumPy, pyarrow or h5py alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bottleneck.errors import UsageError
from bottleneck.files import publish
from bottleneck.store.join import Features
from bottleneck.store.shard import build_takeout

Format = Literal["npy", "parquet", "h5"]


def take_out(features: Features, folder: Path, kind: Format) -> list[Path]:
    """Write `features` to `folder`.

    Parameters
    ----------
    features : Features
    folder : Path
        Made when it is not there.
    kind : {"npy", "parquet", "h5"}
        ``npy``: ``features.npy`` (n, *shape) and ``table.parquet``. ``parquet``: ``features.parquet``, the table
        with one more column ``features``, a fixed-size list of the flattened row. ``h5``: ``features.h5`` with the
        datasets ``features``, ``content``, ``path``, ``label``, ``split``, and ``table.parquet``.

    Returns
    -------
    list of Path
        What was written, the matrix first.

    Raises
    ------
    UsageError
        More values than the format takes.
    """
    import pyarrow as pa

    folder.mkdir(parents=True, exist_ok=True)
    table = _table(features)
    written: list[Path] = []

    def put(name: str, data: bytes) -> None:
        publish(folder / name, data, replace=True)
        written.append(folder / name)

    if kind == "npy":
        buffer = io.BytesIO()
        np.save(buffer, features.X, allow_pickle=False)
        put("features.npy", buffer.getvalue())
    elif kind == "parquet":
        width = int(np.prod(features.X.shape[1:], dtype=np.int64))
        if features.X.size > 2**31 - 1:
            raise UsageError("one Parquet list column takes at most 2,147,483,647 values; use --format npy")
        flat = pa.array(np.ascontiguousarray(features.X).reshape(-1))
        table = table.append_column("features", pa.FixedSizeListArray.from_arrays(flat, width))
        put("features.parquet", _parquet(table))
        return written
    else:
        put("features.h5", build_takeout(features.X, features.keys, _texts(features)))
    put("table.parquet", _parquet(table))
    return written


def _texts(features: Features) -> dict[str, list[bytes]]:
    return {
        "path": list(features.paths),
        "label": [(label or "").encode("utf-8") for label in features.y],
        "split": [(split or "").encode("utf-8") for split in features.splits],
    }


def _table(features: Features) -> Any:
    import pyarrow as pa

    try:
        paths = pa.array([path.decode("utf-8") for path in features.paths], pa.string())
    except UnicodeDecodeError:
        # Names that are not UTF-8 keep their bytes: a path must open again.
        paths = pa.array(features.paths, pa.binary())
    return pa.table(
        {
            "path": paths,
            "label": pa.array(features.y, pa.string()),
            "group": pa.array(features.groups, pa.string()),
            "split": pa.array(features.splits, pa.string()),
            "content": pa.array([key.tobytes().hex() for key in features.keys], pa.string()),
        }
    )


def _parquet(table: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data
