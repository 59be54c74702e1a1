"""Laws of the plan: a partition of what is missing, in order of first path."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.schema import Inventory
from bottleneck.store.plan import plan, task_id
from tests.fakes import base

SPEC = base().spec


def inventory(contents: list[int]) -> Inventory:
    keys = [bytes([c]) * 32 for c in contents]
    paths = [b"%05d" % i for i in range(len(contents))]
    table = pa.table({"path": pa.array(paths, pa.binary()), "content": pa.array(keys, pa.binary(32))})
    return Inventory(table, "/nowhere")


@given(st.lists(st.integers(0, 30), max_size=60), st.sets(st.integers(0, 30)), st.integers(1, 9))
def test_a_plan_partitions_what_is_missing(contents: list[int], known: set[int], rows: int) -> None:
    images = inventory(contents)
    mask = np.array([c in known for c in contents], bool)
    made = plan(images, SPEC, mask, task_rows=rows)
    planned = [key[0] for task in made for key in task.keys]
    assert sorted(planned) == sorted(set(contents) - known)
    # In order of first path, each with that path.
    firsts = [contents.index(c) for c in planned]
    assert firsts == sorted(firsts)
    assert [p for task in made for p in task.paths] == [b"%05d" % i for i in firsts]
    assert all(len(task.keys) == rows for task in list(made)[:-1])
    assert made.images == len(planned)


def test_the_id_is_of_the_keys_in_order() -> None:
    made = plan(inventory([1, 2, 3]), SPEC, np.zeros(3, bool))
    assert made[0].id == task_id(made[0].keys) != task_id(made[0].keys[::-1])
    with pytest.raises(IndexError):
        made[1]


def test_rows_of_a_task_come_from_the_recipe_alone() -> None:
    assert SPEC.task_rows == 1024
    large = SPEC.model_copy(update={"shape": (56, 56, 256)})
    assert large.task_rows == (128 << 20) // (56 * 56 * 256 * 4) == 41
    assert SPEC.model_copy(update={"shape": (1 << 26,)}).task_rows == 1
