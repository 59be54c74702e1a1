"""Make a head from its name and settings; advise on its size."""

from __future__ import annotations

import math
from typing import Any

from bottleneck import catalog
from bottleneck.errors import UsageError
from bottleneck.heads.settings import parse_settings
from bottleneck.schema import HeadSpec

#: Trainable parameters a training image beyond which `capacity_advice` speaks. A Dense(50) on a flattened 7 x 7 x 512
#: map of 1,120 images has 1,121 and trains; fc7 + BN + fc8 on the same images has 15,060 and does not.
TOO_MANY = 2000


def make(spec: HeadSpec) -> Any:
    """The unfitted head that `spec` names.

    Parameters
    ----------
    spec : HeadSpec
        Values may be typed, or text as ``--set key=value`` gives it.

    Raises
    ------
    UnknownName
        A head or a setting that does not exist; lists the known and the nearest.
    UsageError
        A value of the wrong type or out of bounds.

    Examples
    --------
    >>> make(HeadSpec(name="logistic", settings={"C": "0.1", "standardize": "false"}))
    LogisticHead(C=0.1, standardize=False)
    """
    head = catalog.load("head", catalog.HEADS, spec.name)
    return head(**parse_settings(spec.name, head, spec.settings))


def count_parameters(spec: HeadSpec, feature_shape: tuple[int, ...], classes: int) -> tuple[int, int]:
    """Count all and trainable parameters of the head's layers.

    Returns
    -------
    total, trainable : int
        They differ by the moving statistics of batch normalisation.

    Examples
    --------
    >>> spec = HeadSpec(name="dense", settings={"hidden": (4096,), "batch_norm": True})
    >>> count_parameters(spec, (4096,), 19)
    (16875539, 16867347)
    """
    layout = make(spec).layout(feature_shape, classes)
    sizes = {name: math.prod(shape) for name, shape in layout.items()}
    return sum(sizes.values()), sum(size for name, size in sizes.items() if ".moving_" not in name)


def capacity_advice(trainable: int, samples: int) -> str | None:
    """Advise against too many parameters for as many images.

    Parameters
    ----------
    trainable : int
        Trainable parameters.
    samples : int
        Training images.

    Raises
    ------
    UsageError
        No training images.

    Examples
    --------
    >>> print(capacity_advice(16_867_347, 1_120))  # doctest: +ELLIPSIS
    16,867,347 trainable parameters for 1,120 training images are 15,060 an image: ...
    >>> capacity_advice(9_747, 1_120) is None
    True
    """
    if samples < 1:
        raise UsageError(f"a head needs training images, got {samples}")
    each = trainable / samples
    if each <= TOO_MANY:
        return None
    return (
        f"{trainable:,} trainable parameters for {samples:,} training images are {each:,.0f} an image: this cannot "
        "learn more than these images by heart. Use a smaller cut (the last convolutional block, averaged: --pooling "
        "avg), a small hidden layer (--set hidden=50) or the logistic head; or more images"
    )
