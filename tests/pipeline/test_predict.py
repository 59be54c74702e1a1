"""Predictions as lines: every path keeps its bytes, every number its column."""

from __future__ import annotations

import csv
import io
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.pipeline.predict import Predictions

PATHS = st.lists(st.binary(min_size=1, max_size=12).filter(lambda b: b"\0" not in b), unique=True, max_size=6)
NAMES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), unique=True, min_size=2
)


@st.composite
def predictions(draw: st.DrawFn) -> Predictions:
    paths, classes = draw(PATHS), draw(NAMES)
    errors = tuple(draw(st.sampled_from(["", "read: gone,\nor not"])) for _ in paths)
    chances = np.random.default_rng(len(paths)).dirichlet([1] * len(classes), len(paths)).astype(np.float32)
    chances[[bool(error) for error in errors]] = np.nan
    return Predictions(tuple(paths), chances, tuple(classes), errors)


def test_no_class_has_the_column_of_another_thing() -> None:
    classes = ("class path", "error", "label", "path", "class label")
    chances = np.full((1, 5), 0.2, np.float32)
    (head, line) = Predictions((b"a.png",), chances, classes, ("",)).lines("csv")
    names = next(csv.reader([head.decode()]))
    assert len(set(names)) == len(names)
    assert names[3:-1] == [
        "class path",
        "class error",
        "class class label",
        "class class path",
        "class label",
    ]
    assert dict(zip(names, line.decode().strip().split(","), strict=True))["path"] == "a.png"


@given(predictions())
def test_csv_gives_everything_back(found: Predictions) -> None:
    data = b"".join(found.lines("csv"))
    rows = list(csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")))
    assert rows[0] == ["path", "label", "probability", *found.classes, "error"]
    assert tuple(os.fsencode(row[0]) for row in rows[1:]) == found.paths
    for row, label, chances, error in zip(
        rows[1:], found.labels, found.probabilities, found.errors, strict=True
    ):
        assert (row[1] or None, row[-1]) == (label, error)
        if error:
            assert set(row[2:-1]) == {""}
        else:
            np.testing.assert_allclose([float(p) for p in row[3:-1]], chances, rtol=1e-5)
            assert float(row[2]) == pytest.approx(chances.max(), rel=1e-5)
            assert row[1] == found.classes[int(chances.argmax())]


@given(predictions())
def test_json_lines_give_everything_back(found: Predictions) -> None:
    lines = list(found.lines("jsonl"))
    assert all(line.isascii() and line.count(b"\n") == 1 and line.endswith(b"\n") for line in lines)
    rows = [json.loads(line) for line in lines]
    assert tuple(os.fsencode(row["path"]) for row in rows) == found.paths
    for row, label, chances, error in zip(rows, found.labels, found.probabilities, found.errors, strict=True):
        assert row["label"] == label
        assert row.get("error", "") == error
        if not error:
            np.testing.assert_allclose([row["probabilities"][c] for c in found.classes], chances, rtol=1e-6)


def test_problems_are_named_as_a_person_may_see_them() -> None:
    found = Predictions(
        (b"good.png", b"bad\n\xff.png"),
        np.array([[0.5, 0.5], [np.nan, np.nan]], np.float32),
        ("a", "b"),
        ("", "decode: torn"),
    )
    assert found.problems == ["bad\\n\\xff.png: decode: torn"]
