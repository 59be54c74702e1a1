"""What every form of a model is held against: the run's cached head, on probes and on the user's own images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottleneck import runs
from bottleneck.bases.load import LoadedBase, load_base
from bottleneck.contracts import Head
from bottleneck.errors import ParityError
from bottleneck.forward.keras_forward import KerasForward, batch_for, prepare_process
from bottleneck.models import certificate as parity
from bottleneck.models.bound import measure_bound
from bottleneck.models.calling import call_every_way
from bottleneck.models.comparison import Outputs, compare
from bottleneck.models.energy import energy
from bottleneck.models.sample_images import ComparisonImages, probe_images, run_images
from bottleneck.models.twins import twins
from bottleneck.schema import Bound, Cache, Certificate, Comparison, Run, Stillness
from bottleneck.store.read import Store, open_store

PROBES, OWN = "probes", "own images"


@dataclass(frozen=True, eq=False)
class Reference:
    """The cached head, ready to be compared with.

    Attributes
    ----------
    folder : RunFolder
    base : LoadedBase
        The run's base, as it was.
    forward : KerasForward
        Its forward pass, in float32.
    head : Head
    store : Store
    images : mapping of str to ComparisonImages
        ``probes``, and ``own images`` where any of the run's are there.
    outputs : mapping of str to Outputs
        What the cached head gives for them.
    drift : tuple of Comparison
        For a store of reduced precision or dtype: its rows against float32 ones.
    bound : Bound
        What forms are held to, by the rounding of this base.
    """

    folder: runs.RunFolder
    base: LoadedBase
    forward: KerasForward
    head: Head
    store: Store
    images: Mapping[str, ComparisonImages]
    outputs: Mapping[str, Outputs]
    drift: tuple[Comparison, ...]
    bound: Bound

    @property
    def run(self) -> Run:
        """What the run was made of."""
        return self.folder.run

    @property
    def pixels(self) -> np.ndarray:
        """All images in one array, as `split` takes them apart again."""
        return np.concatenate([found.pixels for found in self.images.values()])

    @property
    def files(self) -> list[bytes]:
        """The files of all images that are held as such."""
        return [data for found in self.images.values() for data in found.files]

    def of_model(self, model: Any) -> dict[str, Outputs]:
        """What a Keras model in this process gives, by images."""
        return {
            name: parity.model_outputs(model, found.pixels, self.forward.batch)
            for name, found in self.images.items()
        }

    def split(self, named: Mapping[str, np.ndarray], *, files: bool = False) -> dict[str, Outputs]:
        """Arrays over `pixels`, or over `files`, by images."""
        counts = [len(found.files) if files else len(found) for found in self.images.values()]
        parts = {stage: np.split(array, np.cumsum(counts)[:-1]) for stage, array in named.items()}
        return {
            name: Outputs.of({stage: part[i] for stage, part in parts.items()})
            for i, name in enumerate(self.images)
            if counts[i]
        }

    def compare(self, form: str, found: Mapping[str, Outputs], *, tolerance: float = 0.0) -> list[Comparison]:
        """A form that is held to the bound, or to a wider `tolerance`, on each set of images.

        It may answer for the first of a set alone.
        """
        return [
            compare(
                form,
                name,
                whole.first(len(outputs.probabilities)),
                outputs,
                max(tolerance, self.bound.value),
                truth=self.images[name].truth[: len(outputs.probabilities)],
                scale=whole,
            )
            for name, outputs in found.items()
            for whole in [_like(self.outputs[name], outputs)]
        ]

    def compare_calls(self, form: str, model: Any) -> tuple[list[Comparison], Stillness]:
        """A Keras model in this process in every way that a user calls it."""
        pixels = {name: found.pixels for name, found in self.images.items()}
        called, still = call_every_way(model, form, pixels)
        compared = [one for c in called for one in self.compare(f"{form}, {c.way}", {c.images: c.outputs})]
        return compared, still

    def judge(self, form: str, found: Mapping[str, Outputs], *, gate: float) -> list[Comparison]:
        """A form that rounds on purpose: by its first choices on the user's own images."""
        return [
            compare(
                form,
                name,
                _like(self.outputs[name], outputs).first(len(outputs.probabilities)),
                outputs,
                gate=gate,
                truth=self.images[name].truth,
            )
            for name, outputs in found.items()
        ]

    def twins(self) -> list[Comparison]:
        """The broken twins that apply to the base, on the probes."""
        probes = self.images[PROBES].pixels
        made = twins(self.base, self.head, probes, self.forward.batch)
        right = self.outputs[PROBES]
        return [parity.judge_twin(name, right, outputs, self.bound) for name, outputs in made.items()]

    def certify(
        self, forms: list[Comparison], twins: list[Comparison], still: Sequence[Stillness] = ()
    ) -> Certificate:
        """The verdict on these forms."""
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
        """Let only ``certified`` pass; raises as `require_certified`, with what is known of the base."""
        try:
            parity.require_certified(certificate)
        except ParityError as error:
            reduced = _reduced(self.base.model)
            # Neither coarse rows nor a base that wakes up comes of it.
            told_else = any(not row.passed for row in certificate.drift) or any(
                not one.passed for one in certificate.still
            )
            if certificate.verdict != "different" or told_else or not reduced:
                raise
            raise ParityError(
                f"{error}. Layers of the base compute in reduced precision ({reduced}), so its features depend on how "
                "it is called, whole in a graph or layer by layer: build it with the dtype policy float32 (weights "
                "stay as they are) and train again"
            ) from error


