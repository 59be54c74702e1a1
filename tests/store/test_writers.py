"""Features for other tools: what is written, in which types, for odd names and for nothing at all."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bottleneck.errors import StoreError, UsageError
from bottleneck.store import writers
from bottleneck.store.join import Features
from bottleneck.store.rows import Rows
from bottleneck.store.writers import take_out
from tests.fakes import FakeForward
from tests.store.known_rows import as_rows
from tests.store.table_check import check_pair


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
    monkeypatch.setattr(writers, "_GROUP", 10 << 12)
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


# ------------------------------------------------------------------------------------------- matrix and table are one


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_two_kinds_of_the_same_rows_share_a_table_and_other_rows_take_the_old_matrix_away(
    tmp_path: Path,
) -> None:
    given = features(5)
    facts = []
    for kind in ("h5", "npy"):
        take_out(given, tmp_path, kind)  # type: ignore[arg-type]
        facts.append(check_pair(tmp_path))
    assert names(tmp_path) == ["features.h5", "features.npy", "table.parquet"]
    assert facts[0] == facts[1]
    assert facts[0].sha256 == hashlib.sha256(given.X.tobytes()).hexdigest()
    assert facts[0].recipe == given.spec.recipe.fingerprint
    take_out(replace(given, X=given.X + 1), tmp_path, "npy")
    assert names(tmp_path) == ["features.npy", "table.parquet"]
    take_out(given, tmp_path, "parquet")
    assert names(tmp_path) == ["features.npy", "features.parquet", "table.parquet"]
    check_pair(tmp_path)


@pytest.mark.parametrize("kind", ["npy", "h5"])
def test_a_matrix_of_other_rows_beside_a_table_is_told(tmp_path: Path, kind: Any) -> None:
    given = features(5)
    (matrix, table) = take_out(given, tmp_path / "one", kind)
    (other, _) = take_out(replace(given, X=given.X[::-1]), tmp_path / "two", kind)
    matrix.write_bytes(other.read_bytes())
    with pytest.raises(
        StoreError, match=rf"features\.{kind} is not the matrix that table\.parquet was written with"
    ):
        check_pair(tmp_path / "one")
    matrix.unlink()
    with pytest.raises(StoreError, match="no matrix beside it"):
        check_pair(tmp_path / "one")
    matrix.write_bytes(b"half")
    with pytest.raises(StoreError, match=rf"features\.{kind} cannot be read"):
        check_pair(tmp_path / "one")
    pq.write_table(pq.read_table(table).replace_schema_metadata(None), table)  # as an earlier version did
    with pytest.raises(StoreError, match="does not say which rows its 5 lines are of"):
        check_pair(tmp_path / "one")
    table.write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"table\.parquet cannot be read"):
        check_pair(tmp_path / "one")


@pytest.mark.parametrize("n", [0, 3])
def test_a_pair_of_any_length_is_checked(tmp_path: Path, n: int) -> None:
    take_out(features(n), tmp_path, "npy")
    assert check_pair(tmp_path).shape == (n, 2, 3)


def test_a_thing_of_another_kind_in_the_way_is_named_before_anything_changes(tmp_path: Path) -> None:
    take_out(features(4), tmp_path, "npy")
    (tmp_path / "table.parquet").unlink()
    (tmp_path / "table.parquet").mkdir()
    before = (tmp_path / "features.npy").read_bytes()
    with pytest.raises(IsADirectoryError, match=r"table\.parquet"):
        take_out(features(7), tmp_path, "npy")
    assert (tmp_path / "features.npy").read_bytes() == before
    assert names(tmp_path) == ["features.npy", "table.parquet"]


@pytest.mark.parametrize(
    ("kind", "name"), [("npy", "table.parquet"), ("npy", "features.npy"), ("parquet", "features.parquet")]
)
def test_a_users_own_file_is_never_replaced(tmp_path: Path, kind: Any, name: str) -> None:
    pq.write_table(pa.table({"path": ["a.png"], "label": ["cat"], "note": ["mine"]}), tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(UsageError, match=rf"did not write {name} there.*move it away"):
        take_out(features(4), tmp_path, kind)
    assert (tmp_path / name).read_bytes() == before
    assert names(tmp_path) == [name]
