"""The parity certificate: comparisons with the cached head, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from bottleneck.schema.run import Score
from bottleneck.schema.values import Frozen

Quantity = Literal["features", "logits", "probabilities", "energy"]


class Difference(Frozen):
    """A form's distance from the reference, relative to the spread between images."""

    quantity: Quantity
    largest: float
    mean: float
    spread: float


class Accuracy(Frozen):
    """Shares of images that a form and the head get right."""

    images: int = Field(ge=1)
    form: float = Field(ge=0.0, le=1.0)
    head: float = Field(ge=0.0, le=1.0)


class Comparison(Frozen):
    """One form (or broken twin) against the cached head on some images.

    Attributes
    ----------
    form, images : str
        What is compared and on what.
    count : int
        Images.
    differences : tuple of Difference
        In the quantities that the form gives.
    top1 : float
        Share of the images for which both name the same class first.
    cosine : float or None
        Smallest cosine between an image's features in both, the mean features taken out; None without features.
    tolerance : float or None
        Largest difference, as a share of the spread, that passes; None where the form rounds on purpose.
    gate : float or None
        Least `top1`, and least `cosine` or correlation of a score where these are judged; None where differences are.
    accuracy : Accuracy or None
        On the images that have labels.
    passed : bool
        Whether the requirement is met. A twin passes where its break does not show.
    """

    form: str
    images: str
    count: int
    differences: tuple[Difference, ...]
    top1: float = Field(ge=0.0, le=1.0)
    cosine: float | None = Field(default=None, ge=-1.0, le=1.0)
    tolerance: float | None = None
    gate: float | None = None
    accuracy: Accuracy | None = None
    passed: bool

    @property
    def largest(self) -> float:
        """Give the largest difference of any quantity."""
        return max(item.largest for item in self.differences)


class Bound(Frozen):
    """How far apart forms may be, from the network's own rounding.

    Attributes
    ----------
    value : float
        What is allowed, as a share of the spread: `factor` times `measured`, at least `floor`, at most `ceiling`.
    measured : float
        Largest difference between two exact ways to compute the same images in float32.
    how : str
        Which two ways.
    images : int
        How many images it was measured on.
    factor, floor, ceiling : float
    margin : float
        Every broken twin must be further away than this many times `value`.
    """

    value: float
    measured: float
    how: str
    images: int = Field(ge=1)
    factor: float
    floor: float
    ceiling: float
    margin: float


class Stillness(Frozen):
    """Whether the base's variables stayed the same through calls and training.

    Attributes
    ----------
    form : str
    variables : int
        Weights, moving statistics, states of random generators: all that the base holds.
    trainable : tuple of str
        Variables that an outer `fit` would train.
    moved : tuple of str
        Variables that changed.
    passed : bool
        Whether nothing is trainable and nothing moved.
    """

    form: str
    variables: int = Field(ge=0)
    trainable: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    passed: bool


class Certificate(Frozen):
    """The verdict on a model: `certified`, `different` or `no power`.

    Forms with a tolerance decide it, with the twins and the drift. Those that round on purpose are judged one by one at
    a gate, and a form below its gate is refused without touching the others.

    `drift` is there for stores of reduced dtype: the head on the stored rows, against the reference, which is then
    the head on float32 features; it passes by top-1 agreement and centred cosine. `files` are sha256 of the files that
    it was made for, by name: beside any other file of that name it proves nothing.

    Since format 4: `bound` says where the tolerance comes from, and `still` whether the base's variables stayed still;
    the forms of a `.keras` file are those of every way to call it.
    """

    format: Literal[1, 2, 3, 4] = 4
    verdict: Literal["certified", "different", "no power"]
    tolerance: float
    recipe: str
    head: str
    forms: tuple[Comparison, ...]
    twins: tuple[Comparison, ...]
    drift: tuple[Comparison, ...] = ()
    files: Mapping[str, str] = Field(default_factory=dict)
    bound: Bound | None = None
    still: tuple[Stillness, ...] = ()

    @property
    def compared(self) -> str:
        """Count the images of each set, for a person."""
        counts: dict[str, int] = {}
        for form in self.forms:  # some ways to call a model are tried on a few images alone
            counts[form.images] = max(counts.get(form.images, 0), form.count)
        return ", ".join(f"{count} {name}" for name, count in counts.items())

    @property
    def refused(self) -> tuple[Comparison, ...]:
        """List the forms that round and miss their gate."""
        return tuple(c for c in self.forms if c.gate is not None and not c.passed)


class ScoreFacts(Frozen):
    """A score beside the probabilities, and the scale for it.

    Attributes
    ----------
    name : {"energy"}
        Name of the output.
    images : int
        Images of the run that it was measured on.
    unseen : bool
        Whether the head did not learn from them.
    quantiles : mapping of str to float
        Per cent of these images, and the value that this share does not exceed.
    """

    name: Score
    images: int
    unseen: bool
    quantiles: Mapping[str, float]
