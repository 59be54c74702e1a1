"""Pictures brought to the target by compiled loops: the bits of the contract's graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.pixels.pictures import photo

pytestmark = pytest.mark.keras

EXTENTS = st.integers(1, 97)
TARGETS = st.integers(1, 41)
unhurried = settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])


def ours(picture: np.ndarray, height: int, width: int, resize: str) -> np.ndarray | None:
    from bottleneck.pixels.fast.resize import fitted

    return fitted(picture, height, width, resize)


def same(picture: np.ndarray, height: int, width: int, resize: str) -> None:
    import tensorflow as tf

    from bottleneck.pixels.contract.geometry import fitted

    found = ours(picture, height, width, resize)
    assert found is not None
    assert (found.shape, found.dtype) == ((height, width, 3), np.float32)
    np.testing.assert_array_equal(found, fitted(tf.constant(picture), height, width, resize))


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@given(rows=EXTENTS, columns=EXTENTS, height=TARGETS, width=TARGETS, seed=st.integers(0, 9))
@example(rows=1, columns=97, height=41, width=1, seed=0)
@example(rows=97, columns=1, height=1, width=41, seed=0)
@unhurried
def test_any_extent_to_any_target(
    resize: str, rows: int, columns: int, height: int, width: int, seed: int
) -> None:
    same(photo(rows, columns, seed), height, width, resize)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize(
    ("rows", "columns", "height", "width"),
    [(375, 500, 224, 224), (375, 500, 299, 299), (427, 640, 96, 160), (1200, 900, 227, 227)],
)
def test_photographs_at_the_targets_of_bases(
    resize: str, rows: int, columns: int, height: int, width: int
) -> None:
    same(photo(rows, columns), height, width, resize)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_is_turned(orientation: int) -> None:
    import tensorflow as tf

    from bottleneck.pixels.contract import geometry
    from bottleneck.pixels.fast import resize as fitting

    picture = photo(5, 8)
    found = fitting.upright(picture, orientation)
    np.testing.assert_array_equal(found, geometry.upright(tf.constant(picture), tf.constant(orientation)))
    same(found, 3, 4, "stretch")


def test_a_picture_that_lies_otherwise_in_memory() -> None:
    same(photo(60, 50)[::-1, ::2], 20, 31, "stretch")


def test_the_largest_values_in_boxes_as_large_as_are_exact() -> None:
    same(np.full((257, 256, 3), 255, np.uint8), 1, 1, "stretch")
    same(np.full((256, 513, 3), 255, np.uint8), 1, 2, "stretch")


def test_larger_boxes_are_left_to_the_graph() -> None:
    assert ours(np.zeros((257, 257, 3), np.uint8), 1, 1, "stretch") is None


def test_threads_do_not_share_what_they_work_with() -> None:
    from concurrent.futures import ThreadPoolExecutor

    pictures = [photo(90 + i, 120 - i, seed=i) for i in range(12)]
    alone = [ours(picture, 40, 50, "crop") for picture in pictures]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda picture: ours(picture, 40, 50, "crop"), pictures * 20))
    for number, found in enumerate(together):
        np.testing.assert_array_equal(found, alone[number % len(alone)])
