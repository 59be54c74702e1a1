"""Compare two forms of one model, relative to how images differ. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from bottleneck.schema import Accuracy, Bound, Comparison, Difference

#: Float32 forms agree to this share of the spread between images, unless their network rounds more: see `bound_of`.
TOLERANCE = 1e-4

#: No form is held to less than this, however its network rounds; and every broken twin must be further away.
WIDEST = 1e-3

#: Share of first choices that must stay as they are: for rows of reduced dtype and for forms that round on purpose.
GATE = 0.97

#: Two exact ways to compute a network differ less on few images than two others do on all of them.
FACTOR = 4.0

#: Every broken twin must be further away than this many times what is allowed.
MARGIN = 10.0

_HOW = "the forward pass of extraction, a graph at its batch, against Keras layer by layer, four images at a time"


class Outputs(NamedTuple):
    """What one form gives for n images; None for a missing stage."""

    features: np.ndarray | None
    logits: np.ndarray | None
    probabilities: np.ndarray
    energy: np.ndarray | None = None

    @classmethod
    def of(cls, named: Mapping[str, np.ndarray]) -> Outputs:
        """From arrays by name; ``probabilities`` must be there."""
        return cls(named.get("features"), named.get("logits"), named["probabilities"], named.get("energy"))

    @property
    def named(self) -> dict[str, np.ndarray]:
        """The stages that are not None, by name."""
        return {name: part for name, part in self._asdict().items() if part is not None}

    def first(self, count: int) -> Outputs:
        """For the first `count` images."""
        return Outputs.of({name: part[:count] for name, part in self.named.items()})


def spread(values: np.ndarray) -> float:
    """Return the root mean square of components' standard deviations between images."""
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    return float(np.sqrt(flat.var(axis=0).mean()))


def centred_cosine(reference: np.ndarray, other: np.ndarray) -> float:
    """Return the smallest cosine of a row with its counterpart.

    The reference's mean row is subtracted from both: raw cosines hide damage behind what all rows have in common.

    Examples
    --------
    >>> rows = np.array([[101.0, 100.0], [100.0, 101.0]])
    >>> round(centred_cosine(rows, rows), 6), round(centred_cosine(rows, rows[::-1]), 6)
    (1.0, -1.0)
    """
    if not (np.isfinite(reference).all() and np.isfinite(other).all()):
        return -1.0
    middle = np.asarray(reference, np.float64).mean(axis=0)
    first, second = ((np.asarray(x, np.float64) - middle).reshape(len(x), -1) for x in (reference, other))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = np.einsum("ij,ij->i", first, second)
    # A row that is the mean has no direction; it agrees where its counterpart has none either.
    equal = (first == second).all(axis=1)
    cosines = np.where(equal, 1.0, products / np.where(lengths > 0, lengths, np.inf))
    return float(np.clip(cosines.min(initial=1.0), -1.0, 1.0))


def compare(
    form: str,
    images: str,
    reference: Outputs,
    other: Outputs,
    tolerance: float = TOLERANCE,
    *,
    gate: float | None = None,
    truth: np.ndarray | None = None,
    scale: Outputs | None = None,
) -> Comparison:
    """Compare each quantity of two forms, relative to the reference's spread.

    Parameters
    ----------
    form, images : str
        What is compared and on what, for the certificate.
    reference, other : Outputs
        Arrays of equal shapes, images first.
    tolerance : float
        Largest difference, as a share of the spread, that passes.
    gate : float, optional
        Judge by this share of equal first choices instead, and, where both give a score, by its correlation too.
    truth : numpy.ndarray, optional
        (n,) the column of each image's own class, -1 for an image without one of the classes.
    scale : Outputs, optional
        The reference on more images: its spread is what differences are relative to, where `reference` is of few.

    Returns
    -------
    Comparison
        Values that are not finite never pass.

    Raises
    ------
    ValueError
        Arrays of other shapes than the reference's.

    Examples
    --------
    >>> a = Outputs(np.eye(3), np.eye(3), np.eye(3))
    >>> compare("same", "toy", a, a).passed, compare("other", "toy", a, a._replace(logits=np.ones((3, 3)))).passed
    (True, False)
    >>> compare("rounded", "toy", a, a._replace(features=a.features / 2), gate=0.97).passed
    True
    """
    differences = tuple(
        _difference(form, name, first, second, first if whole is None else whole)
        for name, first, second, whole in zip(
            Outputs._fields, reference, other, scale or reference, strict=True
        )
        if first is not None and second is not None
    )
    top1 = float((reference.probabilities.argmax(1) == other.probabilities.argmax(1)).mean())
    finite = all(item.largest < _BEYOND for item in differences)
    within = all(item.largest <= tolerance for item in differences)
    whole = reference.features is not None and other.features is not None
    kept = min(top1, _correlation(reference.energy, other.energy))
    return Comparison(
        form=form,
        images=images,
        count=len(reference.probabilities),
        differences=differences,
        top1=top1,
        cosine=centred_cosine(reference.features, other.features) if whole else None,  # type: ignore[arg-type]
        tolerance=tolerance if gate is None else None,
        gate=gate,
        accuracy=_accuracy(reference, other, truth),
        passed=within if gate is None else finite and kept >= gate,
    )


def bound_of(measured: float, images: int) -> Bound:
    """Derive what is allowed from the rounding that was measured.

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


def _correlation(first: np.ndarray | None, second: np.ndarray | None) -> float:
    """Correlate a score in two forms; 1 where one has none.

    A form that rounds may shift the score or stretch it.
    """
    if first is None or second is None:
        return 1.0
    a, b = (np.asarray(score, np.float64) - np.mean(score, dtype=np.float64) for score in (first, second))
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths > 0 else float((a == b).all())


def _difference(form: str, name: str, first: np.ndarray, second: np.ndarray, whole: np.ndarray) -> Difference:
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"{form}: {name} of shape {second.shape} against {first.shape}")
    scale = spread(whole)
    with np.errstate(invalid="ignore"):  # infinity minus infinity: caught in the next line
        gap = np.abs(first - second)
    largest, mean = (float(gap.max()), float(gap.mean())) if np.isfinite(gap).all() else (np.inf, np.inf)
    return Difference(
        quantity=name,  # type: ignore[arg-type]
        largest=_relative(largest, scale),
        mean=_relative(mean, scale),
        spread=scale,
    )


def _accuracy(reference: Outputs, other: Outputs, truth: np.ndarray | None) -> Accuracy | None:
    known = np.zeros(0, bool) if truth is None else truth >= 0
    if not known.any():
        return None
    head, form = (
        float((outputs.probabilities.argmax(1)[known] == truth[known]).mean())  # type: ignore[index]
        for outputs in (reference, other)
    )
    return Accuracy(images=int(known.sum()), form=form, head=head)


#: Stands for a difference that is not finite, or relative to no spread at all, in a file that holds no infinity.
_BEYOND = 1e300


def _relative(difference: float, scale: float) -> float:
    if difference == 0.0:
        return 0.0
    if scale == 0.0 or not np.isfinite(difference):
        return _BEYOND
    return min(difference / scale, _BEYOND)
