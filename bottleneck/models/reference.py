"""Compare every form of a model with the run's cached head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottleneck.bases.load import LoadedBase
from bottleneck.contracts import Head
from bottleneck.errors import ParityError
from bottleneck.models import certificate as parity
from bottleneck.models.calling import call_every_way
from bottleneck.models.comparison import Outputs, bound_of, compare
from bottleneck.models.energy import energy
from bottleneck.models.merge import RunModel
from bottleneck.models.sample_images import OWN, PROBES, ComparisonImages, choose_images
from bottleneck.models.twins import twins
from bottleneck.schema import Bound, Cache, Certificate, Comparison, Run, Stillness

#: Images of each set that measure the rounding, and how many at a time in the second way to compute them.
_FEW, _AT_ONCE = 8, 4


@dataclass(frozen=True, eq=False)
class Reference:
    """The answers of the cached head, ready for comparison.

    Attributes
    ----------
    model : RunModel
    images : mapping of str to ComparisonImages
        ``probes``, and ``own images`` where any of the run's images can still be read.
    outputs : mapping of str to Outputs
        What the cached head gives for them.
    drift : tuple of Comparison
        For a store of reduced precision or dtype: its rows against float32 ones.
    bound : Bound
        The tolerance for forms, from the rounding of this base.
    """

    model: RunModel
    images: Mapping[str, ComparisonImages]
    outputs: Mapping[str, Outputs]
    drift: tuple[Comparison, ...]
    bound: Bound

    @property
    def run(self) -> Run:
        """The document of the run."""
        return self.model.folder.run

    @property
    def pixels(self) -> np.ndarray:
        """All images in one array, as `split` divides them again."""
        return np.concatenate([part.pixels for part in self.images.values()])

    @property
    def files(self) -> list[bytes]:
        """All image files that were kept."""
        return [data for part in self.images.values() for data in part.files]

    def of_model(self, model: Any) -> dict[str, Outputs]:
        """Ask a Keras model in this process about each set of images."""
        return {
            name: parity.model_outputs(model, part.pixels, self.model.forward.batch)
            for name, part in self.images.items()
        }

    def split(self, named: Mapping[str, np.ndarray], *, files: bool = False) -> dict[str, Outputs]:
        """Divide arrays over `pixels`, or over `files`, by set of images."""
        counts = [len(part.files) if files else len(part) for part in self.images.values()]
        parts = {stage: np.split(array, np.cumsum(counts)[:-1]) for stage, array in named.items()}
        return {
            name: Outputs.of({stage: part[i] for stage, part in parts.items()})
            for i, name in enumerate(self.images)
            if counts[i]
        }

    def compare(
        self, form: str, answers: Mapping[str, Outputs], *, tolerance: float = 0.0, gate: float | None = None
    ) -> list[Comparison]:
        """Hold a form to the bound or a wider `tolerance`.

        A form that rounds on purpose is held to `gate` instead: its share of equal first choices. A form may answer for
        only the first images of a set.
        """
        return [
            compare(
                form,
                name,
                whole.first(len(outputs.probabilities)),
                outputs,
                max(tolerance, self.bound.value),
                gate=gate,
                truth=self.images[name].truth[: len(outputs.probabilities)],
                scale=whole,
            )
            for name, outputs in answers.items()
            for whole in [_with_score(self.outputs[name], outputs)]
        ]

    def compare_calls(self, form: str, model: Any) -> tuple[list[Comparison], Stillness]:
        """Compare a Keras model in every way that a user calls it."""
        pixels = {name: part.pixels for name, part in self.images.items()}
        called, still = call_every_way(model, form, pixels)
        compared = [one for c in called for one in self.compare(f"{form}, {c.way}", {c.images: c.outputs})]
        return compared, still

    def twins(self) -> list[Comparison]:
        """Compare the broken twins of the base on the probes."""
        model, right = self.model, self.outputs[PROBES]
        broken = twins(model.base, model.head, self.images[PROBES].pixels, model.forward.batch)
        return [parity.judge_twin(name, right, outputs, self.bound) for name, outputs in broken.items()]

    def certify(
        self, forms: list[Comparison], twins: list[Comparison], still: Sequence[Stillness] = ()
    ) -> Certificate:
        """Give the verdict on these forms."""
        head = self.run.head
        return parity.certify(
            forms,
            twins,
            self.drift,
            recipe=self.run.spec.recipe.fingerprint,
            head=f"{head.name} {dict(head.settings)}",
            bound=self.bound,
            still=still,
        )

    def require(self, certificate: Certificate) -> None:
        """Raise as `require_certified`, with what is known of the base."""
        try:
            parity.require_certified(certificate)
        except ParityError as error:
            reduced = _reduced(self.model.base.model)
            # Reduced precision explains neither coarse rows nor a base that wakes up.
            other_cause = not all(item.passed for item in certificate.drift) or not all(
                one.passed for one in certificate.still
            )
            if certificate.verdict != "different" or other_cause or not reduced:
                raise
            raise ParityError(
                f"{error}. Layers of the base compute in reduced precision ({reduced}), so its features depend on how "
                "it is called, whole in a graph or layer by layer: build it with the dtype policy float32 (weights "
                "stay as they are) and train again"
            ) from error


def make_reference(model: RunModel, cache: Cache, most: int) -> Reference:
    """Ask a run's cached head about comparison images.

    These are the probes and up to `most` of the run's own images.

    Raises
    ------
    UsageError
        The run's source cannot be opened.
    """
    images = choose_images(model, cache, most)
    forward, head, recipe = model.forward, model.head, model.folder.run.spec.recipe
    exact = recipe.dtype == recipe.precision == "float32"
    outputs, drift = {}, list[Comparison]()
    for name, part in images.items():
        rows = None
        if name == OWN:
            rows = model.store.gather(model.store.find(part.contents)).astype(np.float32, copy=False)
        outputs[name] = parity.head_outputs(forward, head, part.pixels, rows if exact else None)
        if rows is not None and not exact:
            stored = parity.head_outputs(forward, head, part.pixels, rows)
            drift.append(parity.judge_rows(name, outputs[name], stored))
    pixels = {name: part.pixels for name, part in images.items()}
    return Reference(model, images, outputs, tuple(drift), measure_bound(model.base, head, pixels, outputs))


def measure_bound(
    base: LoadedBase, head: Head, pixels: Mapping[str, np.ndarray], outputs: Mapping[str, Outputs]
) -> Bound:
    """Compute a few images of each set in another exact way.

    A constant bound would meet networks of every depth: a shallow one never reaches it, and a right one of 150 layers
    exceeds it. What lies between two exact ways is what float32 leaves open.

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
        few = pictures[:_FEW]
        rows = np.concatenate(
            [
                np.asarray(base.features_model(few[i : i + _AT_ONCE], training=False), np.float32)
                for i in range(0, len(few), _AT_ONCE)
            ]
        )
        other = Outputs(rows, head.logits(rows), head.predict_proba(rows))
        known = outputs[name].first(len(few))
        # The spread is that of all images, as it is for the forms.
        largest = max(largest, compare("rounding", name, known, other, scale=outputs[name]).largest)
        images += len(few)
    return bound_of(largest, images)


def _reduced(model: Any) -> str:
    """Name the first layers that compute in less than float32."""
    layers = model._flatten_layers(include_self=False, recursive=True)
    names = [
        f"{one.name}: {one.dtype_policy.name}"
        for one in layers
        if one.compute_dtype in ("bfloat16", "float16")
    ]
    return ", ".join([*names[:2], "…"] if len(names) > 2 else names)


def _with_score(reference: Outputs, form: Outputs) -> Outputs:
    """Add the score to `reference` where `form` gives one."""
    named = reference.named
    if form.energy is not None:
        named["energy"] = energy(named["logits"])
    return Outputs.of(named)
