"""Two passes of one graph at once give the rows that each gives alone."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

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
    from bottleneck.forward.concurrency import may_race

    assert may_race(graph_of(rows)) is race


@pytest.mark.parametrize("base", ["mobilenetv2", "resnet50", "inceptionv3"])
def test_usual_networks_need_no_turns(base: str, tmp_path: Any) -> None:
    from bottleneck.bases.load import load_base
    from bottleneck.forward.concurrency import may_race
    from bottleneck.forward.frozen_graph import _traced
    from bottleneck.schema import BaseRequest, Cache

    request = BaseRequest(base=base, weights="random:0", size=96, pooling="avg")
    loaded = load_base(request, Cache(tmp_path))
    assert not may_race(_traced(loaded.model, (2, 96, 96, 3)).graph)


@pytest.mark.parametrize(("rows", "most"), [(read_by_the_convolution, 1), (in_place, 2)])
def test_passes_of_a_graph_that_races_take_turns_and_others_do_not(
    rows: Callable[[Any], Any], most: int
) -> None:
    from bottleneck.forward.concurrency import in_turn

    met = threading.Barrier(2)

    def one_pass(_: Any) -> list[bool]:
        # Two that are under way at once meet; one alone waits in vain.
        try:
            met.wait(0.5)
        except threading.BrokenBarrierError:
            return [False]
        return [True]

    call = in_turn(one_pass, graph_of(rows))
    with ThreadPoolExecutor(2) as pool:
        found = [seen for (seen,) in pool.map(call, range(2))]
    assert found == [most == 2] * 2


# What TensorFlow makes of it: chance, so that without turns not every run fails. In a process of its own, which without
# them ends by a signal now and then.
AT_ONCE = """
import sys
from concurrent.futures import ThreadPoolExecutor
import keras
import numpy as np
import tensorflow as tf
from bottleneck.forward.keras_forward import _keras_graph
from bottleneck.forward.frozen_graph import freeze_graph

shape = (8, 16, 16, 8)
x = image = keras.Input(shape[1:])
for _ in range(6):
    x = keras.layers.ReLU()(x)
    x = keras.layers.Add()([x, keras.layers.Conv2D(8, 3, padding="same")(x)])
model = keras.Model(image, x)
call = freeze_graph(model, shape, "float32") if sys.argv[1] == "frozen" else _keras_graph(model, shape)

random = np.random.default_rng(0)
batches = [tf.constant(random.random(shape, np.float32)) for _ in range(4)]
rows = lambda number: np.asarray(call(batches[number % 4])[0])
alone = [rows(number) for number in range(4)]
with ThreadPoolExecutor(4) as pool:
    right = pool.map(lambda number: np.array_equal(rows(number), alone[number % 4]), range(6000))
    wrong = 6000 - sum(right)
assert not wrong, f"{wrong} of 6,000 batches have wrong rows"
"""


@pytest.mark.parametrize("graph", ["frozen", "with variables"])
def test_passes_at_once_give_the_rows_of_each_alone(graph: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE, graph], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-500:]}"
