"""Check in a child process that shards are the plain HDF5 written.

Serving never parses HDF5. A person's tools do, and the library may hang or die of a file. So `store verify` has a child
look at each file after its hash was found right: two contiguous datasets behind hard links, nothing external, virtual
or filtered, types, shapes, offsets and storage sizes as recorded. The library reads no data here, walks over nothing,
and loads no plugin.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bottleneck.errors import StoreError
from bottleneck.schema import Record
from bottleneck.system import hdf5_child

#: A sound file takes milliseconds; the first answer waits for the library too.
_SECONDS, _START_SECONDS = 10.0, 120.0
_MEMORY = 256 << 20


class StructureChecker:
    """A child process that opens one file at a time.

    It starts when first needed, and again after it had to be ended.

    Examples
    --------
    >>> with StructureChecker() as structure:  # doctest: +SKIP
    ...     structure.check(folder / "shards", record)
    ''
    """

    def __init__(self, *, seconds: float = _SECONDS) -> None:
        self._seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None

    def check(self, folder: Path, record: Record) -> str:
        """Say what is wrong with the structure of `record`'s file, or nothing."""
        child = self._running()
        ask = {
            "path": str(folder / record.shard),
            "datasets": {
                "features": [[record.rows, *record.shape], record.dtype, record.features_offset],
                "content": [[record.rows, 32], "uint8", record.content_offset],
            },
        }
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(ask).encode("ascii") + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            return self._ended("the process that looked at its structure is gone")
        answer = self._answer(child, self._seconds)
        if answer is None:
            return self._ended(
                f"its structure took more than {self._seconds:g} s to look at, or ended who looked"
            )
        return str(answer)

    def __enter__(self) -> StructureChecker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._stop()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "bottleneck.store.maintenance.structure"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=hdf5_child.child_environment(),
            start_new_session=True,
        )
        if self._answer(self._child, _START_SECONDS) is None:
            status = self._child.poll()
            self._stop()
            raise StoreError(f"the process that looks at shards with HDF5 did not start (status {status})")
        return self._child

    @staticmethod
    def _answer(child: subprocess.Popen[bytes], seconds: float) -> Any:
        """Read one line of the child; None if late or gone."""
        assert child.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(child.stdout, selectors.EVENT_READ)
            if not ready.select(seconds):
                return None
        line = child.stdout.readline()  # written in one piece, and shorter than a pipe's
        return json.loads(line) if line else None

    def _ended(self, why: str) -> str:
        self._stop()
        return why

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def inspect_structure(path: str, datasets: Mapping[str, Any]) -> str:
    """Say what is wrong with a file's structure; for the child only.

    Parameters
    ----------
    path : str
    datasets : mapping of str to (shape, dtype, offset)
    """
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        count = file.id.get_num_objs()
        if count != len(datasets):
            return f"it holds {count} objects where {len(datasets)} were written"
        for name, (shape, dtype, offset) in datasets.items():
            wrong = _wrong(h5py, file.id, name.encode("ascii"), tuple(shape), dtype, offset)
            if wrong:
                return f"its dataset {name!r} {wrong}"
    return ""


def _wrong(h5py: Any, file: Any, name: bytes, shape: tuple[int, ...], dtype: str, offset: int) -> str:
    import numpy as np

    if not file.links.exists(name):
        return "is not there"
    # First of all: opening what lies behind another kind of link could open another file.
    if file.links.get_info(name).type != h5py.h5l.TYPE_HARD:
        return "lies behind a link to elsewhere"
    dataset = h5py.h5o.open(file, name)
    if not isinstance(dataset, h5py.h5d.DatasetID):
        return "is no dataset"
    properties = dataset.get_create_plist()
    if properties.get_layout() != h5py.h5d.CONTIGUOUS:
        return "is not contiguous (chunked, compact or virtual)"
    if properties.get_external_count():
        return "keeps its data in another file"
    if properties.get_nfilters():
        return "is filtered"
    expected = np.dtype(dtype).newbyteorder("<")
    if not dataset.get_type().equal(h5py.h5t.py_create(expected)):
        return f"has another type than {dtype}"
    if dataset.shape != shape:
        return f"has the shape {dataset.shape}; {shape} was committed"
    size = int(np.prod(shape, dtype=np.int64)) * expected.itemsize
    start, stored = dataset.get_offset(), dataset.get_storage_size()
    if start != offset or stored != size:
        return f"lies at {start} with {stored} bytes; {size} at {offset} were committed"
    return ""


def main() -> None:
    """Answer each line of JSON by one, until the asking side closes."""
    hdf5_child.forget_plugins()
    hdf5_child.limit_resources(_MEMORY)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    answers.write(b'""\n')
    for line in sys.stdin.buffer:
        ask = json.loads(line)
        try:
            wrong = inspect_structure(ask["path"], ask["datasets"])
        except Exception as error:  # h5py raises many kinds for one broken file
            wrong = f"HDF5 cannot read it: {type(error).__name__}: {error}"[:500]
        answers.write(json.dumps(wrong).encode("ascii") + b"\n")


if __name__ == "__main__":
    main()
