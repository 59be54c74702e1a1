"""Folding: the same rows with fewer operations, and hands off what is not safe to fold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bottleneck.bases.graph import network_of, steps_of
from bottleneck.forward import frozen_graph
from bottleneck.forward.fold_batchnorm import Normalized, folded
from tests.bases.networks import fill
from tests.forward.normed_networks import (
    NETWORKS,
    SHAPE,
    SIZE,
    conv,
    cut_below,
    depthwise,
    in_float16,
    model_of,
    norm,
    plain,
    read_twice,
)

pytestmark = pytest.mark.keras


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, SHAPE).astype(np.float32)


@pytest.mark.parametrize(("body", "norms", "count"), NETWORKS, ids=[body.__name__ for body, _, _ in NETWORKS])
def test_rows_are_those_of_keras(body: Any, norms: int, count: int, pixels: np.ndarray) -> None:
    import keras
    import tensorflow as tf

    model = model_of(body)
    wanted = [np.asarray(part) for part in keras.tree.flatten(model(pixels, training=False))]
    before = [weight.numpy() for weight in model.weights]
    found = frozen_graph.freeze_graph(model, SHAPE, "float32")(tf.constant(pixels))
    # A processor that has float16 in hardware rounds in another place in a graph than in single operations.
    tolerance = 1e-5 if body is not in_float16 else 1e-3
    for ours, theirs in zip(found, wanted, strict=True):
        error = np.abs(np.asarray(ours, np.float32) - theirs)
        assert (error <= tolerance * (np.abs(theirs) + theirs.std())).all(), error.max()
    steps = folded(steps_of(network_of(model))).steps
    assert sum(isinstance(step.operation, Normalized) for step in steps) == count
    assert sum(isinstance(step.operation, keras.layers.BatchNormalization) for step in steps) == norms - count
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_a_convolution_stays_only_where_something_else_reads_it() -> None:
    import keras

    def convolutions(body: Any) -> int:
        steps = folded(steps_of(network_of(model_of(body)))).steps
        return sum(isinstance(step.operation, keras.layers.Conv2D) for step in steps)

    assert (convolutions(plain), convolutions(read_twice), convolutions(cut_below)) == (0, 1, 1)


#: As the MobileNets, EfficientNets and NASNets have them.
TAKEN = [
    (12, 3, 2, ((0, 1), (0, 1))),
    (11, 3, 2, 1),
    (12, 5, 2, ((1, 2), (1, 2))),
    (11, 5, 2, 2),
    (12, 3, 1, 1),
]


@pytest.mark.parametrize("size", [11, 12])
@pytest.mark.parametrize("kernel", [2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    "zeros", [((0, 1), (0, 1)), 1, ((1, 0), (1, 0)), ((1, 1), (0, 1)), ((1, 2), (1, 2)), 2]
)
def test_zeros_are_taken_in_where_the_convolution_can_add_them(
    size: int, kernel: int, stride: int, zeros: Any
) -> None:
    import keras
    import tensorflow as tf

    image = keras.Input((size, size, 3))
    padding = keras.layers.ZeroPadding2D(zeros)
    body = keras.layers.DepthwiseConv2D(kernel, stride)(padding(image))
    model = fill(keras.Model(image, body))
    steps = folded(steps_of(model)).steps
    same = keras.layers.MaxPooling2D(kernel, stride, padding="same")(image).shape
    # TensorFlow's own rule, by how many pixels each kernel sees.
    seen = tf.nn.conv2d(tf.ones((1, size, size, 1)), tf.ones((kernel, kernel, 1, 1)), stride, "SAME")
    told = tf.nn.conv2d(
        padding(tf.ones((1, size, size, 1))), tf.ones((kernel, kernel, 1, 1)), stride, "VALID"
    )
    is_same = body.shape[1:3] == same[1:3] and np.array_equal(seen, told)
    taken = len(steps) == 1
    # Zeros that no kernel reaches may stay.
    assert is_same or not taken
    assert taken or (size, kernel, stride, zeros) not in TAKEN
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    (found,) = frozen_graph.freeze_graph(model, pixels.shape, "float32")(tf.constant(pixels))
    wanted = np.asarray(model(pixels, training=False))
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-5, atol=1e-5)


def test_zeros_that_something_else_reads_or_that_have_no_extent_stay(pixels: np.ndarray) -> None:
    import keras

    def steps(body: Any, extent: int | None = SIZE) -> list[str]:
        image = keras.Input((extent, extent, 3))
        model = keras.Model(image, body(image))
        return [type(step.operation).__name__ for step in folded(steps_of(model)).steps]

    def padded(x: Any, **options: Any) -> list[Any]:
        x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
        return [keras.layers.DepthwiseConv2D(3, 2, **options)(x), x]

    assert steps(lambda x: padded(x)[0]) == ["DepthwiseConv2D"]
    assert steps(padded) == ["ZeroPadding2D", "DepthwiseConv2D"]
    assert steps(lambda x: padded(x)[0], None) == ["ZeroPadding2D", "DepthwiseConv2D"]
    assert steps(lambda x: padded(x, activation="relu")[0]) == ["ZeroPadding2D", "DepthwiseConv2D"]


def test_a_cut_gives_the_same_bits_with_other_cuts_and_alone(pixels: np.ndarray) -> None:
    import keras
    import tensorflow as tf

    both = model_of(cut_below)
    alone = keras.Model(both.inputs, both.outputs[1])
    together = frozen_graph.freeze_graph(both, SHAPE, "float32")(tf.constant(pixels))
    (single,) = frozen_graph.freeze_graph(alone, SHAPE, "float32")(tf.constant(pixels))
    np.testing.assert_array_equal(np.asarray(together[1]), np.asarray(single))


def test_a_layer_of_ones_own_keeps_what_is_inside_it(pixels: np.ndarray) -> None:
    import keras
    import tensorflow as tf

    class Own(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = conv(), norm()

        def call(self, x: Any, training: bool = False) -> Any:
            return self.norm(self.conv(x), training=training)

    model = model_of(lambda x: norm()(Own()(x)))
    (found,) = frozen_graph.freeze_graph(model, SHAPE, "float32")(tf.constant(pixels))
    wanted = np.asarray(model(pixels, training=False))
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-5, atol=1e-5)


def test_statistics_of_any_size_are_folded_exactly(pixels: np.ndarray) -> None:
    """The factor is 1e4 here and 1e-4 there: kernels take it in float64 and are rounded once."""
    import tensorflow as tf

    model = model_of(depthwise)
    layer = next(layer for layer in model.layers if type(layer).__name__ == "BatchNormalization")
    layer.moving_variance.assign([0.0, 1e8, 1.0, 1e-3, 1e3, 0.5])
    layer.moving_mean.assign([0.0, 1e4, -3.0, 0.1, 5.0, 0.5])
    (found,) = frozen_graph.freeze_graph(model, SHAPE, "float32")(tf.constant(pixels))
    wanted = np.asarray(model(pixels, training=False))
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-4, atol=1e-5)
