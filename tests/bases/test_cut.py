from __future__ import annotations

import numpy as np
import pytest

from bottleneck.errors import BaseError, UnknownName, UsageError
from tests.bases import networks


@pytest.mark.keras
def test_a_cut_is_a_layer_a_path_or_the_output() -> None:
    from bottleneck.bases.cut import cut_at, layer_shapes

    model = networks.nested()
    x = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    inner, path = cut_at(model, "inner/r1")
    assert (path, inner.output_shape) == ("inner/r1", (None, 16, 16, 4))
    expected = model.get_layer("inner").get_layer("r1")(model.get_layer("inner").get_layer("c1")(x * 0.5))
    np.testing.assert_array_equal(np.asarray(inner(x)), np.asarray(expected))
    whole, path = cut_at(model, "output")
    assert path == "gmp"
    np.testing.assert_array_equal(np.asarray(whole(x)), np.asarray(model(x)))
    assert cut_at(model, "inner")[0].output_shape == (None, 16, 16, 6)
    assert "inner/c2" in layer_shapes(model)


@pytest.mark.keras
def test_two_levels_of_nesting() -> None:
    import keras

    from bottleneck.bases.cut import cut_at

    image = keras.Input((16, 16, 3))
    model = keras.Model(image, networks.nested()(image))
    assert cut_at(model, "outer/inner/c1")[0].output_shape == (None, 16, 16, 4)


@pytest.mark.keras
def test_an_unknown_layer_lists_the_nearest_with_shapes() -> None:
    from bottleneck.bases.cut import cut_at

    with pytest.raises(UnknownName, match=r"'x_joi'; nearest: .*x_join.*shapes: .*x_join \(8, 8, 8\)"):
        cut_at(networks.plain(prefix="x_"), "x_joi")
    with pytest.raises(UnknownName, match=r"inner/c1 \(16, 16, 4\)"):
        cut_at(networks.nested(), "inner/c3", aliases=["penultimate"])
    with pytest.raises(BaseError, match="nothing inside it"):
        cut_at(networks.plain(prefix="x_"), "x_join/y")


@pytest.mark.keras
def test_shared_layers_and_several_outputs_are_refused() -> None:
    import keras

    from bottleneck.bases.cut import cut_at

    image = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    first = shared(image)
    model = keras.Model(image, keras.layers.Add(name="sum")([shared(first), first]))
    with pytest.raises(BaseError, match="used 2 times"):
        cut_at(model, "shared")
    assert cut_at(model, "sum")[1] == "sum"
    with pytest.raises(BaseError, match="2 outputs"):
        cut_at(keras.Model(image, [first, shared(first)]), "output")
    # Used once in this network, however often elsewhere: fine.
    assert cut_at(keras.Model(image, first), "shared")[0].output_shape == (None, 8, 8, 3)


def test_pooling_and_rows() -> None:
    from bottleneck.bases.cut import resolve_pooling, row_shape

    assert resolve_pooling("avg", "none", (None, 50, 64)) == "avg"
    with pytest.raises(UsageError, match="maps"):
        resolve_pooling("avg", "none", (None, 2, 2, 2, 8))
    with pytest.raises(BaseError, match="--size"):
        row_shape((None, None, None, 8), "none", "base")
    with pytest.raises(BaseError, match="shape"):
        row_shape((None, 0, 0, 8), "none", "base")


@pytest.mark.keras
def test_pool_computes_what_it_says() -> None:
    from bottleneck.bases.cut import pool

    x = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
    np.testing.assert_allclose(np.asarray(pool(x, "avg")), x.mean((1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(pool(x, "max")), x.max((1, 2)))
    np.testing.assert_allclose(np.asarray(pool(x[:, 0], "avg")), x[:, 0].mean(1), rtol=1e-6)
