"""HDF5 files that attack whoever opens them, in place of a shard: rows 44, 45 and 47.

Serving parses no HDF5. The gate, which does, is a child process: it must refuse each of these by what the file says
of itself, within two seconds and 100 MiB, and open nothing else.
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from bottleneck.schema import Cache, Record
from bottleneck.store.maintenance.structure import StructureChecker
from bottleneck.store.plan import task_id
from bottleneck.store.record import read_record
from tests.faults.reference_stores import python, shards_of, some, some_store, vouch

ROWS = 20
Evil = Callable[[h5py.File, Path], None]


def _rows() -> tuple[np.ndarray, np.ndarray]:
    return some(ROWS)


def _content(file: h5py.File) -> None:
    file.create_dataset("content", data=_rows()[0], track_times=False)


def _features(file: h5py.File) -> None:
    file.create_dataset("features", data=_rows()[1], track_times=False)


def external_storage(file: h5py.File, target: Path) -> None:
    file.create_dataset("features", (ROWS, 6), "<f4", external=[(os.fsencode(target), 0, ROWS * 24)])
    _content(file)


def external_link(file: h5py.File, target: Path) -> None:
    file["features"] = h5py.ExternalLink(str(target), "features")
    _content(file)


def external_link_for_both(file: h5py.File, target: Path) -> None:
    file["features"] = h5py.ExternalLink(str(target), "features")
    file["content"] = h5py.ExternalLink(str(target), "content")


def virtual_dataset(file: h5py.File, target: Path) -> None:
    layout = h5py.VirtualLayout((ROWS, 6), "<f4")
    layout[:] = h5py.VirtualSource(str(target), "features", (ROWS, 6))
    file.create_virtual_dataset("features", layout)
    _content(file)


def soft_link_loop(file: h5py.File, target: Path) -> None:
    file["features"] = h5py.SoftLink("/content")
    file["content"] = h5py.SoftLink("/features")


def soft_link_to_rows(file: h5py.File, target: Path) -> None:
    file.create_group("inner")["rows"] = _rows()[1]
    file["features"] = h5py.SoftLink("/inner/rows")
    _content(file)


def group_loop(file: h5py.File, target: Path) -> None:
    file.create_group("features")["features"] = file["/"]
    _content(file)


def four_tebibytes(file: h5py.File, target: Path) -> None:
    file.create_dataset("features", (1 << 38, 4), "<f4")
    _content(file)


def four_tebibytes_of_the_right_width(file: h5py.File, target: Path) -> None:
    file.create_dataset("features", ((1 << 42) // 24, 6), "<f4", chunks=(1 << 16, 6))
    _content(file)


def gzip_bomb(file: h5py.File, target: Path) -> None:
    made = file.create_dataset("features", (ROWS, 6), "<f4", chunks=(ROWS, 6), compression="gzip")
    made[:] = 0
    wide = file.create_dataset(
        "content", (1 << 20, 1 << 10), "u1", chunks=(1 << 14, 1 << 10), compression="gzip"
    )
    wide[: 1 << 14] = 0


def variable_length(file: h5py.File, target: Path) -> None:
    made = file.create_dataset("features", (ROWS,), h5py.vlen_dtype(np.float32))
    for row in range(ROWS):
        made[row] = np.zeros(6, np.float32)
    _content(file)


def compound(file: h5py.File, target: Path) -> None:
    file["features"] = np.zeros((ROWS, 6), [("a", "<f4"), ("b", "<i8")])
    _content(file)


def object_references(file: h5py.File, target: Path) -> None:
    _content(file)
    made = file.create_dataset("features", (ROWS, 6), h5py.ref_dtype)
    made[0, 0] = file["content"].ref


def many_attributes(file: h5py.File, target: Path) -> None:
    _features(file)
    file["content"] = np.zeros((ROWS, 31), np.uint8)
    for number in range(3_000):
        file.attrs.create(f"a{number}", number, dtype="i8")


def many_objects(file: h5py.File, target: Path) -> None:
    _features(file)
    _content(file)
    for number in range(5_000):
        file.create_group(f"g{number}")


def other_byte_order(file: h5py.File, target: Path) -> None:
    file["features"] = _rows()[1].astype(">f4")
    _content(file)


EVIL: list[Evil] = [
    external_storage, external_link, external_link_for_both, virtual_dataset, soft_link_loop, soft_link_to_rows,
    group_loop,
]  # fmt: skip
LARGE: list[Evil] = [
    four_tebibytes, four_tebibytes_of_the_right_width, gzip_bomb, variable_length, compound, object_references,
    many_attributes, many_objects, other_byte_order,
]  # fmt: skip


def made(evil: Evil, target: Path) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("earliest", "v110")) as file:
        evil(file, target)
    # At least as long as the shard in whose place it is put, or its length alone would tell.
    return buffer.getvalue().ljust(1 << 16, b"\0")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file elsewhere, with rows that would fit."""
    path = tmp_path / "target.h5"
    with h5py.File(path, "w") as file:
        _features(file)
        _content(file)
    return path


