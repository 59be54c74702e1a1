"""Write features for other tools: a matrix, a table in one order.

Rows are written as they are read: a matrix larger than memory leaves the store as well as a small one. Matrix and table
take their names together, and the table says which rows it is of.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from pydantic import Field

from bottleneck.errors import UsageError
from bottleneck.schema import Frozen
from bottleneck.store.join import Features
from bottleneck.store.rows import Rows
from bottleneck.store.shard import build_takeout
from bottleneck.system.disk_errors import about
from bottleneck.system.durable import publish, shown
from bottleneck.system.file_set import naming_lock, settle, take_names
from bottleneck.system.memory import budget
from bottleneck.system.objects import local_path
from bottleneck.system.staging import room_beside

Format = Literal["npy", "parquet", "h5"]

#: The leading file of its set: two matrices of the same rows may share it, and who joins rows with names opens it.
TABLE = "table.parquet"

#: The key of `RowFacts` in the table's metadata.
NOTE = b"bottleneck features"


class RowFacts(Frozen):
    """Which rows a table is of.

    Attributes
    ----------
    shape : tuple of int
        Of the whole matrix.
    dtype : str
    sha256 : str
        Of the rows' bytes in C order, so the same for every kind of matrix.
    recipe : str
        Fingerprint.
    """

    format: Literal[1] = 1
    shape: tuple[int, ...]
    dtype: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    recipe: str


#: Bytes of a Parquet row group, about.
_GROUP = 64 << 20

#: Bytes of the end of a Parquet file that are looked at for the names of its columns.
_LONGEST_FOOTER = 16 << 20


def take_out(
    features: Features, folder: Path, kind: Format, *, memory: int | str | None = None
) -> list[Path]:
    """Write `features` to `folder`.

    Until all of it is on the disk, files of these names stay as they were; then they are replaced as one set. A matrix
    of the other kind goes when its rows are not these, since the new table would be beside it.

    Parameters
    ----------
    features : Features
    folder : Path
        Made when it is not there.
    kind : {"npy", "parquet", "h5"}
        ``npy``: ``features.npy`` (n, *shape) and ``table.parquet``. ``parquet``: ``features.parquet``, the table
        with one more column ``features``, a fixed-size list of the flattened row. ``h5``: ``features.h5`` with the
        datasets ``features``, ``content``, ``path``, ``label``, ``split``, and ``table.parquet``.
    memory : int or str, optional
        An HDF5 file is made in memory, and so must fit twice into this: half of what is free by default.

    Returns
    -------
    list of Path
        What was written, the matrix first.

    Raises
    ------
    UsageError
        More than the format takes; a URL for a folder; a file of these names there that `features` did not write.
    OSError
        Disk full and its kin; files of that name are then as they were.
    """
    folder = local_path(folder, "--out")
    check_out(folder, kind)
    X, matrix = features.X, f"features.{kind}"
    # HDF5 never writes to a disk itself: a full one would kill the process by a signal.
    if kind == "h5" and isinstance(X, Rows) and 2 * X.nbytes > budget(memory):
        raise UsageError(
            f"{X.nbytes:,} bytes of features do not fit in memory twice, which an HDF5 file needs; "
            "use --format npy or --format parquet, which are written piece by piece"
        )
    folder.mkdir(parents=True, exist_ok=True)
    lead = matrix if kind == "parquet" else TABLE
    with room_beside(folder / lead) as room:
        digest = hashlib.sha256()
        if kind == "h5":
            whole = np.asarray(X)
            digest.update(_plain(whole))
            publish(room / matrix, build_takeout(whole, features.keys, _texts(features)))
        else:
            with about(room / matrix), open(room / matrix, "xb") as file:
                if kind == "npy":
                    _write_npy(features, file, digest)
                else:
                    _write_groups(features, file)
        if kind == "parquet":
            with naming_lock(folder):
                take_names(room, folder, lead)
            return [folder / matrix]
        with about(room / TABLE), open(room / TABLE, "xb") as file:
            _write_table(features, digest.hexdigest(), file)
        with naming_lock(folder):
            take_names(room, folder, lead, gone=_foreign(folder, room, matrix))
    return [folder / matrix, folder / TABLE]


def check_out(folder: Path, kind: Format) -> None:
    """Refuse a URL, and to replace files that `features` did not write.

    Raises
    ------
    UsageError
    """
    folder = local_path(folder, "--out")
    if not folder.is_dir():
        return
    settle(folder)
    matrix = folder / f"features.{kind}"
    table = matrix if kind == "parquet" else folder / TABLE
    if table.is_dir():
        return  # `take_names` reports the folder that is in the way
    for path in (table, matrix):
        if os.path.lexists(path) and not is_own_table(table):
            raise UsageError(
                f"--out {shown(str(folder))}: `features` did not write {path.name} there, which it would replace: move "
                "it away, or give another folder"
            )


def is_own_table(path: Path) -> bool:
    """Tell from its end whether this package wrote a Parquet file.

    Raises `OSError` where it cannot be read.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        end = file.read(8)
        length = min(int.from_bytes(end[:4], "little"), _LONGEST_FOOTER, max(0, size - 8))
        file.seek(max(0, size - 8 - length))
        footer = file.read(length)
    return end[4:] == b"PAR1" and all(name in footer for name in (b"content", b"group", b"split"))


