"""Rows of files that other libraries decode are not mixed with those that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from bottleneck.errors import ForeignEnvironment
from tests.extraction.fake_runs import counts, here
from tests.fakes import FakeForward, write_images


def decoding(by: str | None) -> FakeForward:
    forward = FakeForward()
    if by is not None:
        forward.environment = {**forward.environment, "decoder": by}
    return forward


def test_a_machine_that_decodes_to_other_pixels_may_not_append(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"a": 3}), tmp_path / "cache"
    here(source, cache, decoding("1-aaaa"))
    assert counts(here(source, cache, decoding("1-bbbb"))[0]) == {"reused": 3}, "what is there is served"
    write_images(source, {"b": 2}, seed=1)
    with pytest.raises(ForeignEnvironment, match="give 1-bbbb here and 1-aaaa there"):
        here(source, cache, decoding("1-bbbb"))
    assert counts(here(source, cache, decoding("1-aaaa"))[0]) == {"computed": 2, "reused": 3}


def test_records_that_say_nothing_of_it_are_appended_to(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"a": 3}), tmp_path / "cache"
    for number, by in enumerate((None, "1-bbbb", None, "2-cccc")):
        write_images(source, {f"b{number}": 2}, seed=number + 1)
        assert here(source, cache, decoding(by))[0].computed, by
    write_images(source, {"c": 2}, seed=9)
    for by in ("1-aaaa", "2-aaaa"):
        with pytest.raises(ForeignEnvironment, match="other pixels"):
            here(source, cache, decoding(by))
