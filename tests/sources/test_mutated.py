"""Damaged and hostile tables: whatever became of them, the answer is a table or a `SourceError` that names the file."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bottleneck.errors import SourceError
from bottleneck.sources import columns, open_source, parquet
from bottleneck.sources.table import TableSource


def _parquet(folder: Path, seed: int) -> bytes:
    draw = random.Random(seed)
    rows = draw.choice([3, 200])
    table = pa.table(
        {
            "path": [f"{draw.choice('ab')}/{n}.png" for n in range(rows)],
            "label": [draw.choice(["cat", "dög", "01"]) for _ in range(rows)],
            "group": [None if n % 3 else str(n) for n in range(rows)],
            "split": ["train" if n % 2 else "val" for n in range(rows)],
        }
    )
    pq.write_table(
        table,
        folder / "made.parquet",
        compression=draw.choice(["none", "snappy", "zstd", "gzip"]),
        use_dictionary=bool(seed % 2),
        data_page_version=draw.choice(["1.0", "2.0"]),
    )
    return (folder / "made.parquet").read_bytes()


def _csv(seed: int) -> bytes:
    draw = random.Random(seed)
    rows = [f'"{n}, {draw.choice("ab")}.png",d\u00f6g,g{n},train' for n in range(draw.choice([3, 200]))]
    return "\n".join(["path,label,group,split", *rows]).encode()


def mutated(data: bytes, seed: int) -> bytes:
    """Bytes flipped, cut off, doubled, or replaced by what numbers end in."""
    draw = random.Random(seed)
    out = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 8])):
        # The footer says what there is, so half of all blows fall there.
        at = (
            draw.randrange(max(0, len(out) - 600), len(out))
            if draw.random() < 0.5
            else draw.randrange(len(out))
        )
        kind = draw.randrange(5)
        if kind == 0:
            out[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            out[at] = draw.randrange(256)
        elif kind == 2:
            out[at : at + 5] = b"\xff\xff\xff\xff\x7f"[: len(out) - at]
        elif kind == 3:
            del out[at : at + draw.choice([1, 7, len(out)])]
        else:
            out[at:at] = out[max(0, at - 9) : at]
        if not out:
            break
    return bytes(out)


def table_or_named_error(file: Path) -> None:
    said = ""
    try:
        for entry in TableSource.open(str(file)).entries():
            assert isinstance(entry.path, bytes) and isinstance(entry.label, str)
    except SourceError as error:
        said = str(error)
    assert not said or (str(file) in said and not said.rstrip().endswith(":")), said


@pytest.mark.parametrize("seed", range(60))
def test_a_mutated_csv_table_is_a_table_or_named(seed: int, tmp_path: Path) -> None:
    file = tmp_path / "images.csv"
    file.write_bytes(mutated(_csv(seed), seed))
    table_or_named_error(file)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's part in this process, for many small cases; whole children are tried below."""

    def asked(location: str, names: object) -> bytes:
        try:
            return parquet.stream_columns(location, names)  # type: ignore[arg-type]
        except OSError:
            raise pa.ArrowInvalid("refused") from None
        except Exception as error:
            raise pa.ArrowInvalid(str(error) or "refused") from None

    monkeypatch.setattr(parquet, "_ask_child", asked)


@pytest.mark.parametrize("seed", range(150))
def test_a_mutated_parquet_table_is_a_table_or_named(seed: int, tmp_path: Path, here: None) -> None:
    file = tmp_path / "images.parquet"
    file.write_bytes(mutated(_parquet(tmp_path, seed), seed))
    table_or_named_error(file)


@pytest.mark.parametrize("seed", range(4))
def test_by_a_child_too(seed: int, tmp_path: Path) -> None:
    file = tmp_path / "images.parquet"
    file.write_bytes(mutated(_parquet(tmp_path, seed), seed))
    table_or_named_error(file)


def test_text_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    raw = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    pq.write_table(pa.table({"path": ["a.png", "b.png"], "label": raw}), tmp_path / "images.parquet")
    with pytest.raises(SourceError, match=r"images\.parquet.*(?i:utf)"):
        list(open_source(tmp_path / "images.parquet").entries())


def test_a_table_that_declares_far_more_than_it_is_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "x" * (1 << 20)
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), [text])
    pq.write_table(pa.table({"path": words, "label": words}), tmp_path / "images.parquet")  # 20 GB each
    assert (tmp_path / "images.parquet").stat().st_size < 1 << 22
    script = (
        Path(parquet.__file__)
        .read_text()
        .replace("_MEMORY, _TIMES = 4 << 30, 16", "_MEMORY, _TIMES = 1 << 29, 1")
    )
    (tmp_path / "limited.py").write_text(script)
    monkeypatch.setattr(parquet, "__file__", str(tmp_path / "limited.py"))
    with pytest.raises(SourceError, match=r"images\.parquet.*(memory|malloc|ended by itself)"):
        list(open_source(tmp_path / "images.parquet").entries())


def test_a_child_that_is_ended_is_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images.parquet").write_bytes(_parquet(tmp_path, 1))
    (tmp_path / "dies.py").write_text("import os\nos.abort()\n")
    monkeypatch.setattr(parquet, "__file__", str(tmp_path / "dies.py"))
    with pytest.raises(SourceError, match=r"images\.parquet.*ended by itself \(status -6\)"):
        open_source(tmp_path / "images.parquet")


def test_a_child_has_bounds_and_a_session_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tells.py").write_text(
        "import json, os, resource\n"
        "from bottleneck.sources import parquet\n"
        "kinds = (resource.RLIMIT_CORE, resource.RLIMIT_CPU, resource.RLIMIT_AS)\n"
        "limits = lambda *asked: [os.getsid(0) == os.getpid(), *(resource.getrlimit(kind)[0] for kind in kinds)]\n"
        "parquet.stream_columns = lambda *asked: json.dumps(limits()).encode()\n"
        "parquet.main()\n"
    )
    monkeypatch.setattr(parquet, "__file__", str(tmp_path / "tells.py"))
    alone, core, seconds, memory = json.loads(parquet._ask_child(__file__, ()))
    assert (alone, core, seconds) == (True, 0, 600)
    assert 4 << 30 < memory < 8 << 30


def test_a_table_costs_two_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images.parquet").write_bytes(_parquet(tmp_path, 1))
    asked = []
    plain = parquet._ask_child
    monkeypatch.setattr(parquet, "_ask_child", lambda *what: asked.append(what) or plain(*what))
    assert list(open_source(tmp_path / "images.parquet").entries())
    assert len(asked) == 2


def test_a_column_that_is_there_twice_is_refused_by_both(tmp_path: Path) -> None:
    file = tmp_path / "images.parquet"
    named = ["path", "label", "label", "other", "other"]
    pq.write_table(pa.Table.from_arrays([pa.array(["a.png"])] * 5, named), file)
    for ask in (columns.columns_of, columns.read_columns):
        with pytest.raises(SourceError, match="the column 'label' twice"):
            ask(str(file))


def test_a_first_line_without_an_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    with open(tmp_path / "images.csv", "wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(SourceError, match=r"images\.csv"):
        open_source(tmp_path / "images.csv")
