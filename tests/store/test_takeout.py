"""Features for other tools: what is written, in which types, for odd names and for nothing at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bottleneck.errors import UsageError
from bottleneck.store import takeout
from bottleneck.store.join import Features
from bottleneck.store.rows import Rows
from bottleneck.store.takeout import take_out
from tests.fakes import FakeForward
from tests.store.stored import as_rows


def features(n: int = 7, shape: tuple[int, ...] = (2, 3), dtype: str = "float32", **columns: Any) -> Features:
    random = np.random.default_rng(0)
    table = {
        "path": pa.array(columns.get("paths", [b"a/%d.png" % i for i in range(n)]), pa.binary()),
        "label": pa.array(columns.get("y", [f"class {i % 2}" for i in range(n)]), pa.string()),
        "group": pa.array(columns.get("groups", [None] * n), pa.string()),
        "split": pa.array(["train", None, "test"] * (n // 3) + [None] * (n % 3), pa.string()),
    }
    return Features(
        X=random.normal(size=(n, *shape)).astype(dtype),
        keys=random.integers(0, 256, (n, 32)).astype(np.uint8),
        table=pa.table(table),
        classes=("class 0", "class 1"),
        spec=FakeForward().spec,
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(5,), (2, 3)])
@pytest.mark.parametrize("n", [0, 7])
def test_all_formats_hold_the_same_rows_in_the_same_order(
    tmp_path: Path, n: int, shape: tuple[int, ...], dtype: str
) -> None:
    given = features(n, shape, dtype)
    (matrix, table) = take_out(given, tmp_path / "npy", "npy")
    loaded = np.load(matrix, allow_pickle=False)
    np.testing.assert_array_equal(loaded, given.X)
    assert loaded.dtype == given.X.dtype
    beside = pq.read_table(table)
    assert beside.column_names == ["path", "label", "group", "split", "content"]
    (one,) = take_out(given, tmp_path / "parquet", "parquet")
    whole = pq.read_table(one)
    assert whole.drop_columns("features").equals(beside)
    assert whole.schema.field("features").type == pa.list_(
        pa.from_numpy_dtype(np.dtype(dtype)), int(np.prod(shape))
    )
    flat = whole.column("features").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(flat, given.X.reshape(-1))
    (h5, table) = take_out(given, tmp_path / "h5", "h5")
    assert pq.read_table(table).equals(beside)
    with h5py.File(h5) as file:
        np.testing.assert_array_equal(file["features"][:], given.X)
        assert file["features"].dtype == given.X.dtype
        np.testing.assert_array_equal(file["content"][:], given.keys)
        assert [v.decode() for v in file["label"][:]] == list(given.y)
        assert [v.decode() for v in file["split"][:]] == [s or "" for s in given.splits]
        assert list(file["path"][:]) == list(given.paths)


def test_columns_keep_what_is_unknown(tmp_path: Path) -> None:
    given = features(3, y=["a,\nb", None, "猫"], groups=["g", None, ""])
    take_out(given, tmp_path, "npy")
    table = pq.read_table(tmp_path / "table.parquet")
    assert table.column("label").to_pylist() == ["a,\nb", None, "猫"]
    assert table.column("group").to_pylist() == ["g", None, ""]
    assert table.column("split").to_pylist() == ["train", None, "test"]
    assert table.column("path").type == pa.string()


def test_names_that_are_not_utf8_keep_their_bytes(tmp_path: Path) -> None:
    paths = [b"plain.png", b"caf\xe9.png", b"new\nline.png"]
    given = features(3, paths=paths)
    take_out(given, tmp_path, "npy")
    column = pq.read_table(tmp_path / "table.parquet").column("path")
    assert column.type == pa.binary()
    assert column.to_pylist() == paths
    take_out(given, tmp_path, "h5")
    with h5py.File(tmp_path / "features.h5") as file:
        assert list(file["path"][:]) == paths


def test_a_second_time_replaces_the_first_and_leaves_nothing_else(tmp_path: Path) -> None:
    take_out(features(7), tmp_path / "deep" / "out", "npy")
    take_out(features(4), tmp_path / "deep" / "out", "npy")
    assert np.load(tmp_path / "deep" / "out" / "features.npy").shape == (4, 2, 3)
    assert sorted(p.name for p in (tmp_path / "deep" / "out").iterdir()) == ["features.npy", "table.parquet"]


def test_no_file_holds_a_pickle(tmp_path: Path) -> None:
    for kind in ("npy", "parquet", "h5"):
        take_out(features(), tmp_path, kind)  # type: ignore[arg-type]
    for path in tmp_path.iterdir():
        assert b"numpy.core" not in path.read_bytes() and not path.read_bytes().startswith(b"\x80")


@pytest.mark.parametrize("kind", ["npy", "parquet", "h5"])
def test_rows_on_disk_are_written_as_rows_in_memory_are(tmp_path: Path, kind: Any) -> None:
    given = features(50)
    lazy = replace(given, X=as_rows(tmp_path / "cache", given.X))
    take_out(given, tmp_path / "a", kind)
    take_out(lazy, tmp_path / "b", kind)
    for path in (tmp_path / "a").iterdir():
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_a_matrix_is_never_held_whole(tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = features(64, (1 << 10,))
    X = as_rows(tmp_path / "cache", given.X)
    read, most = Rows.read, []

    def watched(self: Rows, out: np.ndarray | None = None) -> np.ndarray:
        most.append(len(self))
        return read(self, out)

    monkeypatch.setattr(Rows, "read", watched)
    monkeypatch.setattr(takeout, "_GROUP", 10 << 12)
    monkeypatch.setattr(Rows, "pieces", lambda self: (self[i : i + 10] for i in range(0, len(self), 10)))
    (path, *_) = take_out(replace(given, X=X), tmp_path / "out", kind)
    assert max(most) == 10 and sum(most) == 64
    if kind == "npy":
        np.testing.assert_array_equal(np.load(path), given.X)
    else:
        assert pq.ParquetFile(path).num_row_groups == 7
        flat = pq.read_table(path).column("features").combine_chunks().flatten().to_numpy()
        np.testing.assert_array_equal(flat, given.X.ravel())


def test_hdf5_refuses_what_it_would_have_to_hold_in_memory(tmp_path: Path) -> None:
    given = features(50)
    lazy = replace(given, X=as_rows(tmp_path / "cache", given.X))
    with pytest.raises(UsageError, match=r"--format npy or --format parquet"):
        take_out(lazy, tmp_path / "out", "h5", memory=2 * lazy.X.nbytes - 1)
    assert not (tmp_path / "out").exists()


def test_what_fails_halfway_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_out(features(4), tmp_path, "npy")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match=rf"No space left.*{tmp_path}/(features.npy|table.parquet)"):
        take_out(features(7), tmp_path, "npy")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
