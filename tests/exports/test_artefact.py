"""Kinds of artefact by name, and `labels.txt`: a class a line, whatever classes are called."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck import catalog
from bottleneck.errors import ExportError, UnknownName, UsageError
from bottleneck.exports import artefact
from bottleneck.exports.artefact import as_lines, load_exporters

NAMES = st.text(st.characters(codec="utf-8"), min_size=1) | st.text('"\\n\n\r\u2028a ', min_size=1)


@given(st.lists(NAMES, unique=True, max_size=8))
def test_each_class_has_a_line_that_gives_its_name_back(names: list[str]) -> None:
    text = as_lines(names)
    assert text.splitlines() == text.split("\n")[:-1]
    assert [json.loads(line) if line[0] == '"' else line for line in text.splitlines()] == names


def test_kinds_come_in_the_catalogs_order_and_once() -> None:
    made, left = load_exporters(["onnx", "keras", "onnx"])
    assert ([e.kind for e in made], left) == (["keras", "onnx"], ())


def test_all_leaves_out_what_cannot_be_made_here_and_a_name_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    real = artefact.util.find_spec
    monkeypatch.setattr(artefact.util, "find_spec", lambda name: None if name == "openvino" else real(name))
    made, left = load_exporters(["all"])
    assert left == ("openvino",)
    assert [e.kind for e in made] == [kind for kind in catalog.EXPORTERS if kind != "openvino"]
    with pytest.raises(ExportError, match=r"openvino needs openvino.*pip install"):
        load_exporters(["all", "openvino"])


@pytest.mark.parametrize(
    ("kinds", "error", "why"),
    [
        (["tflite"], UnknownName, "there is no kind of artefact called 'tflite'.*litert"),
        ([], UsageError, "names no kind"),
    ],
)
def test_kinds_that_are_not_there_are_named(kinds: list[str], error: type, why: str) -> None:
    with pytest.raises(error, match=why):
        load_exporters(kinds)
