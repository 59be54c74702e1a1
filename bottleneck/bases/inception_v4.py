"""Inception V4, which keras.applications lacks.

Szegedy et al., 2016, "Inception-v4, Inception-ResNet and the Impact of Residual Connections". Convolutions without
bias, BatchNormalization without scale, in the order in which the public Keras files
(``inception-v4_weights_tf_dim_ordering_tf_kernels*.h5``) hold them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache as once
from typing import Any

from bottleneck.errors import BaseError
from bottleneck.schema import BaseSpec, Cache, CutPoint

#: How many of each inception block.
_COUNTS = {"a": 4, "b": 7, "c": 3}


@once
def specs() -> Mapping[str, BaseSpec]:
    """The one base of this family; imports nothing heavy.

    Examples
    --------
    >>> specs()["inception_v4"].feature
    (1536,)
    """
    last = CutPoint("mixed_c3", "avg")
    spec = BaseSpec(
        name="inception_v4",
        builder="bottleneck.bases.inception_v4:network",
        size=299,
        preprocessing="tf",
        cut="avg_pool",
        cuts={
            "avg_pool": last,
            "penultimate": last,
            "map": CutPoint("mixed_c3"),
            "predictions": CutPoint("predictions", top=True),
        },
        blocks=r"mixed_(stem|[abc]\d|reduction_[ab])",
        parameters=41_174_400,
        feature=(1536,),
        weights="PATH, random:SEED",
        smallest=75,
    )
    return {spec.name: spec}


def build(spec: BaseSpec, *, top: bool, size: int) -> Any:
    """Build the network with initial weights at 75 pixels or more."""
    if size < spec.smallest:
        raise BaseError(f"--size {size}: {spec.name} takes {spec.smallest} or more")
    from bottleneck.bases.layer_names import fresh_names

    with fresh_names():
        return network(size, top=top)


def pretrained(spec: BaseSpec, *, top: bool, size: int, cache: Cache) -> Any:
    """Refuse: no reliable place has its weights."""
    raise BaseError(
        f"{spec.name}: its weights cannot be fetched from a package index; give a weight file by --weights PATH "
        "(or random:0 for a try)"
    )


def network(size: int, *, top: bool) -> Any:
    """Wire Inception V4 for images in -1..1; `top` adds 1,001 classes."""
    import keras
    from keras import layers

    image = keras.Input((size, size, 3), name="image")
    x = _stem(image)
    for number in range(1, _COUNTS["a"] + 1):
        x = _block_a(x, f"a{number}")
    x = _reduction_a(x)
    for number in range(1, _COUNTS["b"] + 1):
        x = _block_b(x, f"b{number}")
    x = _reduction_b(x)
    for number in range(1, _COUNTS["c"] + 1):
        x = _block_c(x, f"c{number}")
    if top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dropout(0.2, name="dropout")(x)
        x = layers.Dense(1001, activation="softmax", name="predictions")(x)
    return keras.Model(image, x, name="inception_v4")


def _conv(x: Any, filters: int, rows: int, columns: int, stride: int = 1, padding: str = "same") -> Any:
    from keras import layers

    x = layers.Conv2D(filters, (rows, columns), strides=stride, padding=padding, use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9997, scale=False)(x)
    return layers.Activation("relu")(x)


def _joined(name: str, *branches: Any) -> Any:
    from keras import layers

    return layers.Concatenate(name=f"mixed_{name}")(list(branches))


def _halved(x: Any) -> Any:
    from keras import layers

    return layers.MaxPooling2D(3, 2)(x)


def _averaged(x: Any, filters: int) -> Any:
    from keras import layers

    return _conv(layers.AveragePooling2D(3, 1, padding="same")(x), filters, 1, 1)


def _stem(x: Any) -> Any:
    from keras import layers

    x = _conv(x, 32, 3, 3, 2, "valid")
    x = _conv(x, 32, 3, 3, 1, "valid")
    x = _conv(x, 64, 3, 3)
    x = layers.Concatenate(name="stem_1")([_halved(x), _conv(x, 96, 3, 3, 2, "valid")])
    short = _conv(_conv(x, 64, 1, 1), 96, 3, 3, 1, "valid")
    long = _conv(_conv(_conv(x, 64, 1, 1), 64, 1, 7), 64, 7, 1)
    x = layers.Concatenate(name="stem_2")([short, _conv(long, 96, 3, 3, 1, "valid")])
    return _joined("stem", _conv(x, 192, 3, 3, 2, "valid"), _halved(x))


def _block_a(x: Any, name: str) -> Any:
    first = _conv(x, 96, 1, 1)
    second = _conv(_conv(x, 64, 1, 1), 96, 3, 3)
    third = _conv(_conv(_conv(x, 64, 1, 1), 96, 3, 3), 96, 3, 3)
    return _joined(name, first, second, third, _averaged(x, 96))


def _reduction_a(x: Any) -> Any:
    first = _conv(x, 384, 3, 3, 2, "valid")
    second = _conv(_conv(_conv(x, 192, 1, 1), 224, 3, 3), 256, 3, 3, 2, "valid")
    return _joined("reduction_a", first, second, _halved(x))


def _block_b(x: Any, name: str) -> Any:
    first = _conv(x, 384, 1, 1)
    second = _conv(_conv(_conv(x, 192, 1, 1), 224, 1, 7), 256, 7, 1)
    third = _conv(_conv(_conv(x, 192, 1, 1), 192, 7, 1), 224, 1, 7)
    third = _conv(_conv(third, 224, 7, 1), 256, 1, 7)
    return _joined(name, first, second, third, _averaged(x, 128))


def _reduction_b(x: Any) -> Any:
    first = _conv(_conv(x, 192, 1, 1), 192, 3, 3, 2, "valid")
    second = _conv(_conv(_conv(x, 256, 1, 1), 256, 1, 7), 320, 7, 1)
    return _joined("reduction_b", first, _conv(second, 320, 3, 3, 2, "valid"), _halved(x))


def _block_c(x: Any, name: str) -> Any:
    first = _conv(x, 256, 1, 1)
    second = _conv(x, 384, 1, 1)
    second = (_conv(second, 256, 1, 3), _conv(second, 256, 3, 1))
    third = _conv(_conv(_conv(x, 384, 1, 1), 448, 3, 1), 512, 1, 3)
    third = (_conv(third, 256, 1, 3), _conv(third, 256, 3, 1))
    return _joined(name, first, *second, *third, _averaged(x, 256))
