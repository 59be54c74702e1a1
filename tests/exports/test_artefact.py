"""`labels.txt`: a class a line, whatever classes are called."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from bottleneck.exports.artefact import as_lines

NAMES = st.text(st.characters(codec="utf-8"), min_size=1) | st.text('"\\n\n\r\u2028a ', min_size=1)


@given(st.lists(NAMES, unique=True, max_size=8))
def test_each_class_has_a_line_that_gives_its_name_back(names: list[str]) -> None:
    text = as_lines(names)
    assert text.splitlines() == text.split("\n")[:-1]
    assert [json.loads(line) if line[0] == '"' else line for line in text.splitlines()] == names
