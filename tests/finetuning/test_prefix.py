"""Where a prefix ends, and that the network above it is the same network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bottleneck.bases.cut import cut_at
from bottleneck.bases.graph import IMAGE, walk
from bottleneck.finetuning.prefix import prefix, tail
from bottleneck.finetuning.unfreeze import paths
from tests.models.tiny_network import network

pytestmark = pytest.mark.keras


def end_of(model: Any, *trained: str) -> str | None:
    known = dict(paths(model))
    flat = walk(model)
    end = prefix(flat, {id(known[path]) for path in trained})
    names = {id(operation): path for path, operation in known.items()}
    return None if end == IMAGE else names[id(flat.steps[end].operation)]


def test_it_ends_at_the_latest_layer_that_everything_passes_through() -> None:
    model = network()
    # Not at the padding, whose rows are larger and cost nothing to make again.
    assert end_of(model, "block3_conv") == "block2_out"
    # One branch of a sum trains: the other goes round it.
    assert end_of(model, "block2_conv") == "block1_pool"
    assert end_of(model, "block2_conv", "block3_conv") == "block1_pool"
    assert end_of(model, "block1_conv") is None
    assert end_of(model) == "block3_out"


def nested() -> Any:
    import keras
    from keras import layers

    inside = keras.Input((8, 8, 4))
    y = layers.Conv2D(4, 3, padding="same", name="conv")(inside)
    y = layers.ReLU(name="out")(y)
    y = layers.Conv2D(4, 3, padding="same", name="conv2")(y)
    inner = keras.Model(inside, y, name="inner")
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, name="conv")(image)  # a name that the inner network has too
    x = inner(x) + x
    return keras.Model(image, layers.Conv2D(2, 1, name="last")(x))


def test_nested_networks_are_looked_into_and_a_path_round_them_is_seen() -> None:
    model = nested()
    assert end_of(model, "inner/conv2") == "conv"
    assert end_of(model, "last") == next(p for p, _ in paths(model) if p.startswith("add"))


def test_a_layer_that_is_used_twice_is_no_end() -> None:
    import keras
    from keras import layers

    image = keras.Input((8, 8, 3))
    first = layers.Conv2D(3, 1, name="first")(image)
    shared = layers.Conv2D(3, 1, name="shared")
    model = keras.Model(image, layers.Conv2D(2, 1, name="last")(shared(shared(first))))
    assert end_of(model, "last") == "first"
    assert end_of(model, "shared") == "first"


def test_a_very_long_way_round_is_still_a_way() -> None:
    import keras
    from keras import layers

    image = keras.Input((8, 8, 3))
    x = y = layers.Conv2D(3, 1, name="first")(image)
    for number in range(9):
        x = layers.Conv2D(3, 1, name=f"step{number}")(x)
    model = keras.Model(image, layers.Add(name="sum")([x, y]))
    assert end_of(model, "step8") == "first"


@pytest.mark.parametrize(
    ("make", "end"), [(network, "block1_pool"), (network, None), (nested, "conv"), (nested, None)]
)
def test_the_tail_computes_what_the_network_computes_above_there(make: Any, end: str | None) -> None:
    model = make()
    names = {id(operation): path for path, operation in paths(model)}
    flat = walk(model)
    number = next((n for n, s in enumerate(flat.steps) if names[id(s.operation)] == end), IMAGE)
    above = tail(flat, number, names)
    pixels = np.random.default_rng(0).normal(size=(3, *model.input_shape[1:])).astype("f4")
    rows = pixels if end is None else np.asarray(cut_at(model, end)[0](pixels, training=False))
    np.testing.assert_allclose(above(rows), model(pixels, training=False), atol=1e-6)
    # Layers of its own: the base stays as it is until it is given the weights back.
    for layer in above.layers.values():
        layer.set_weights([weight + 1 for weight in layer.get_weights()])
    before = np.asarray(model(pixels, training=False))
    assert np.abs(np.asarray(above(rows)) - before).max() > 0.1
    above.give_back()
    np.testing.assert_allclose(above(rows), model(pixels, training=False), atol=1e-4)


def test_making_a_tail_leaves_random_states_and_the_base_alone() -> None:
    import random

    model = network()
    before, count = random.getstate(), len(model.get_layer("block2_sum")._inbound_nodes)
    flat = walk(model)
    tail(flat, IMAGE, {id(operation): path for path, operation in paths(model)})
    assert random.getstate() == before
    assert len(model.get_layer("block2_sum")._inbound_nodes) == count
