"""Tables: columns, labels as written, mistakes named by their row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from bottleneck.errors import Rejected, SourceError
from bottleneck.sources import open_source
from bottleneck.sources.columns import read_columns
from tests.sources.tiny_files import labels, png, tree

FORMS = ["csv", "parquet"]


def written(folder: Path, form: str, columns: dict[str, Any]) -> Path:
    path = folder / f"images.{form}"
    folder.mkdir(exist_ok=True)
    table = pa.table(columns)
    (pyarrow.csv.write_csv if form == "csv" else pyarrow.parquet.write_table)(table, path)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_paths_labels_groups_and_splits(tmp_path: Path, form: str) -> None:
    tree(tmp_path, {"a/1.png": 1, "b/2.png": 2, "b/3.png": 3})
    columns = {
        "path": ["a/1.png", "./b//2.png", str(tmp_path / "b/3.png")],
        "label": ["cat", "dog", "dog"],
        "group": ["p1", "", "p2"],
        "split": ["train", "valid", ""],
    }
    source = open_source(written(tmp_path, form, columns))
    found = list(source.entries())
    assert [entry[:1] + entry[2:] for entry in found] == [
        (b"a/1.png", "cat", "p1", "train", True),
        (b"b/2.png", "dog", None, "validation", True),
        (bytes(tmp_path / "b/3.png"), "dog", "p2", None, True),
    ]
    assert [source.read(entry.path) for entry in found] == [png(1), png(2), png(3)]


def test_paths_that_lead_up_are_taken(tmp_path: Path) -> None:
    tree(tmp_path, {"images/1.png": 1})
    table = written(tmp_path / "labels", "csv", {"path": ["../images/1.png"], "label": ["cat"]})
    assert open_source(table).read(b"../images/1.png") == png(1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "text", ["01", "a,b", "two\nlines", 'quo"te', " space ", "NA", "null", "日本", "1e3"]
)
def test_labels_are_text_exactly_as_written(tmp_path: Path, form: str, text: str) -> None:
    table = written(tmp_path, form, {"path": ["1.png", "2.png"], "label": [text, "other"]})
    assert labels(open_source(table))[b"1.png"][0] == text


def test_line_ends_in_labels_of_a_table_of_many_blocks(tmp_path: Path) -> None:
    lines = "".join(f'{number}.png,"a\n{"x" * 90}\n{number}"\n' for number in range(30_000))
    (tmp_path / "t.csv").write_text("path,label\n" + lines)
    table, _ = read_columns(str(tmp_path / "t.csv"))
    assert len(table) == 30_000
    assert table.column("label")[29_999].as_py() == f"a\n{'x' * 90}\n29999"


def test_number_labels_without_quotes_stay_as_written(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("label,path,note\n01,1.png,3\n1,2.png,x\n1.0,3.png,\n")
    assert [label for label, _ in labels(open_source(tmp_path / "t.csv")).values()] == ["01", "1", "1.0"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([7, 8]), ["7", "8"]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        (pa.array(["x", "y"], pa.large_string()), ["x", "y"]),
    ],
)
def test_parquet_labels_of_other_types_become_text(
    tmp_path: Path, values: pa.Array, expected: list[str]
) -> None:
    table = written(tmp_path, "parquet", {"path": ["1.png", "2.png"], "label": values})
    assert [label for label, _ in labels(open_source(table)).values()] == expected


def test_a_byte_order_mark_and_names_that_are_not_utf8(tmp_path: Path) -> None:
    tree(tmp_path, {b"\xff.png": 5})
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfpath,label\n\xff.png,cat\n")
    source = open_source(tmp_path / "t.csv")
    assert labels(source) == {b"\xff.png": ("cat", None)}
    assert source.read(b"\xff.png") == png(5)


def test_a_label_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"path,label\n1.png,caf\xe9\n")
    with pytest.raises(SourceError, match="save it as UTF-8"):
        list(open_source(tmp_path / "t.csv").entries())


@pytest.mark.parametrize("form", FORMS)
def test_a_missing_column_lists_the_found_and_the_nearest(tmp_path: Path, form: str) -> None:
    table = written(tmp_path, form, {"Path": ["1.png"], "lable": ["cat"], "z": ["x"]})
    with pytest.raises(SourceError, match="missing: path, label") as caught:
        open_source(table)
    assert "nearest to path: 'Path'" in str(caught.value)
    assert "nearest to label: 'lable'" in str(caught.value)
    assert "found: 'Path', 'lable', 'z'" in str(caught.value)


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label,label\n1.png,a,b\n")
    with pytest.raises(SourceError, match="the column 'label' twice"):
        open_source(tmp_path / "t.csv")


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_missing_costs_that_image_only(tmp_path: Path, form: str) -> None:
    tree(tmp_path, {"1.png": 1, "folder/x.png": 2})
    table = written(tmp_path, form, {"path": ["1.png", "gone.png", "folder"], "label": ["a", "b", "c"]})
    source = open_source(table)
    assert len(labels(source)) == 3
    assert source.read(b"1.png") == png(1)
    with pytest.raises(Rejected, match="the table names this file, but there is none") as caught:
        source.read(b"gone.png")
    assert caught.value.retry
    with pytest.raises(Rejected, match="names a URL; a table on this machine names files by their paths"):
        source.read(f"file://{tmp_path}/1.png".encode())
    with pytest.raises(Rejected, match="not a regular file"):
        source.read(b"folder")


@pytest.mark.parametrize("form", FORMS)
def test_one_path_with_two_labels_names_both(tmp_path: Path, form: str) -> None:
    table = written(tmp_path, form, {"path": ["1.png", "2.png", "./1.png"], "label": ["cat", "x", "dog"]})
    with pytest.raises(
        SourceError, match=r"1\.png is listed with two labels: 'cat' in row 1 and 'dog' in row 3"
    ):
        list(open_source(table).entries())


@pytest.mark.parametrize("name", ["group", "split"])
def test_one_path_with_two_groups_or_splits_is_refused(tmp_path: Path, name: str) -> None:
    columns = {"path": ["1.png", "1.png"], "label": ["a", "a"], name: ["train", "test"]}
    with pytest.raises(SourceError, match=f"two {name}s"):
        list(open_source(written(tmp_path, "csv", columns)).entries())


@pytest.mark.parametrize("form", FORMS)
def test_an_equal_row_is_counted(tmp_path: Path, form: str) -> None:
    table = written(tmp_path, form, {"path": ["1.png", "2.png", "1.png"], "label": ["a", "b", "a"]})
    source = open_source(table)
    assert list(labels(source)) == [b"1.png", b"2.png"]
    assert source.passed_over() == {"row listed twice": 1}


@pytest.mark.parametrize("form", FORMS)
def test_empty_and_nan_labels_name_their_rows(tmp_path: Path, form: str) -> None:
    bad = ["", "nan", "NaN", " ", "", ""]
    table = written(
        tmp_path, form, {"path": [f"{i}.png" for i in range(8)], "label": ["a", *bad[:3], "b", *bad[3:]]}
    )
    with pytest.raises(SourceError, match="empty or NaN label in rows 2, 3, 4, 6, 7 and 1 more"):
        list(open_source(table).entries())


@pytest.mark.parametrize("values", [pa.array([1.0, float("nan")]), pa.array(["a", None])])
def test_null_and_nan_in_parquet(tmp_path: Path, values: pa.Array) -> None:
    table = written(tmp_path, "parquet", {"path": ["1.png", "2.png"], "label": values})
    with pytest.raises(SourceError, match="empty or NaN label in row 2;"):
        list(open_source(table).entries())


def test_an_empty_path_names_its_row(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="an empty path in row 2"):
        list(open_source(written(tmp_path, "csv", {"path": ["1.png", ""], "label": ["a", "b"]})).entries())


def test_an_unknown_split_names_row_and_nearest(tmp_path: Path) -> None:
    columns = {"path": ["1.png", "2.png"], "label": ["a", "b"], "split": ["train", "tets"]}
    with pytest.raises(SourceError, match=r"the unknown split 'tets' in row 2; .*nearest: test"):
        list(open_source(written(tmp_path, "csv", columns)).entries())


def test_tables_that_are_none(tmp_path: Path) -> None:
    for name, data, expected in (
        ("a.parquet", b"not parquet at all", "this is no Parquet table|cannot be read"),
        ("b.csv", b"", "missing: path, label; found: none"),
        ("c.csv", b"path,label\na,b,c\n", "Expected 2 columns, got 3"),
        ("d.csv", b"\xff\xfe\x00p", "missing: path, label; found"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SourceError, match=expected):
            list(open_source(tmp_path / name).entries())


def test_a_table_without_rows_has_no_entries(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\n")
    assert list(open_source(tmp_path / "t.csv").entries()) == []


def test_a_name_with_a_nul_is_a_rejection(tmp_path: Path) -> None:
    table = written(tmp_path, "parquet", {"path": [b"a\0b.png"], "label": ["x"]})
    source = open_source(table)
    assert set(labels(source)) == {b"a\0b.png"}
    with pytest.raises(Rejected, match="no file can be called so"):
        source.read(b"a\0b.png")


def test_only_odd_paths_are_normalised(tmp_path: Path) -> None:
    paths = ["a/.b/c.png", "a/..b.png", "x/./y.png", "x/../z.png", "/r//s.png", "t..png"]
    table = written(tmp_path, "parquet", {"path": paths, "label": ["l"] * 6})
    assert read_columns(str(table))[0].column("path").to_pylist() == [
        b"a/.b/c.png",
        b"a/..b.png",
        b"x/y.png",
        b"z.png",
        b"/r/s.png",
        b"t..png",
    ]
