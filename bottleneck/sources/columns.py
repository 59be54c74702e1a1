"""The columns of a table of images; errors name their rows."""

from __future__ import annotations

import csv
import difflib
import io
import posixpath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from bottleneck.errors import SourceError
from bottleneck.sources import parquet
from bottleneck.sources.layout import SPLIT_NAMES
from bottleneck.sources.reading import reason_of
from bottleneck.system.durable import shown

REQUIRED = ("path", "label")
OPTIONAL = ("group", "split")
_COLUMNS = (*REQUIRED, *OPTIONAL)
_SHOWN = 5
#: Characters in which the names of the columns end.
_HEADER = 1 << 20


def columns_of(location: str) -> list[str]:
    """Name those of the four columns that the table at `location` has.

    Returns
    -------
    list of str
        In the order ``path, label, group, split``.

    Raises
    ------
    SourceError
        Unreadable, a column twice, or a required one missing: found columns and the nearest are listed.
    """
    try:
        found = _csv_header(location) if _is_csv(location) else parquet.read_parquet_columns(location)[0]
    except OSError as error:
        raise SourceError(f"{shown(location)}: the table cannot be read: {_reason(error)}") from error
    except (pa.ArrowException, csv.Error, MemoryError, ValueError, OverflowError) as error:
        raise SourceError(
            f"{shown(location)}: this is no {_kind(location)} table: {_first_line(error)}"
        ) from error
    return _check_names(location, found)


def _check_names(location: str, names: list[str]) -> list[str]:
    """Check the column names of a table, for `columns_of`."""
    twice = sorted({name for name in names if name in _COLUMNS and names.count(name) > 1})
    if twice:
        raise SourceError(f"{shown(location)}: the table has the column {twice[0]!r} twice; keep one")
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise SourceError(
            f"{shown(location)}: expected columns path,label[,group,split]; missing: {', '.join(missing)}"
            f"{_nearest_hint(missing, names)}; found: {', '.join(map(repr, names)) or 'none'}; "
            "name the columns in the first row"
        )
    return [name for name in _COLUMNS if name in names]


def read_columns(location: str) -> tuple[pa.Table, int]:
    """Read and check the table at `location`.

    Returns
    -------
    pyarrow.Table
        ``path`` binary (normalised, each once), ``label``, ``group``, ``split`` string; the last two null
        where the table says nothing, ``split`` one of ``train``, ``validation``, ``test``.
    int
        Rows left out because an equal row was there before.

    Raises
    ------
    SourceError
        Naming rows as a person counts them: the first row below the header is row 1.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> table = pathlib.Path(tempfile.mkdtemp()) / "images.csv"
    >>> _ = table.write_text("path,label,split\\n./a.png,cat,val\\na.png,cat,val\\n")
    >>> read_columns(str(table))[0].to_pylist(), read_columns(str(table))[1]
    ([{'path': b'a.png', 'label': 'cat', 'group': None, 'split': 'validation'}], 1)
    """
    try:
        if _is_csv(location):
            names = columns_of(location)
            raw = _read_csv(location, names)
        else:
            found, raw = parquet.read_parquet_columns(location, _COLUMNS)
            names = _check_names(location, found)
        return _check_table(location, names, raw)
    except OSError as error:
        raise SourceError(f"{shown(location)}: the table cannot be read: {_reason(error)}") from error
    except (pa.ArrowException, MemoryError, ValueError, OverflowError) as error:
        hint = "; save it as UTF-8" if "utf8" in str(error).lower() else ""
        raise SourceError(f"{shown(location)}: {_first_line(error)}{hint}") from error


def _check_table(location: str, names: list[str], raw: pa.Table) -> tuple[pa.Table, int]:
    paths, labels = raw.column("path"), raw.column("label")
    empty = pc.or_kleene(pc.is_null(paths), pc.equal(pc.binary_length(paths), 0))
    _refuse(location, empty, "an empty path", "name a file in each row or leave the row out")
    # "nan" is what writers put where nothing was known; a class of that name would swallow all of these.
    blank = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(labels)), value_set=pa.array(["", "nan"]))
    _refuse(
        location,
        pc.or_kleene(pc.is_null(labels), blank),
        "an empty or NaN label",
        "give each image a label or leave the row out",
    )
    nothing = pa.nulls(len(raw), pa.string())
    group = _empty_as_null(raw.column("group")) if "group" in names else nothing
    split = _splits(location, _empty_as_null(raw.column("split"))) if "split" in names else nothing
    table = pa.table({"path": _normalise(paths), "label": labels, "group": group, "split": split})
    return _drop_repeats(location, table)


