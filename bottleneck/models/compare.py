"""Two forms of one model on the same images: how far apart, relative to how far apart images are. Pure numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bottleneck.schema import Comparison, Difference

#: Float32 forms agree to this share of the spread between images; see the README for where it comes from.
TOLERANCE = 1e-4


class Outputs(NamedTuple):
    """What one form gives for n images."""

    features: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray


def spread(values: np.ndarray) -> float:
    """Root mean square, over all components, of their standard deviation between images (n, …)."""
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    return float(np.sqrt(flat.var(axis=0).mean()))


def compare(
    form: str, images: str, reference: Outputs, other: Outputs, tolerance: float = TOLERANCE
) -> Comparison:
    """`other` against `reference`: features, logits and probabilities, each relative to the reference's spread.

    Parameters
    ----------
    form, images : str
        What is compared and on what, for the certificate.
    reference, other : Outputs
        Arrays of equal shapes, images first.
    tolerance : float
        Largest difference, as a share of the spread, that passes.

    Returns
    -------
    Comparison
        Passed when no component of any quantity differs by more. Values that are not finite never pass.

    Examples
    --------
    >>> a = Outputs(np.eye(3), np.eye(3), np.eye(3))
    >>> compare("same", "toy", a, a).passed, compare("other", "toy", a, a._replace(logits=np.ones((3, 3)))).passed
    (True, False)
    """
    differences = []
    for name in Outputs._fields:
        first = np.asarray(getattr(reference, name), np.float64)
        second = np.asarray(getattr(other, name), np.float64)
        if first.shape != second.shape:
            raise ValueError(f"{form}: {name} of shape {second.shape} against {first.shape}")
        scale = spread(first)
        gap = np.abs(first - second)
        largest, mean = (float(gap.max()), float(gap.mean())) if np.isfinite(gap).all() else (np.inf, np.inf)
        differences.append(
            Difference(
                quantity=name,  # type: ignore[arg-type]
                largest=_relative(largest, scale),
                mean=_relative(mean, scale),
                spread=scale,
            )
        )
    top1 = float((reference.probabilities.argmax(1) == other.probabilities.argmax(1)).mean())
    return Comparison(
        form=form,
        images=images,
        count=len(reference.features),
        differences=tuple(differences),
        top1=top1,
        passed=all(item.largest <= tolerance for item in differences),
    )


#: Stands for a difference that is not finite, or relative to no spread at all, in a file that holds no infinity.
_BEYOND = 1e300


def _relative(difference: float, scale: float) -> float:
    if difference == 0.0:
        return 0.0
    if scale == 0.0 or not np.isfinite(difference):
        return _BEYOND
    return min(difference / scale, _BEYOND)
