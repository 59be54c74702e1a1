"""Two passes of one graph at once give the rows that each gives alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.models.toys import network

pytestmark = pytest.mark.keras

SHAPE = (4, 8, 8, 3)


def graph_of(rows: Callable[[Any], Any]) -> Any:
    import tensorflow as tf

    function = tf.function(rows, input_signature=[tf.TensorSpec(SHAPE, tf.float32)])
    return function.get_concrete_function().graph


def convolved(x: Any) -> Any:
    import tensorflow as tf

    return tf.nn.bias_add(tf.nn.conv2d(x, tf.ones([3, 3, 3, 3]), 1, "SAME"), tf.ones([3]))


def in_place(x: Any) -> Any:
    """The term is done with when the last convolution runs, as in MobileNetV2 and ResNet."""
    import tensorflow as tf

    term = tf.nn.relu(x)
    return term + convolved(tf.nn.relu(convolved(term)))


def read_by_the_convolution(x: Any) -> Any:
    import tensorflow as tf

    term = tf.nn.relu(x)
    return term + convolved(term)


def fetched(x: Any) -> Any:
    import tensorflow as tf

    term = tf.nn.relu(x)
    return term, term + convolved(tf.nn.relu(convolved(term)))


def read_later(x: Any) -> Any:
    import tensorflow as tf

    term = tf.nn.relu(x)
    total = term + convolved(tf.nn.relu(convolved(term)))
    return tf.concat([total, tf.reshape(term, SHAPE)], -1)


def cast_twice(x: Any) -> Any:
    """Two operations, of which TensorFlow makes one."""
    import tensorflow as tf

    term = tf.nn.relu(x)
    kernel = tf.ones([3, 3, 3, 3], tf.bfloat16)
    half = tf.nn.conv2d(tf.cast(term, tf.bfloat16), kernel, 1, "SAME")
    return tf.cast(term, tf.bfloat16) + tf.nn.bias_add(half, tf.ones([3], tf.bfloat16))


def without_a_sum(x: Any) -> Any:
    return convolved(x), x


@pytest.mark.parametrize(
    ("rows", "race"),
    [
        (in_place, False),
        (without_a_sum, False),
        (read_by_the_convolution, True),
        (cast_twice, True),
        (fetched, True),
        (read_later, True),
    ],
)
def test_a_sum_races_where_its_other_term_is_still_needed(rows: Callable[[Any], Any], race: bool) -> None:
    from bottleneck.extraction.racing import may_race

    assert may_race(graph_of(rows)) is race


@pytest.mark.parametrize("base", ["mobilenetv2", "resnet50", "inceptionv3"])
def test_usual_networks_need_no_turns(base: str, tmp_path: Any) -> None:
    from bottleneck.bases.load import load
    from bottleneck.extraction.frozen_graph import _traced
    from bottleneck.extraction.racing import may_race
    from bottleneck.schema import BaseRequest, Cache

    request = BaseRequest(base=base, weights="random:0", size=96, pooling="avg")
    loaded = load(request, Cache(tmp_path))
    assert not may_race(_traced(loaded.model, (2, 96, 96, 3)).graph)


@pytest.mark.parametrize("cuts", [["block2_out"], ["block1_pool", "block2_out"]])
def test_two_passes_at_once_give_the_rows_of_one(cuts: list[str]) -> None:
    # Without turns TensorFlow 2.21 ends this process, or gives hundreds of wrong batches.
    import keras
    import tensorflow as tf

    from bottleneck.extraction.frozen_graph import freeze

    whole = network()
    model = keras.Model(whole.input, [whole.get_layer(cut).output for cut in cuts])
    call = freeze(model, (16, 16, 16, 3), "float32")
    random = np.random.default_rng(0)
    batches = [tf.constant(random.random((16, 16, 16, 3), np.float32)) for _ in range(4)]

    def rows(number: int) -> list[np.ndarray]:
        return [np.asarray(part) for part in call(batches[number % 4])]

    alone = [rows(number) for number in range(4)]
    with ThreadPoolExecutor(2) as pool:
        for number, found in enumerate(pool.map(rows, range(1000))):
            for one, other in zip(found, alone[number % 4], strict=True):
                np.testing.assert_array_equal(one, other)