def planted(cache: Cache, data: bytes) -> tuple[Path, Record]:
    """A store whose one shard is `data`, with a record that vouches for every byte of it."""
    keys, _ = some_store(cache, 1, ROWS)
    folder = shards_of(cache)
    vouch(folder, keys, data)
    return folder, read_record(folder, f"{task_id(keys)}.json")


def judged(folder: Path, record: Record) -> tuple[str, float, float]:
    """The gate's word on a shard, its seconds, and how many MiB the child that looked has grown at most."""
    with StructureChecker() as structure:
        child = structure._running()
        before = _peak(child.pid)
        started = time.perf_counter()
        word = structure.check(folder, record)
        seconds = time.perf_counter() - started
        return word, seconds, (_peak(child.pid) - before) if child.poll() is None else 0.0


def _peak(process: int) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM in /proc")


def test_the_gate_lets_a_sound_shard_pass(cache: Cache) -> None:
    keys, _ = some_store(cache, 1, ROWS)
    folder = shards_of(cache)
    assert judged(folder, read_record(folder, f"{task_id(keys)}.json"))[0] == ""


@pytest.mark.parametrize(
    "evil",
    [pytest.param(e, marks=pytest.mark.fault(44)) for e in EVIL]
    + [pytest.param(e, marks=pytest.mark.fault(45)) for e in LARGE],
    ids=lambda e: e.__name__,
)
def test_the_gate_refuses(cache: Cache, target: Path, evil: Evil) -> None:
    folder, record = planted(cache, made(evil, target))
    word, seconds, mebibytes = judged(folder, record)
    assert word
    assert seconds < 20
    assert mebibytes < 100


@pytest.mark.fault(44)
@pytest.mark.needs_tool("strace")
@pytest.mark.parametrize("evil", EVIL, ids=lambda e: e.__name__)
def test_the_gate_opens_nothing_else(cache: Cache, target: Path, tmp_path: Path, evil: Evil) -> None:
    folder, record = planted(cache, made(evil, target))
    log = tmp_path / "calls"
    ask = (
        "import sys\nfrom pathlib import Path\n"
        "from bottleneck.store.record import read_record\n"
        "from bottleneck.store.maintenance.structure import StructureChecker\n"
        "folder = Path(sys.argv[1])\n"
        "with StructureChecker() as structure: print(structure.check(folder, read_record(folder, sys.argv[2])))\n"
    )
    done = python(
        ask,
        folder,
        f"{record.id}.json",
        prefix=("strace", "-f", "-e", "trace=open,openat,openat2", "-o", str(log)),
    )
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    calls = log.read_text(errors="replace")
    assert record.shard in calls, "strace saw the shard being opened"
    assert target.name not in calls


