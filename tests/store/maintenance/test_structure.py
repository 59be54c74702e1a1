"""The child that opens shards with HDF5: it may hang or die, and only says what is wrong."""

import io
import os
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from bottleneck.schema import Cache, Record
from bottleneck.store.maintenance import structure
from bottleneck.store.maintenance.structure import StructureChecker, inspect_structure
from tests.store.maintenance.small_stores import house, put, some


@pytest.fixture
def shard(tmp_path: Path) -> tuple[Path, Record]:
    cache = Cache(tmp_path / "cache")
    folder, _, _ = house(cache, 1)
    return folder / "shards", put(cache, *some(10, 0))


def asked(record: Record) -> dict[str, object]:
    return {
        "features": [[record.rows, *record.shape], record.dtype, record.features_offset],
        "content": [[record.rows, 32], "uint8", record.content_offset],
    }


def test_what_we_write_is_found_well(shard: tuple[Path, Record]) -> None:
    folder, record = shard
    with StructureChecker() as checker:
        assert checker.check(folder, record) == ""
        assert checker.check(folder, record) == ""


@pytest.mark.fault(44, 45)
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (
            lambda f: f.create_dataset("features", data=np.zeros((10, 6), "<f4"), chunks=(5, 6)),
            "not contiguous",
        ),
        (lambda f: f.create_dataset("features", (10, 6), "<f4", external=[("x", 0, 240)]), "another file"),
        (lambda f: f.create_dataset("features", data=np.zeros((10, 7), "<f4")), "shape"),
        (lambda f: f.create_dataset("features", data=np.zeros((10, 6), "<f8")), "another type"),
        (lambda f: f.create_dataset("features", data=np.zeros((10, 6), ">f4")), "another type"),
        (lambda f: f.create_dataset("features", (10, 6), "<f4"), "lies at None"),
        (lambda f: f.create_dataset("features", data=np.zeros((10, 6), "<f4")), "lies at"),
        (lambda f: f.create_group("features"), "no dataset"),
        (lambda f: f.__setitem__("features", h5py.SoftLink("/content")), "elsewhere"),
        (lambda f: f.__setitem__("features", h5py.ExternalLink("other.h5", "/x")), "elsewhere"),
        (lambda f: f.create_dataset("other", data=np.zeros((10, 6), "<f4")), "is not there"),
        (lambda f: None, "holds 1 objects"),
    ],
)
def test_each_other_structure_is_named(
    shard: tuple[Path, Record], tmp_path: Path, make: object, why: str
) -> None:
    _, record = shard
    path = tmp_path / "other.h5"
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("content", data=np.zeros((10, 32), np.uint8))
        make(file)  # type: ignore[operator]
    path.write_bytes(buffer.getvalue())
    assert why in inspect_structure(str(path), asked(record))


@pytest.mark.fault(47)
def test_no_plugin_and_no_setting_of_somebody_reaches_the_child(
    shard: tuple[Path, Record], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HDF5_PLUGIN_PATH", str(tmp_path))
    with StructureChecker() as checker:
        assert checker.check(*shard) == ""
        child = checker._child
        assert child is not None
        given = Path(f"/proc/{child.pid}/environ").read_bytes().split(b"\0")
    assert [entry for entry in given if entry.startswith(b"HDF5_")] == [b"HDF5_PLUGIN_PRELOAD=::"]


def test_a_child_that_hangs_or_dies_costs_that_shard_alone(
    shard: tuple[Path, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    with StructureChecker() as checker:
        assert checker.check(*shard) == ""
        child = checker._child
        assert child is not None
        os.kill(child.pid, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(checker, "_seconds", 0.5)
            assert "more than 0.5 s" in checker.check(*shard)
        assert child.poll() == -signal.SIGKILL
        assert checker.check(*shard) == "", "another child took over"


def test_memory_that_a_file_asks_for_is_not_given(shard: tuple[Path, Record]) -> None:
    import subprocess
    import sys

    code = (
        "from bottleneck.system import hdf5_child; from bottleneck.store.maintenance import structure\n"
        "hdf5_child.limit_resources(structure._MEMORY)\n"
        "try:\n bytes(1 << 30)\nexcept MemoryError:\n print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "refused"
    assert structure._MEMORY < 1 << 30