def load_reference(folder: runs.RunFolder, cache: Cache, most: int) -> Reference:
    """Load the run's head and its base, and ask the head about the probes and up to `most` of the run's images.

    Raises
    ------
    HeadError
        The head was made on another recipe, shape or class list than the run's.
    BaseError
        The base is not the one that the run's features came from.
    UsageError
        The run's source cannot be opened.
    """
    run = folder.run
    head = folder.head()
    prepare_process()
    base = load_base(run.request, cache)
    runs.check_base(run, base.spec)
    # The merged model computes in float32, so that is what it is held to.
    forward = KerasForward([base], batch_for(run.request, cache), "float32")
    store = open_store(cache, forward.spec)
    pixels = run.spec.recipe.pixels
    images = {PROBES: probe_images(pixels.height, pixels.width)}
    mine = run_images(folder, forward, store, cache, most)
    rows = None
    if len(mine):
        images[OWN] = mine
        rows = store.gather(store.find(mine.contents)).astype(np.float32, copy=False)
    exact = run.spec.recipe.dtype == run.spec.recipe.precision == "float32"
    outputs = {
        name: parity.head_outputs(forward, head, found.pixels, rows if exact and name == OWN else None)
        for name, found in images.items()
    }
    drift = (
        ()
        if exact or rows is None
        else (parity.judge_rows(OWN, outputs[OWN], parity.head_outputs(forward, head, mine.pixels, rows)),)
    )
    bound = measure_bound(base, head, {name: found.pixels for name, found in images.items()}, outputs)
    return Reference(folder, base, forward, head, store, images, outputs, drift, bound)


def _reduced(model: Any) -> str:
    """Layers of `model` that compute in fewer bits than float32, with their policies, shortened; empty without any."""
    layers = model._flatten_layers(include_self=False, recursive=True)
    found = [
        f"{one.name}: {one.dtype_policy.name}"
        for one in layers
        if one.compute_dtype in ("bfloat16", "float16")
    ]
    return ", ".join([*found[:2], "…"] if len(found) > 2 else found)


def _like(reference: Outputs, form: Outputs) -> Outputs:
    """`reference` with the score, where `form` gives one."""
    named = reference.named
    if form.energy is not None:
        named["energy"] = energy(named["logits"])
    return Outputs.of(named)
