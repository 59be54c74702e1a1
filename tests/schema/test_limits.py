from __future__ import annotations

import pytest

from bottleneck.schema import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8G", 8 << 30),
        (".5G", 1 << 29),
        ("+4 MiB", 4 << 20),
        ("4  gb", 4 << 30),
        ("1_000", 1000),
        ("1e9", 10**9),
        (" 7 ", 7),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "1e", "1..2", "_1", "nan", "inf", "8X", "8 G G", "1e999"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        parse_size(text)