def _foreign(folder: Path, room: Path, matrix: str) -> list[str]:
    """Name the matrix of the other kind, unless its table stays equal."""
    others = [
        name for name in ("features.npy", "features.h5") if name != matrix and (folder / name).is_file()
    ]
    if not others:
        return []
    table = folder / TABLE
    return [] if table.is_file() and filecmp.cmp(table, room / TABLE, shallow=False) else others


def _write_npy(features: Features, file: BinaryIO, digest: Any) -> None:
    X = features.X
    header = {"descr": np.lib.format.dtype_to_descr(X.dtype), "fortran_order": False, "shape": X.shape}
    np.lib.format.write_array_header_1_0(file, header)
    for piece in _pieces(X):
        data = _plain(piece)
        digest.update(data)
        file.write(data)


def _plain(rows: np.ndarray) -> memoryview | bytes:
    """Give the bytes of `rows` in C order."""
    return np.ascontiguousarray(rows).data.cast("B") if rows.size else b""


def _write_groups(features: Features, file: BinaryIO) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    X = features.X
    width = int(np.prod(X.shape[1:], dtype=np.int64))
    step = max(1, min(_GROUP // max(1, width * X.dtype.itemsize), (2**31 - 1) // max(1, width)))
    plain = _table(features)
    column = pa.field("features", pa.list_(pa.from_numpy_dtype(X.dtype), width))
    with parquet.ParquetWriter(file, plain.schema.append(column)) as writer:
        for start in range(0, max(1, len(X)), step):
            rows = np.ascontiguousarray(X[start : start + step]).reshape(-1)
            lists = pa.FixedSizeListArray.from_arrays(pa.array(rows), width)
            writer.write_table(plain.slice(start, step).append_column(column, lists))


def _pieces(X: Rows | np.ndarray) -> Iterator[np.ndarray]:
    if isinstance(X, np.ndarray):
        yield X
    else:
        yield from X.pieces()


def _texts(features: Features) -> dict[str, list[bytes]]:
    return {
        "path": list(features.paths),
        "label": [(label or "").encode("utf-8") for label in features.y],
        "split": [(split or "").encode("utf-8") for split in features.splits],
    }


def _table(features: Features) -> Any:
    import pyarrow as pa

    paths = features.table.column("path")
    # Names that are not UTF-8 keep their bytes: a path must open again.
    with contextlib.suppress(pa.ArrowInvalid):
        paths = paths.cast(pa.string())
    return pa.table(
        {
            "path": paths,
            **{name: features.table.column(name).cast(pa.string()) for name in ("label", "group", "split")},
            "content": _hex(features.keys),
        }
    )


def _hex(keys: np.ndarray) -> Any:
    """Write (n, 32) bytes as a column of 64 hex digits, fast."""
    import pyarrow as pa

    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    text = np.stack([digits[keys >> 4], digits[keys & 15]], axis=-1)
    ends = np.arange(len(keys) + 1, dtype=np.int64) * 64
    column = pa.LargeStringArray.from_buffers(len(keys), pa.py_buffer(ends), pa.py_buffer(text.tobytes()))
    return column.cast(pa.string()) if len(keys) < 1 << 24 else column


def _write_table(features: Features, sha256: str, file: BinaryIO) -> None:
    import pyarrow.parquet as parquet

    X = features.X
    facts = RowFacts(
        shape=X.shape, dtype=X.dtype.name, sha256=sha256, recipe=features.spec.recipe.fingerprint
    )
    note = {NOTE: facts.model_dump_json().encode("ascii")}
    parquet.write_table(_table(features).replace_schema_metadata(note), file)
