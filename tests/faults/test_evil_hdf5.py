"""HDF5 files that attack whoever opens them, in place of a shard: rows 44, 45 and 47.

Serving parses no HDF5. The gate, which does, is a child process: it must refuse each of these by what the file says
of itself, within two seconds and 100 MiB, and open nothing else.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from bottleneck.schema import Cache, Record
from bottleneck.store.maintenance.structure import StructureChecker
from bottleneck.store.plan import task_id
from bottleneck.store.record import read_record
from tests.faults.evil_hdf5 import (
    EVIL,
    LARGE,
    ROWS,
    Evil,
    add_content,
    add_features,
    evil_file,
    external_link_for_both,
    external_storage,
    four_tebibytes,
    gzip_bomb,
    rows,
    virtual_dataset,
    with_unknown_filter,
)
from tests.faults.reference_stores import python, shards_of, some_store, vouch


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file elsewhere, with rows that would fit."""
    path = tmp_path / "target.h5"
    with h5py.File(path, "w") as file:
        add_features(file)
        add_content(file)
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
    folder, record = planted(cache, evil_file(evil, target))
    word, seconds, mebibytes = judged(folder, record)
    assert word
    assert seconds < 20
    assert mebibytes < 100


@pytest.mark.fault(44)
@pytest.mark.needs_tool("strace")
@pytest.mark.parametrize("evil", EVIL, ids=lambda e: e.__name__)
def test_the_gate_opens_nothing_else(cache: Cache, target: Path, tmp_path: Path, evil: Evil) -> None:
    folder, record = planted(cache, evil_file(evil, target))
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

    planted(cache, evil_file(evil, target))
    np.save(tmp_path / "keys.npy", rows()[0])
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
    assert serve(cache, *rows(), SPEC).verdict == "detected"
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
