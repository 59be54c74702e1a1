"""The frozen graph: what Keras gives, at one shape, with the weights inside, and in another precision alone."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck.bases.precision import isa
from bottleneck.errors import NotReducible
from bottleneck.forward import frozen_graph
from bottleneck.forward.drift import measure_drift
from tests.bases.networks import fill, nested, plain
from tests.models.tiny_network import SIZE, network

pytestmark = pytest.mark.keras

BATCH = 4
SHAPE = (BATCH, SIZE, SIZE, 3)
HAS_BFLOAT16 = bool({"avx512_bf16", "amx_bf16", "bf16"} & set(isa().split()))


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, SHAPE).astype(np.float32)


def rows(call: Any, pixels: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    (found,) = call(tf.constant(pixels))
    return np.asarray(found)


@pytest.mark.parametrize("make", [network, plain, nested])
def test_it_gives_what_keras_gives_in_inference_mode(make: Any, pixels: np.ndarray) -> None:
    model = make()
    call = frozen_graph.freeze_graph(model, SHAPE, "float32")
    wanted = np.asarray(model(pixels, training=False))
    np.testing.assert_allclose(rows(call, pixels), wanted, rtol=1e-5, atol=1e-5 * wanted.std())


def test_its_weights_are_its_own_and_its_bits_are_of_the_image_alone(pixels: np.ndarray) -> None:
    model = network()
    call = frozen_graph.freeze_graph(model, SHAPE, "float32")
    before = rows(call, pixels)
    for weight in model.weights:
        weight.assign(weight.value * 0)
    np.testing.assert_array_equal(rows(call, pixels), before)
    np.testing.assert_array_equal(rows(call, pixels[::-1])[::-1], before)
    alone = np.zeros_like(pixels)
    alone[2] = pixels[0]
    np.testing.assert_array_equal(rows(call, alone)[2], before[0])
    again = frozen_graph.freeze_graph(network(), SHAPE, "float32")
    np.testing.assert_array_equal(rows(again, pixels), before)


def test_a_variable_that_keras_does_not_know_of_is_inside_too(pixels: np.ndarray) -> None:
    import keras
    import tensorflow as tf

    gain = tf.Variable(tf.constant([1.0, 2.0, 3.0]))

    class Gain(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x * gain

    image = keras.Input((SIZE, SIZE, 3))
    model = fill(keras.Model(image, keras.layers.Conv2D(4, 3)(Gain()(image))))
    wanted = np.asarray(model(pixels, training=False))
    call = frozen_graph.freeze_graph(model, SHAPE, "float32")
    gain.assign(tf.zeros(3))
    np.testing.assert_allclose(rows(call, pixels), wanted, rtol=1e-5, atol=1e-5 * wanted.std())


# Elsewhere oneDNN would emulate it, or Eigen find nothing to compute so: `bases.precision` lets it come to neither.
@pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor has no bfloat16")
def test_bfloat16_changes_this_graph_and_no_other(pixels: np.ndarray) -> None:
    model = network()
    other = frozen_graph.freeze_graph(model, SHAPE, "float32")
    before, keras = rows(other, pixels), np.asarray(model(pixels, training=False))
    reduced = rows(frozen_graph.freeze_graph(model, SHAPE, "bfloat16"), pixels)
    assert reduced.dtype == np.float32
    cost = measure_drift(before, reduced)
    assert 1e-5 < cost.relative < 0.1
    assert cost.cosine > 0.95
    np.testing.assert_array_equal(rows(other, pixels), before)
    np.testing.assert_array_equal(np.asarray(model(pixels, training=False)), keras)


def stem(second: int) -> Any:
    """A first convolution, a second with kernels of `second` pixels, a third; what each gives."""
    import keras
    from keras import layers

    image = keras.Input((SIZE, SIZE, 3))
    one = layers.Conv2D(8, 3, padding="same")(image)
    two = layers.Conv2D(8, second, padding="same")(one)
    three = layers.Conv2D(8, 3, padding="same")(two)
    return fill(keras.Model(image, [one, two, three]))


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor has no bfloat16")
@pytest.mark.parametrize(("second", "kept"), [(1, [True, True, False]), (3, [True, False, False])])
def test_cheap_convolutions_next_to_the_pixels_stay_float32_in_bfloat16(
    second: int, kept: list[bool], pixels: np.ndarray
) -> None:
    import tensorflow as tf

    model = stem(second)
    full, reduced = (
        frozen_graph.freeze_graph(model, SHAPE, precision)(tf.constant(pixels))
        for precision in ("float32", "bfloat16")
    )
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(full, reduced, strict=True)]
    found = [float(np.abs(a - b).max() / a.std()) for a, b in pairs]
    assert [distance < 1e-4 for distance in found] == kept, found
    assert max(found) < 0.1


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor has no bfloat16")
def test_bias_and_activation_stay_float32_with_the_first_convolution(pixels: np.ndarray) -> None:
    import keras
    import tensorflow as tf
    from keras import layers

    image = keras.Input((SIZE, SIZE, 3))
    one = layers.ReLU(max_value=6)(layers.BatchNormalization()(layers.Conv2D(8, 3)(image)))
    two = layers.ReLU()(layers.Conv2D(8, 3)(one))
    model = fill(keras.Model(image, [one, two]))
    full, reduced = (
        frozen_graph.freeze_graph(model, SHAPE, precision)(tf.constant(pixels))
        for precision in ("float32", "bfloat16")
    )
    same = [np.array_equal(a, b) for a, b in zip(full, reduced, strict=True)]
    assert same == [True, False]


@pytest.mark.parametrize("last", ["GlobalMaxPooling2D", "Conv2D"])
def test_a_base_with_nothing_to_reduce_is_refused_by_name(last: str) -> None:
    """The first convolution is not reduced at any cut, so neither where it is the only one."""
    import keras

    image = keras.Input((SIZE, SIZE, 3))
    layer = keras.layers.Conv2D(8, 3) if last == "Conv2D" else keras.layers.GlobalMaxPooling2D()
    model = keras.Model(image, layer(image))
    with pytest.raises(NotReducible, match=r"--precision bfloat16: .* use --precision float32"):
        frozen_graph.freeze_graph(model, SHAPE, "bfloat16")


def test_two_gigabytes_of_weights_do_not_fit_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    assert frozen_graph.fits(model)
    monkeypatch.setattr(frozen_graph, "_MOST_BYTES", 64)
    assert not frozen_graph.fits(model)


@pytest.mark.parametrize(("normalized", "graph"), [(True, "frozen"), (False, "keras")])
def test_float32_is_frozen_where_there_is_something_to_fold(
    normalized: bool, graph: str, pixels: np.ndarray
) -> None:
    """Without BatchNormalization constants bring nothing, and their copies cost memory and time."""
    import keras

    from bottleneck.bases.load import load_model
    from bottleneck.forward.keras_forward import KerasForward
    from bottleneck.schema import BaseRequest, Preprocessing

    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(8, 3)(image)
    # Deep inside, as networks of networks have it.
    inner = keras.Sequential([keras.layers.BatchNormalization()] if normalized else [keras.layers.ReLU()])
    model = fill(keras.Model(image, keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(inner(x)))))
    assert frozen_graph.has_batchnorm(model) == normalized
    request = BaseRequest(base="object:toy", preprocessing=Preprocessing.parse("scale=1/127.5,offset=-1"))
    forward = KerasForward(load_model(model, [request]), lambda _: BATCH)
    assert forward.environment["forward"].startswith(f"{graph} graph")
    by_freezing = rows(frozen_graph.freeze_graph(model, SHAPE, "float32"), pixels)
    found = forward.features(127.5 * (pixels + 1))
    np.testing.assert_allclose(found, by_freezing, rtol=1e-5, atol=1e-5 * by_freezing.std())


def test_what_precision_costs_can_be_asked_more_than_once(pixels: np.ndarray) -> None:
    """Of several cuts some are founded later: the second answer must not compare bfloat16 with itself."""
    from bottleneck.bases.load import load_model
    from bottleneck.forward.keras_forward import KerasForward
    from bottleneck.schema import BaseRequest, Preprocessing

    if not HAS_BFLOAT16:
        pytest.skip("this processor has no bfloat16")
    request = BaseRequest(
        base="object:toy", preprocessing=Preprocessing.parse("scale=1/127.5,offset=-1"), precision="bfloat16"
    )
    forward = KerasForward(load_model(network(), [request]), lambda _: BATCH)
    images = 127.5 * (pixels + 1)
    first, again = forward.exact(images)[0], forward.exact(images)[0]
    np.testing.assert_array_equal(again, first)
    assert np.abs(first - forward.features(images)).max() > 0


@pytest.mark.parametrize("why", ["nothing to reduce", "too large"])
@pytest.mark.parametrize("asked", ["auto", "bfloat16"])
def test_auto_is_float32_for_a_base_that_cannot_be_reduced(
    asked: Any, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    from bottleneck.bases import precision
    from bottleneck.bases.load import load_model
    from bottleneck.forward.keras_forward import keras_forward
    from bottleneck.schema import BaseRequest, Cache, Preprocessing

    monkeypatch.setattr(precision, "here", lambda asked: "float32" if asked == "float32" else "bfloat16")
    image = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(image, keras.layers.GlobalMaxPooling2D()(image))
    if why == "too large":
        model = network()
        monkeypatch.setattr(frozen_graph, "_MOST_BYTES", 64)
    request = BaseRequest(
        base="object:toy", preprocessing=Preprocessing.parse("scale=1/127.5,offset=-1"), precision=asked
    )
    load = functools.partial(load_model, model)
    if asked == "bfloat16":
        with pytest.raises(NotReducible, match="use --precision float32"):
            keras_forward(load, [request], Cache(tmp_path))
    else:
        assert keras_forward(load, [request], Cache(tmp_path)).spec.recipe.precision == "float32"


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor has no bfloat16")
def test_cuts_of_one_pass_in_bfloat16_are_each_cut_alone(pixels: np.ndarray) -> None:
    from bottleneck.bases.load import load_model
    from bottleneck.forward.keras_forward import KerasForward
    from bottleneck.schema import BaseRequest, Preprocessing

    preprocessing = Preprocessing.parse("scale=1/127.5,offset=-1")
    requests = [
        BaseRequest(base="object:toy", cut=cut, preprocessing=preprocessing, precision="bfloat16")
        for cut in ("block3_conv", "block3_norm", None)
    ]
    model, images = network(), 127.5 * (pixels + 1)
    together = KerasForward(load_model(model, requests), lambda _: BATCH).several(images)
    for request, rows_there in zip(requests, together, strict=True):
        alone = KerasForward(load_model(model, [request]), lambda _: BATCH).features(images)
        np.testing.assert_array_equal(rows_there, alone, str(request.cut))
