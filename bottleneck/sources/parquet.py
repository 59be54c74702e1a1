"""Parquet tables of other people, read by a bounded child process.

A Parquet file of a kilobyte can declare terabytes, and its reader is a large library in C++. What comes back is an
Arrow stream of the columns that were asked for, checked: text is UTF-8, and offsets lie within their data. The child
runs this very file and imports little else of the package, which would take it longer than most tables.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from bottleneck.system import hdf5_child

if TYPE_CHECKING:
    import pyarrow as pa

#: Bytes that the child may take beside its libraries, plus this many times the file's size.
_MEMORY, _TIMES = 4 << 30, 16
_SECONDS = 600.0
_REFUSED = 3
#: Under which the stream's schema has the names of all columns.
_ALL = b"columns"


def read_parquet_columns(location: str, names: Sequence[str] = ()) -> tuple[list[str], pa.Table]:
    """Name all columns of a Parquet table, and read those of `names`.

    ``path`` as bytes, the others as text. Raises OSError or pyarrow.ArrowException.
    """
    import pyarrow as pa

    table = pa.ipc.open_stream(_ask_child(location, names)).read_all()
    return json.loads(table.schema.metadata[_ALL]), table


def _ask_child(location: str, names: Sequence[str]) -> bytes:
    import pyarrow as pa

    with open(location, "rb"):
        pass  # what the system refuses, it says here
    environment = {
        **hdf5_child.child_environment(),
        "ARROW_DEFAULT_MEMORY_POOL": "system",  # the others reserve more than they use
        "OMP_NUM_THREADS": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", __file__, location, json.dumps(names)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=_SECONDS,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise pa.ArrowInvalid(f"it took more than {_SECONDS:g} s to read: it is damaged") from error
    if done.returncode == _REFUSED:
        raise pa.ArrowInvalid(done.stdout.decode("utf-8", "replace"))
    if done.returncode:
        raise pa.ArrowInvalid(
            f"the process that read it ended by itself (status {done.returncode}): it is damaged, or needs more than "
            f"{_MEMORY >> 30} GiB"
        )
    return done.stdout


def stream_columns(location: str, names: Sequence[str]) -> bytes:
    """Read the columns as an Arrow stream; for the child only."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    there = [str(name) for name in pq.read_schema(location).names]
    names = [name for name in names if there.count(name) == 1]
    found = {}
    if names:
        table = pq.read_table(
            location, columns=names, partitioning=None, use_threads=False, pre_buffer=False, memory_map=False
        )
        table.validate(full=True)
        found = {
            name: _plain(table.column(name), pa.binary() if name == "path" else pa.string()) for name in names
        }
    sink = pa.BufferOutputStream()
    made = pa.table(found).replace_schema_metadata({_ALL: json.dumps(there)})
    made.validate(full=True)
    with pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made)
    return bytes(sink.getvalue())


def _plain(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if kind == pa.binary() and not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        column = column.cast(pa.string())
    return column.cast(kind)


def main() -> None:
    """Run the child: write the answer, or the error, to standard output."""
    import_module("pyarrow.parquet")  # before the limit: libraries are not the file's doing
    location, asked = sys.argv[1:]
    try:
        hdf5_child.limit_resources(_MEMORY + _TIMES * os.path.getsize(location), int(_SECONDS))
        answer, status = stream_columns(location, json.loads(asked)), 0
    except (Exception, MemoryError) as error:  # whatever a broken file makes of a large library
        first = (str(error).splitlines() or [""])[0] or "more memory than a table of this size needs"
        answer, status = f"{type(error).__name__}: {first}"[:500].encode("utf-8", "replace"), _REFUSED
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
