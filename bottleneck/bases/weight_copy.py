"""Copy an untrusted weight file into plain HDF5, in a child process.

The child walks the file through hard links alone, reads every array and writes it into a new file; what a command or a
worker then opens was written by our own HDF5 library from those arrays. A file that crashes or hangs the library, or
declares far more than it is, costs the child, and becomes a `WeightsError` that names the file. Looking at the file
first and opening the original afterwards would not do: it can change in between, and what a damaged heap does in one
process it need not do in another.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bottleneck.errors import WeightsError
from bottleneck.schema.strict_json import MalformedDocument, check_zip
from bottleneck.system import hdf5_child

#: Where Keras keeps the weights in a `.keras` archive.
MEMBER = "model.weights.h5"

#: What all arrays of a file may hold together: this much, or this many sizes of the file (which may be compressed).
_LEAST_BYTES, _MOST_RATIO = 256 << 20, 4

#: Processor time for any file, and how much a second must at least get done; a sound file of 500 MB takes two seconds.
_SECONDS, _BYTES_A_SECOND = 20, 10 << 20

#: The child may also wait, for a slow disk or behind other processes: this many times its processor time in all.
_PATIENCE = 20

#: Attributes that Keras reads. Lists of names are split into `layer_names0`, `layer_names1`, … when they are long.
_READ_BY_KERAS = re.compile(r"(layer_names|weight_names)\d*|name|dtype")

#: Optimizer and metrics are no part of a base. By place in the file.
_ASIDE = frozenset(("optimizer", "optimizer_weights", "metrics", "_metrics"))

_MOST_DEPTH = 64


@contextlib.contextmanager
def plain_copy(path: Path) -> Iterator[Path]:
    """Yield a plain copy of a weight file, then delete it.

    Parameters
    ----------
    path : Path
        ``.h5``, ``.weights.h5`` or ``.keras``.

    Yields
    ------
    Path
        Of the same kind; what Keras reads is in it, bit for bit.

    Raises
    ------
    WeightsError
        HDF5 cannot read the file, or dies, hangs or asks for too much memory over it; it holds links, arrays kept
        elsewhere or arrays of no numbers; or there is no room for the copy.

    Examples
    --------
    >>> with plain_copy(Path("vgg16.weights.h5")) as plain:  # doctest: +SKIP
    ...     model.load_weights(plain)
    """
    try:
        size = path.stat().st_size
        if path.suffix.lower() == ".keras":
            check_zip(path)
    except (OSError, MalformedDocument) as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error
    try:
        scratch = tempfile.TemporaryDirectory(prefix="bottleneck-")
    except OSError as error:
        raise WeightsError(
            f"{path}: no room for a copy: {error}; make room, or set TMPDIR to another folder"
        ) from error
    with scratch as folder:
        whole = re.search(r"(\.weights)?\.(h5|hdf5|keras)$", path.name.lower())
        target = Path(folder) / f"plain{whole[0] if whole else '.h5'}"
        wrong = _ask_child(path, target, size)
        if wrong:
            raise WeightsError(f"{path}: {wrong}")
        yield target


def _ask_child(path: Path, target: Path, size: int) -> str:
    """Return what is wrong with the file; empty after a copy."""
    seconds = _SECONDS + size // _BYTES_A_SECOND
    command = [sys.executable, "-m", "bottleneck.bases.weight_copy", str(seconds), str(path), str(target)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=hdf5_child.child_environment(),
            start_new_session=True,
            timeout=seconds * _PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return (
            f"reading it took more than {seconds * _PATIENCE} s; it is damaged, or its disk does not answer"
        )
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        return str(json.loads(lines[-1]))
    if done.returncode == -signal.SIGXCPU:
        return f"reading it took more than {seconds} s of processor time; it is damaged"
    if done.returncode == -signal.SIGKILL:
        return "the process that reads it was ended from outside, as the system does when memory runs out; try again"
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return f"the HDF5 library died over it ({name}); it is damaged or was made to do that"
    errors = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return f"the process that copies weight files failed: {errors[-1] if errors else f'status {done.returncode}'}"


def copy_file(path: Path, target: Path) -> str:
    """Copy what Keras reads; return what is wrong with the file.

    Parameters
    ----------
    path, target : Path

    Examples
    --------
    >>> copy_file(Path("a.weights.h5"), Path("plain.weights.h5"))  # doctest: +SKIP
    ''
    """
    try:
        data = _plain(path, max(_LEAST_BYTES, _MOST_RATIO * path.stat().st_size))
    except MemoryError:
        return (
            f"reading it takes more memory than its {path.stat().st_size:,} bytes can be worth; it is damaged"
        )
    except Exception as error:  # h5py and zipfile raise many kinds for one broken file
        kind = "" if isinstance(error, _Refused | OSError) else f"{type(error).__name__}: "
        return f"cannot be read: {kind}{error}"[:500]
    try:
        target.write_bytes(data)
    except OSError as error:
        return (
            f"a copy of {len(data):,} bytes cannot be written to {target.parent.parent} ({error.strerror or error}; "
            f"{shutil.disk_usage(target.parent).free:,} bytes are free): make room, or set TMPDIR to another folder"
        )
    return ""


class _Refused(Exception):
    """What the file holds is nothing that Keras writes."""


def _plain(path: Path, most: int) -> bytes:
    if path.suffix.lower() != ".keras":
        return _copied(path, most)
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(buffer, "w") as plain:
        for name in archive.namelist():
            data = archive.read(name)
            plain.writestr(name, _copied(io.BytesIO(data), most) if name == MEMBER else data)
    return buffer.getvalue()


def _copied(source: Any, most: int) -> bytes:
    import h5py

    buffer = io.BytesIO()
    with (
        h5py.File(source, "r", locking=False) as file,
        h5py.File(buffer, "w", libver=("earliest", "v110")) as plain,
    ):
        _copy_group(file, plain, "", [most])
    return buffer.getvalue()


def _copy_group(group: Any, plain: Any, where: str, left: list[int]) -> None:
    import h5py

    if where.count("/") > _MOST_DEPTH:
        raise _Refused(f"{where} is a group below {_MOST_DEPTH} others; Keras nests no deeper than layers do")
    _copy_attributes(group, plain, where, left)
    for name in group:
        if not where and name in _ASIDE:
            continue
        if group.get(name, getclass=True, getlink=True) is not h5py.HardLink:
            raise _Refused(f"{where}{name} is a link; expected plain groups and datasets")
        item = group[name]
        if isinstance(item, h5py.Group):
            _copy_group(item, plain.create_group(name), f"{where}{name}/", left)
        elif isinstance(item, h5py.Dataset):
            _copy_array(item, plain, where, name, left)
        else:
            raise _Refused(f"{where}{name} is a named type; expected plain groups and datasets")


def _copy_array(item: Any, plain: Any, where: str, name: str, left: list[int]) -> None:
    if item.external or item.is_virtual:
        raise _Refused(f"{where}{name} keeps its data elsewhere; expected arrays inside the file")
    # bfloat16 is opaque to HDF5; Keras says in an attribute what it is.
    numbers = item.dtype.kind in "fiub" or (item.dtype.kind == "V" and item.dtype.names is None)
    if not numbers or item.shape is None:
        raise _Refused(f"{where}{name} holds {item.dtype}; expected numbers")
    _spend(left, item.size * item.dtype.itemsize, f"{where}{name} declares {item.shape}")
    _copy_attributes(item, plain.create_dataset(name, data=item[()]), f"{where}{name}/", left)


def _copy_attributes(item: Any, plain: Any, where: str, left: list[int]) -> None:
    import h5py

    for name in item.attrs:
        if not _READ_BY_KERAS.fullmatch(name):
            continue
        stored = item.attrs.get_id(name)
        _spend(
            left, math.prod(stored.shape) * stored.dtype.itemsize, f"the attribute {name} of {where or '/'}"
        )
        value = item.attrs[name]
        text = h5py.string_dtype() if stored.dtype.kind == "O" else None
        plain.attrs.create(name, value, dtype=text)


def _spend(left: list[int], size: int, what: str) -> None:
    left[0] -= size
    if left[0] < 0:
        raise _Refused(
            f"{what}: the file declares far more than it stores, which is nothing that Keras writes"
        )


def main() -> None:
    """Run the child: seconds, source and target in, JSON out."""
    seconds, path, target = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    # What libraries print is not the answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    hdf5_child.forget_plugins()
    size = path.stat().st_size
    hdf5_child.limit_resources((512 << 20) + 3 * max(_LEAST_BYTES, _MOST_RATIO * size), seconds)
    answers.write(json.dumps(copy_file(path, target)) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
