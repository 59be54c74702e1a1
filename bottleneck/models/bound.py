"""How far apart two forms of one network may be: as far as its own rounding, measured, between a floor and a ceiling.

A constant bound meets networks of every depth: what a shallow one never reaches, a right one of 150 layers exceeds.
So the same images are computed in two exact ways, and what lies between these is what float32 leaves open.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bottleneck.bases.load import LoadedBase
from bottleneck.contracts import Head
from bottleneck.models.comparison import TOLERANCE, WIDEST, Outputs, compare
from bottleneck.schema import Bound

#: Images of each set that are computed in both ways, and how many at a time in the second one.
FEW, _AT_ONCE = 8, 4

#: Two ways differ less on few images than another two do on all of them.
FACTOR = 4.0

#: Every broken twin must be further away than this many times what is allowed.
MARGIN = 10.0

_HOW = "the forward pass of extraction, a graph at its batch, against Keras layer by layer, four images at a time"


def bound_of(measured: float, images: int) -> Bound:
    """What is allowed where rounding was measured. Pure.

    Examples
    --------
    >>> [bound_of(measured, 8).value for measured in (0.0, 1e-4, 1.0)]
    [0.0001, 0.0004, 0.001]
    """
    value = min(max(FACTOR * measured, TOLERANCE), WIDEST)
    return Bound(
        value=value, measured=measured, how=_HOW, images=images,
        factor=FACTOR, floor=TOLERANCE, ceiling=WIDEST, margin=MARGIN,
    )  # fmt: skip


def measure_bound(
    base: LoadedBase, head: Head, pixels: Mapping[str, np.ndarray], outputs: Mapping[str, Outputs]
) -> Bound:
    """Compute a few images of each set once more, in the other exact way.

    Parameters
    ----------
    base : LoadedBase
    head : Head
    pixels : mapping of str to numpy.ndarray
        (n, height, width, 3) float32 in 0..255, by set.
    outputs : mapping of str to Outputs
        What the forward pass of extraction and the head gave for them.

    Returns
    -------
    Bound
    """
    largest, images = 0.0, 0
    for name, pictures in pixels.items():
        few = pictures[:FEW]
        rows = np.concatenate(
            [
                np.asarray(base.features_model(few[i : i + _AT_ONCE], training=False), np.float32)
                for i in range(0, len(few), _AT_ONCE)
            ]
        )
        other = Outputs(rows, head.logits(rows), head.predict_proba(rows))
        known = outputs[name].first(len(few))
        # The spread is that of all images, which the forms are held to.
        largest = max(largest, compare("rounding", name, known, other, scale=outputs[name]).largest)
        images += len(few)
    return bound_of(largest, images)
