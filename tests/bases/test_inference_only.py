from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bottleneck.errors import BaseError
from tests.bases import networks

pytestmark = pytest.mark.keras


def check(model: Any, x: np.ndarray, tolerance: float = 0.0, *, written_anew: bool = False) -> None:
    from bottleneck.bases.digest import digest
    from bottleneck.bases.inference_only import freeze_base

    frozen = freeze_base(model)
    assert not frozen.trainable_weights
    assert (digest(frozen) == digest(model)) != written_anew
    expected = np.asarray(model(x, training=False))
    assert np.abs(np.asarray(frozen(x, training=True)) - expected).max() <= tolerance
    assert np.abs(np.asarray(model(x, training=True)) - expected).max() > 1e-3
    assert model.trainable


def test_training_mode_computes_what_inference_computes() -> None:
    check(networks.plain(), np.random.default_rng(0).random((4, 16, 16, 3), np.float32))


def test_stochastic_depth_wrappers_nesting_and_augmentation() -> None:
    import keras
    from keras import layers
    from keras.src.applications.convnext import StochasticDepth

    inside = keras.Input((16, 16, 3))
    y = layers.BatchNormalization()(layers.Conv2D(4, 3)(inside))
    inner = keras.Model(inside, layers.SpatialDropout2D(0.5)(StochasticDepth(0.5)(y)))
    image = keras.Input((16, 16, 3))
    x = layers.RandomRotation(0.4)(layers.RandomFlip()(image))
    x = inner(x)
    x = layers.Reshape((14 * 14, 4))(x)
    x = layers.TimeDistributed(layers.Dropout(0.9))(x)
    check(networks.fill(keras.Model(image, x)), np.random.default_rng(0).random((2, 16, 16, 3), np.float32))


def test_efficientnet() -> None:
    from bottleneck.bases import applications as a
    from bottleneck.bases.calibrate import calibrate
    from bottleneck.schema import Preprocessing

    spec = a.specs()["efficientnetb0"]
    model = a.build(spec, top=False, size=32)
    calibrate(model, Preprocessing(), 32)
    check(model, np.random.default_rng(0).random((2, 32, 32, 3), np.float32) * 255)


def test_random_crop_is_refused() -> None:
    import keras

    from bottleneck.bases.inference_only import freeze_base

    image = keras.Input((16, 16, 3))
    with pytest.raises(BaseError, match="RandomCrop"):
        freeze_base(keras.Model(image, keras.layers.RandomCrop(8, 8)(image)))


def test_attention_is_written_as_layers_that_stay_frozen_and_differs_by_rounding_only() -> None:
    import keras

    # With a dropout rate above 0 Keras takes another attention kernel, even in inference.
    image = keras.Input((8, 8, 3))
    tokens = keras.layers.Reshape((64, 3))(image)
    model = keras.Model(image, keras.layers.MultiHeadAttention(2, 4, dropout=0.5)(tokens, tokens))
    check(
        networks.fill(model),
        np.random.default_rng(0).random((2, 8, 8, 3), np.float32),
        1e-6,
        written_anew=True,
    )
