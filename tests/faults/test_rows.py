"""The list itself: every fault has a test, and every test's fault is on the list."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.faults.fault_list import AWAITED, LATER, ROWS
from tests.faults.plugin import Seen, table

TESTS = Path(__file__).parent.parent


def marked() -> set[int]:
    """Rows that some test anywhere in the suite is marked with."""
    found: set[int] = set()
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
                rows = [ast.literal_eval(argument) for argument in node.args]
                assert rows and all(type(row) is int for row in rows), f"{path}:{node.lineno}"
                found.update(rows)
    return found


def test_the_list_is_whole() -> None:
    assert set(ROWS) == set(range(1, 82)) - {46}
    assert not AWAITED & set(LATER)


def test_every_fault_has_a_test() -> None:
    expected = set(ROWS) - AWAITED - set(LATER)
    assert expected - marked() == set(), "rows without a test"
    assert marked() - set(ROWS) == set(), "tests of rows that are not on the list"


def test_nothing_is_awaited_that_has_come() -> None:
    assert marked() & AWAITED == set(), "take these out of AWAITED in tests/faults/fault_list.py"
    assert marked() & set(LATER) == set(), "take these out of LATER in tests/faults/fault_list.py"


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        (["passed", "passed"], "| passed (2) |"),
        (["passed", "skipped"], "| passed (1) | 40 flips; skipped: needs the tool 'x' |"),
        (["skipped"], "| skipped |"),
        (["passed", "failed"], "| FAILED (1 of 2) |"),
        ([], "| not run |"),
    ],
)
def test_the_table_says_what_became_of_each(outcomes: list[str], said: str) -> None:
    found = [
        Seen((29,), f"test_{n}", kind, "needs the tool 'x'", ["40 flips"][n:])
        for n, kind in enumerate(outcomes)
    ]
    lines = [line for line in table(found, 60.0).splitlines() if line.startswith("| 29 |")]
    assert len(lines) == 1
    assert said in lines[0]
