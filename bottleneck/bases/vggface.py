"""VGG-16 trained on faces (Parkhi et al., 2015, "Deep Face Recognition").

No package index holds its weights, so they come from a file: the public ``rcmalli_vggface_tf_vgg16.h5`` and
``…_notop_…`` have these layers and names in this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache as once
from typing import Any

from bottleneck.errors import BaseError
from bottleneck.schema import BaseSpec, Cache, CutPoint

#: Filters and layers of each block.
_BLOCKS = {1: (64, 2), 2: (128, 2), 3: (256, 3), 4: (512, 3), 5: (512, 3)}

#: People in the training set, hence units of fc8.
_PEOPLE = 2622


@once
def specs() -> Mapping[str, BaseSpec]:
    """The one base of this family; imports nothing heavy.

    Examples
    --------
    >>> specs()["vggface_vgg16"].feature
    (7, 7, 512)
    """
    spec = BaseSpec(
        name="vggface_vgg16",
        builder="bottleneck.bases.vggface:network",
        size=224,
        preprocessing="vggface1",
        cut="pool5",
        cuts={
            **{f"pool{block}": CutPoint(f"pool{block}") for block in _BLOCKS},
            "avg_pool": CutPoint("pool5", "avg"),
            "fc6": CutPoint("fc6_relu", top=True),
            "fc7": CutPoint("fc7_relu", top=True),
            "penultimate": CutPoint("fc7_relu", top=True),
            "predictions": CutPoint("fc8_softmax", top=True),
        },
        blocks=r"(conv\d)_\d",
        parameters=14_714_688,
        feature=(7, 7, 512),
        weights="PATH, random:SEED",
        smallest=32,
    )
    return {spec.name: spec}


def build(spec: BaseSpec, *, top: bool, size: int) -> Any:
    """Build the network with initial weights; its classifier needs size 224."""
    if size < spec.smallest or (top and size != spec.size):
        allowed = f"{spec.size} with its top" if top else f"{spec.smallest} or more"
        raise BaseError(f"--size {size}: {spec.name} takes {allowed}")
    from bottleneck.bases.layer_names import fresh_names

    with fresh_names():
        return network(size, top=top)


def network(size: int, *, top: bool) -> Any:
    """Wire VGG-16 for BGR images minus the means of its faces."""
    import keras
    from keras import layers

    image = keras.Input((size, size, 3), name="image")
    x = image
    for block, (filters, count) in _BLOCKS.items():
        for number in range(1, count + 1):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{block}_{number}")(x)
        x = layers.MaxPooling2D(2, 2, name=f"pool{block}")(x)
    if top:
        x = layers.Flatten(name="flatten")(x)
        for name in ("fc6", "fc7"):
            x = layers.Dense(4096, name=name)(x)
            x = layers.Activation("relu", name=f"{name}_relu")(x)
        x = layers.Dense(_PEOPLE, name="fc8")(x)
        x = layers.Activation("softmax", name="fc8_softmax")(x)
    return keras.Model(image, x, name="vggface_vgg16")


def pretrained(spec: BaseSpec, *, top: bool, size: int, cache: Cache) -> Any:
    """Refuse: no reliable place has its weights."""
    raise BaseError(
        f"{spec.name}: its weights cannot be fetched from a package index; give the public file "
        f"rcmalli_vggface_tf{'' if top else '_notop'}_vgg16.h5 by --weights PATH (or random:0 for a try)"
    )