_SERVE = """
import json, sys
from pathlib import Path
import numpy as np
from bottleneck.errors import BottleneckError
from bottleneck.schema import Cache, StoreSpec
from bottleneck.store.read import open_store
store = open_store(Cache(Path(sys.argv[1])), StoreSpec.model_validate_json(sys.argv[2]))
keys = np.load(sys.argv[3])
positions = store.find(keys)
try:
    rows = len(store.gather(positions[positions >= 0]))
except BottleneckError:
    rows = -1
print(json.dumps({"rows": rows, "damaged": len(store.damaged), "h5py": "h5py" in sys.modules}))
"""


@pytest.mark.needs_tool("strace")
@pytest.mark.parametrize(
    "evil",
    [
        pytest.param(e, marks=pytest.mark.fault(44))
        for e in (external_storage, virtual_dataset, external_link_for_both)
    ]
    + [pytest.param(e, marks=pytest.mark.fault(45)) for e in (four_tebibytes, gzip_bomb)],
    ids=lambda e: e.__name__,
)
def test_serving_parses_none_of_it(cache: Cache, target: Path, tmp_path: Path, evil: Evil) -> None:
    from tests.faults.reference_stores import SPEC

    planted(cache, made(evil, target))
    np.save(tmp_path / "keys.npy", _rows()[0])
    log = tmp_path / "calls"
    done = python(
        _SERVE,
        cache.root,
        SPEC.model_dump_json(),
        tmp_path / "keys.npy",
        prefix=("strace", "-f", "-e", "trace=open,openat,openat2", "-o", str(log)),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == '{"rows": 0, "damaged": 1, "h5py": false}\n'
    assert ".h5" in log.read_text(errors="replace"), "strace saw the shard being opened"
    assert target.name not in log.read_text(errors="replace")


# --------------------------------------------------------------------------------------------------- 47: plugins


@pytest.fixture
def plugins(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with a library that leaves a mark as soon as anybody loads it, and the mark."""
    marker, folder = tmp_path / "loaded", tmp_path / "plugins"
    folder.mkdir()
    source = tmp_path / "plugin.c"
    source.write_text(
        "#include <fcntl.h>\n#include <unistd.h>\n"
        "__attribute__((constructor)) static void mark(void)\n"
        f'{{ close(open("{marker}", O_CREAT | O_WRONLY, 0600)); }}\n'
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "libmark.so", source], check=True)
    return folder, marker


def unknown_filter(file: h5py.File, target: Path) -> None:
    file.create_dataset("features", data=_rows()[1], chunks=(ROWS, 6), compression="gzip", track_times=False)
    _content(file)


def with_unknown_filter(target: Path) -> bytes:
    """Deflate, renamed to filter 40,000, which the library then looks for among its plugins."""
    data = bytearray(made(unknown_filter, target))
    deflate = struct.pack("<HHHH", 1, 8, 1, 1) + b"deflate\0"
    assert data.count(deflate) == 1, "object headers of the first kind carry no checksum"
    at = data.index(deflate)
    data[at : at + 16] = struct.pack("<HHHH", 40_000, 8, 0, 1) + b"unknown\0"
    return bytes(data)


@pytest.mark.fault(47)
@pytest.mark.needs_tool("gcc")
def test_no_plugin_is_loaded(
    cache: Cache, target: Path, plugins: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.faults.reference_stores import SPEC, serve

    folder, marker = plugins
    shards, record = planted(cache, with_unknown_filter(target))
    monkeypatch.setenv("HDF5_PLUGIN_PATH", str(folder))
    monkeypatch.delenv("HDF5_PLUGIN_PRELOAD", raising=False)
    assert serve(cache, *_rows(), SPEC).verdict == "detected"
    word, seconds, _ = judged(shards, record)
    assert word
    assert seconds < 20
    assert not marker.exists()
    # The bomb is a real one: whoever just reads that file has run somebody else's code.
    subprocess.run(
        [sys.executable, "-c", f"import h5py; h5py.File({str(shards / record.shard)!r})['features'][:]"],
        capture_output=True,
        check=False,
    )
    assert marker.exists()