def _is_csv(location: str) -> bool:
    return location.lower().endswith(".csv")


def _kind(location: str) -> str:
    return "CSV" if _is_csv(location) else "Parquet"


def _csv_header(location: str) -> list[str]:
    # Paths below the header need not be UTF-8, and a text file is decoded in blocks.
    with open(location, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        start = lines.read(_HEADER)
    return next(csv.reader(io.StringIO(start, newline="")), [])


def _read_csv(location: str, names: list[str]) -> pa.Table:
    # Only our columns, as text: another column's type may change half-way down, and 01 is not 1. Paths are
    # bytes because file names need not be UTF-8. No text stands for null: a class may be called NA or null.
    return arrow_csv.read_csv(
        location,
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            column_types={name: pa.binary() if name == "path" else pa.string() for name in names},
            include_columns=names,
            null_values=[],
            strings_can_be_null=False,
        ),
    )


def _empty_as_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    blank = pc.is_in(pc.utf8_lower(column), value_set=pa.array(["", "nan"]))
    return pc.if_else(blank, pa.scalar(None, pa.string()), column)


def _splits(location: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    plain = pc.utf8_lower(pc.utf8_trim_whitespace(column))
    names = pa.array(list(SPLIT_NAMES))
    at = pc.index_in(plain, value_set=names)
    unknown = pc.and_(pc.is_valid(column), pc.is_null(at))
    if pc.any(unknown).as_py():
        value = column.filter(unknown)[0].as_py()
        near = difflib.get_close_matches(value.lower(), SPLIT_NAMES, n=1, cutoff=0.4)
        hint = f"; nearest: {near[0]}" if near else ""
        _refuse(location, unknown, f"the unknown split {value!r}", f"expected {', '.join(SPLIT_NAMES)}{hint}")
    return pc.take(pa.array(list(SPLIT_NAMES.values())), at)


def _normalise(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Normalise ``./a.png`` to ``a.png``; only such paths become objects."""
    odd = pc.match_substring_regex(paths, rb"(^|/)\.{0,2}(/|$)".decode())
    url = pc.match_substring_regex(paths, rb"^[A-Za-z][A-Za-z0-9+.-]+://".decode())
    odd = pc.and_not(odd, url)  # two slashes mean something there
    if not pc.any(odd).as_py():
        return paths
    fixed = pa.array([posixpath.normpath(p) for p in paths.filter(odd).to_pylist()], pa.binary())
    return pc.replace_with_mask(paths.combine_chunks(), odd.combine_chunks(), fixed)


def _drop_repeats(location: str, table: pa.Table) -> tuple[pa.Table, int]:
    """Drop equal rows and count them; refuse a path with two meanings."""
    if not len(table):
        return table, 0
    coded = table.column("path").combine_chunks().dictionary_encode()
    codes = coded.indices.to_numpy(zero_copy_only=False)
    known, first = np.unique(codes, return_index=True)
    if len(known) == len(codes):
        return table, 0
    earlier = first[codes]
    for name in ("label", "group", "split"):
        column = table.column(name).fill_null("").combine_chunks()
        clash = np.flatnonzero(pc.not_equal(column, column.take(earlier)).to_numpy(zero_copy_only=False))
        if len(clash):
            row = int(clash[0])
            before = int(earlier[row])
            path, old, new = (c.as_py() for c in (table.column("path")[row], column[before], column[row]))
            raise SourceError(
                f"{shown(location)}: {shown(path)} is listed with two {name}s: {old!r} in row {before + 1} "
                f"and {new!r} in row {row + 1}; keep one row a path"
            )
    return table.take(np.sort(first)), len(codes) - len(known)


def _refuse(location: str, bad: pa.ChunkedArray, what: str, advice: str) -> None:
    rows = np.flatnonzero(np.asarray(bad)) + 1
    if len(rows):
        more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
        listed = f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:_SHOWN]))}{more}"
        raise SourceError(f"{shown(location)}: {what} in {listed}; {advice}")


def _nearest_hint(missing: list[str], names: list[str]) -> str:
    folded = {name.strip().lower(): name for name in names}
    hints = []
    for name in missing:
        near = difflib.get_close_matches(name, folded, n=1, cutoff=0.5)
        if near:
            hints.append(f"nearest to {name}: {folded[near[0]]!r}")
    return f" ({'; '.join(hints)})" if hints else ""


def _reason(error: OSError) -> str:
    return reason_of(error) if error.errno else _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
