"""Published plans: whole or passed over, the same name for the same plan, gone when nobody can use them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.errors import StoreError
from bottleneck.schema.strict_json import MalformedDocument
from bottleneck.store.plan import task_id
from bottleneck.store.plan_files import publish_plan, read_plan, read_plans, remove_settled, task_contents


def some(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32)).astype(np.uint8)


def test_a_plan_comes_back_as_it_was_published(tmp_path: Path) -> None:
    path = publish_plan(tmp_path, some(10), 4)
    one = read_plan(tmp_path, path.name)
    np.testing.assert_array_equal(one.keys, some(10))
    assert one.task_rows == 4
    assert [len(keys) for keys in task_contents(one)] == [4, 4, 2]
    assert read_plans(tmp_path, 4).keys() == {path.name}
    assert read_plans(tmp_path, 3) == {}
    assert read_plans(tmp_path / "none", 4) == {}


def test_equal_plans_are_one_file_and_others_are_others(tmp_path: Path) -> None:
    names = {
        publish_plan(tmp_path, keys, rows).name
        for keys, rows in [(some(5), 2), (some(5), 2), (some(5), 3), (some(5)[::-1], 2)]
    }
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    assert len(names) == 3


def test_every_flipped_bit_and_every_cut_makes_it_no_plan(tmp_path: Path) -> None:
    path = publish_plan(tmp_path, some(3), 2)
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 3):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        with pytest.raises(MalformedDocument):
            read_plan(tmp_path, path.name)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert read_plans(tmp_path, 100) == {}
    path.write_bytes(whole + b"\0")
    assert read_plans(tmp_path, 100) == {}


def test_what_is_no_regular_file_under_a_plans_name_is_passed_over(tmp_path: Path) -> None:
    whole = publish_plan(tmp_path, some(3), 2)
    whole.rename(tmp_path / "kept")
    (tmp_path / whole.name).symlink_to(tmp_path / "kept")
    (tmp_path / ("a" * 16 + ".plan")).mkdir()
    os.mkfifo(tmp_path / ("b" * 16 + ".plan"))
    (tmp_path / "notes.txt").write_text("mine")
    assert read_plans(tmp_path, 100) == {}
    for name, kind in [(whole.name, OSError), ("b" * 16 + ".plan", StoreError), ("../x", MalformedDocument)]:
        with pytest.raises(kind):
            read_plan(tmp_path, name)


def test_a_plan_says_no_more_contents_than_its_file_holds(tmp_path: Path) -> None:
    path = tmp_path / ("c" * 16 + ".plan")
    path.write_bytes(b"bottleneck plan 1 1024 4000000000\n" + bytes(64))
    with pytest.raises(MalformedDocument, match="not a whole one"):
        read_plan(tmp_path, path.name)


@given(st.integers(1, 12), st.integers(1, 5), st.sets(st.integers(0, 11)))
def test_a_plan_goes_when_no_task_of_it_is_missing_as_a_whole(
    tmp_path_factory: pytest.TempPathFactory, count: int, rows: int, there: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("plans")
    keys = some(count)
    path = publish_plan(folder, keys, rows)
    mask = np.array([index in there for index in range(count)], bool)
    gone = remove_settled(folder, lambda _: mask)
    whole = [start for start in range(0, count, rows) if not mask[start : start + rows].any()]
    assert path.exists() == bool(whole)
    assert gone == ([] if whole else [task_id(keys[s : s + rows]) for s in range(0, count, rows)])
