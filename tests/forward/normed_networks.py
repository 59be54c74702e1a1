"""Small networks with BatchNormalization wherever it may be folded or may not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.bases.networks import fill

SIZE = 12
SHAPE = (3, SIZE, SIZE, 3)


def model_of(body: Callable[[Any], Any]) -> Any:
    import keras

    image = keras.Input(SHAPE[1:])
    return fill(keras.Model(image, body(image)))


def norm(**options: Any) -> Any:
    import keras

    return keras.layers.BatchNormalization(**options)


def conv(**options: Any) -> Any:
    import keras

    return keras.layers.Conv2D(**{"filters": 5, "kernel_size": 3, **options})


def plain(x: Any) -> Any:
    return norm()(conv(use_bias=False)(x))


def with_bias(x: Any) -> Any:
    return norm(epsilon=0.1)(conv(padding="same", strides=2)(x))


def depthwise(x: Any) -> Any:
    import keras

    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x)
    return keras.layers.ReLU(max_value=6)(norm()(x))


def separable(x: Any) -> Any:
    import keras

    return norm()(keras.layers.SeparableConv2D(7, 3, depth_multiplier=2)(x))


def grouped(x: Any) -> Any:
    return norm()(conv(filters=6, groups=3, use_bias=False)(x))


def without_scale(x: Any) -> Any:
    return norm(scale=False)(conv(use_bias=False)(x))


def without_centre(x: Any) -> Any:
    return norm(center=False)(conv(use_bias=False)(x))


def recorded_as_training(x: Any) -> Any:
    return norm()(conv()(x), training=True)


def inside(x: Any) -> Any:
    """A network in a network, whose convolution feeds a norm outside."""
    import keras

    image = keras.Input(SHAPE[1:])
    return norm()(keras.Model(image, conv()(plain(image)))(x))


def residual(x: Any) -> Any:
    import keras

    return keras.layers.Add()([norm()(conv(filters=3, padding="same")(x)), x])


def padded(x: Any) -> Any:
    """As the MobileNets have it."""
    import keras

    x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    custom = {"depthwise_regularizer": keras.regularizers.L2(0.1), "depthwise_initializer": "he_normal"}
    return norm()(keras.layers.DepthwiseConv2D(3, 2, **custom)(x))


def norm_of_the_image(x: Any) -> Any:
    return conv()(norm()(x))


def activated(x: Any) -> Any:
    return norm()(conv(activation="relu")(x))


def read_twice(x: Any) -> Any:
    import keras

    x = conv()(x)
    return keras.layers.Concatenate()([norm()(x), x])


def cut_below(x: Any) -> Any:
    """Two outputs, as two cuts have them: what the convolution gives is rows too."""
    x = conv()(x)
    return [x, norm()(x)]


def convolution_called_twice(x: Any) -> Any:
    import keras

    shared = conv(filters=3, padding="same")
    return norm()(shared(keras.layers.ReLU()(shared(x))))


def norm_called_twice(x: Any) -> Any:
    shared = norm()
    return shared(conv(filters=3)(shared(conv(filters=3)(x))))


def other_axis(x: Any) -> Any:
    return norm(axis=1)(conv()(x))


def through_noise(x: Any) -> Any:
    """Nothing in inference, but a layer between the two all the same."""
    import keras

    return norm()(keras.layers.GaussianNoise(0.1)(conv()(x)))


def of_a_subclass(x: Any) -> Any:
    import keras

    class Doubled(keras.layers.Conv2D):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return 2 * super().call(x)

    return norm()(Doubled(4, 3)(x))


def of_low_rank(x: Any) -> Any:
    layer = conv()
    result = norm()(layer(x))
    layer.enable_lora(2)
    return result


def in_float16(x: Any) -> Any:
    return norm(dtype="mixed_float16")(conv(dtype="mixed_float16")(x))


#: Networks, how many BatchNormalizations each has, and how many of them are folded.
NETWORKS = [
    (plain, 1, 1),
    (with_bias, 1, 1),
    (depthwise, 1, 1),
    (separable, 1, 1),
    (grouped, 1, 1),
    (without_scale, 1, 1),
    (without_centre, 1, 1),
    (recorded_as_training, 1, 1),
    (inside, 2, 2),
    (residual, 1, 1),
    (read_twice, 1, 1),
    (padded, 1, 1),
    (cut_below, 1, 1),
    (convolution_called_twice, 1, 1),
    (norm_called_twice, 2, 2),
    (norm_of_the_image, 1, 0),
    (activated, 1, 0),
    (other_axis, 1, 0),
    (through_noise, 1, 0),
    (of_a_subclass, 1, 0),
    (of_low_rank, 1, 0),
    (in_float16, 1, 0),
]
