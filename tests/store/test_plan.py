"""Laws of the plan: a partition of what is missing, in order of first path."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.schema import Inventory
from bottleneck.store.plan import PublishedPlan, plan_tasks, task_id
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
    made = plan_tasks(images, SPEC, mask, task_rows=rows)
    planned = [key[0] for task in made for key in task.keys]
    assert sorted(planned) == sorted(set(contents) - known)
    # In order of first path, each with that path.
    firsts = [contents.index(c) for c in planned]
    assert firsts == sorted(firsts)
    assert [p for task in made for p in task.paths] == [b"%05d" % i for i in firsts]
    assert all(len(task.keys) == rows for task in list(made)[:-1])
    assert made.images == len(planned)


def test_the_id_is_of_the_keys_in_order() -> None:
    made = plan_tasks(inventory([1, 2, 3]), SPEC, np.zeros(3, bool))
    assert made[0].id == task_id(made[0].keys) != task_id(made[0].keys[::-1])
    with pytest.raises(IndexError):
        made[1]


def test_rows_of_a_task_come_from_the_recipe_alone() -> None:
    assert SPEC.task_rows == 1024
    large = SPEC.model_copy(update={"shape": (56, 56, 256)})
    assert large.task_rows == (128 << 20) // (56 * 56 * 256 * 4) == 41
    assert SPEC.model_copy(update={"shape": (1 << 26,)}).task_rows == 1


def published(contents: list[int], rows: int) -> PublishedPlan:
    return PublishedPlan(np.array([[c] * 32 for c in contents], np.uint8).reshape(-1, 32), rows)


PLANS = st.lists(
    st.tuples(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.integers(1, 6)), max_size=4
)


@given(
    st.lists(st.integers(0, 30), max_size=60),
    st.sets(st.integers(0, 30)),
    st.sets(st.integers(0, 30)),
    PLANS,
    st.integers(1, 9),
)
def test_whatever_is_published_a_plan_is_a_partition(
    contents: list[int], known: set[int], suspects: set[int], plans: list[tuple[list[int], int]], rows: int
) -> None:
    """Each missing content once; adopted tasks as they were cut; new ones in order; suspects last and alone."""
    images = inventory(contents)
    made = plan_tasks(
        images,
        SPEC,
        np.array([c in known for c in contents], bool),
        suspects=np.array([c in suspects for c in contents], bool),
        published=[published(*one) for one in plans],
        task_rows=rows,
    )
    tasks = [[int(key[0]) for key in task.keys] for task in made]
    planned = [c for task in tasks for c in task]
    assert sorted(planned) == sorted(set(contents) - known)
    assert [p for task in made for p in task.paths] == [b"%05d" % contents.index(c) for c in planned]
    adopted, lone = tasks[: made.adopted], tasks[len(tasks) - made.suspect_tasks :]
    assert sorted(c for task in lone for c in task) == sorted((suspects & set(contents)) - known)
    assert all(len(task) == 1 for task in lone)
    cuts = [one[i : i + size] for one, size in plans for i in range(0, len(one), size)]
    assert all(task in cuts for task in adopted)
    anew = [c for task in tasks[made.adopted : len(tasks) - made.suspect_tasks] for c in task]
    assert anew == sorted(anew, key=contents.index)
    assert [contents[row] for row in made.new_rows] == anew
    # None that could be taken over was left out.
    free = set(contents) - known - suspects - {c for task in adopted for c in task}
    assert not any(set(cut) <= free and len(set(cut)) == len(cut) for cut in cuts)


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=40, unique=True),
    st.integers(1, 7),
    st.lists(st.integers(0, 39), max_size=12),
    st.integers(1, 7),
)
def test_going_on_with_a_published_plan_is_the_rest_of_the_straight_run(
    contents: list[int], rows: int, done: list[int], other_rows: int
) -> None:
    """Whatever tasks are done already, and however the next builder would cut: the same tasks are left."""
    images = inventory(contents)
    straight = plan_tasks(images, SPEC, np.zeros(len(contents), bool), task_rows=rows)
    whole = PublishedPlan(images.keys[straight.new_rows], rows)
    finished = {number % len(straight) for number in done}
    known = np.zeros(len(contents), bool)
    for number in finished:
        known[np.isin(images.keys[:, 0], straight.keys(number)[:, 0])] = True
    left = plan_tasks(images, SPEC, known, published=[whole], task_rows=other_rows)
    expected = [straight[n].id for n in range(len(straight)) if n not in finished]
    assert [task.id for task in left] == expected
    assert len(left.new_rows) == 0


def test_contents_that_share_their_first_bytes_are_not_mistaken() -> None:
    keys = np.zeros((3, 32), np.uint8)
    keys[:, -1] = [1, 2, 3]
    table = pa.table(
        {
            "path": pa.array([b"a", b"b", b"c"], pa.binary()),
            "content": pa.array([key.tobytes() for key in keys], pa.binary(32)),
        }
    )
    images = Inventory(table, "/nowhere")
    stranger = keys[:1].copy()
    stranger[0, -1] = 9
    made = plan_tasks(
        images, SPEC, np.zeros(3, bool), published=[PublishedPlan(stranger, 1), PublishedPlan(keys[::-1], 3)]
    )
    assert made.images == 3
    assert sorted(key[-1] for task in made for key in task.keys) == [1, 2, 3]
