"""Certify that a merged model is the head that was trained.

Every form is compared with the cached head on the user's images and on probe images, in every way that a user calls
it. Broken twins (`twins`) run through the same comparison and must fail it: a comparison that lets one of them through
has no power, and certifies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bottleneck.contracts import Forward, Head
from bottleneck.errors import ParityError
from bottleneck.models.comparison import GATE, TOLERANCE, Outputs, compare
from bottleneck.models.outputs import stages_model
from bottleneck.models.twins import in_batches
from bottleneck.schema import Bound, Certificate, Comparison, Stillness


def head_outputs(forward: Forward, head: Head, pixels: np.ndarray, rows: np.ndarray | None = None) -> Outputs:
    """Ask the head about features, stored or computed now.

    Parameters
    ----------
    forward : Forward
    head : Head
    pixels : numpy.ndarray
        (n, height, width, 3) float32 in 0..255.
    rows : numpy.ndarray, optional
        (n, *shape) float32 stored rows of these images.
    """
    if rows is None:
        rows = np.concatenate(list(in_batches(forward.features, pixels, forward.batch)))
    return Outputs(rows, head.logits(rows), head.predict_proba(rows))


def model_outputs(model: Any, pixels: np.ndarray, batch: int) -> Outputs:
    """Compute every stage of a merged model."""
    return Outputs.of(stages_model(model).predict(pixels, batch_size=batch, verbose=0))


def judge_twin(name: str, reference: Outputs, outputs: Outputs, bound: Bound) -> Comparison:
    """Judge a broken twin; it "passes" where its break hardly shows. Pure."""
    least = bound.margin * bound.value
    twin = compare(name, "probes", reference, outputs, least)
    return twin.model_copy(update={"passed": not _shows(twin, least)})


def judge_rows(images: str, reference: Outputs, outputs: Outputs, gate: float = GATE) -> Comparison:
    """Compare the head on stored rows of reduced dtype with float32. Pure."""
    rows = compare("stored rows", images, reference, outputs, gate=gate)
    close = rows.cosine is not None and rows.cosine >= gate
    return rows.model_copy(update={"passed": rows.passed and close})


def certify(
    forms: Sequence[Comparison],
    twins: Sequence[Comparison],
    drift: Sequence[Comparison] = (),
    *,
    recipe: str,
    head: str,
    bound: Bound,
    still: Sequence[Stillness] = (),
) -> Certificate:
    """Give the verdict on what was compared. Pure.

    Parameters
    ----------
    forms : sequence of Comparison
        From `compare`. Those with a tolerance decide; those with a gate are reported, and refused one by one.
    twins : sequence of Comparison
        From `judge_twin`.
    drift : sequence of Comparison
        From `judge_rows`, for a store of reduced dtype.
    recipe, head : str
        Fingerprint, and the head's name with settings, for the file.
    bound : Bound
        Where the tolerance comes from.
    still : sequence of Stillness
        What became of the base's variables.

    Returns
    -------
    Certificate
        ``certified`` when there are forms with a tolerance and every one passes, every twin fails, nothing of the base
        moved or trains, and stored rows of reduced dtype keep to the gate.
    """
    deciding = [form for form in forms if form.tolerance is not None]
    powerless = not twins or any(twin.passed for twin in twins)
    equal = bool(deciding) and all(item.passed for item in (*deciding, *drift))
    quiet = all(item.passed for item in still)
    return Certificate(
        verdict="no power" if powerless else "certified" if equal and quiet else "different",
        tolerance=max((form.tolerance or 0.0 for form in deciding), default=TOLERANCE),
        recipe=recipe,
        head=head,
        forms=tuple(forms),
        twins=tuple(twins),
        drift=tuple(drift),
        bound=bound,
        still=tuple(still),
    )


def _shows(twin: Comparison, least: float) -> bool:
    """Whether the break shows in both features and logits."""
    return all(item.largest > least for item in twin.differences if item.quantity != "probabilities")


def require_certified(certificate: Certificate) -> None:
    """Let only `certified` pass.

    Raises
    ------
    ParityError
        Names the form or twin, the images, the quantity and the figure.
    """
    if certificate.verdict == "certified":
        return
    if certificate.verdict == "no power":
        weak = [t.form for t in certificate.twins if t.passed]
        raise ParityError(
            "no power: the comparison does not notice "
            + (", ".join(weak) or "anything, since no twin applies")
            + "; a model that passes it is not proved to be the one that was trained, so nothing was written"
        )
    for item in certificate.drift:
        if not item.passed:
            raise ParityError(
                f"the stored rows are too coarse: on {item.images} only {item.top1:.3f} of the first choices are those "
                f"of float32 features, and the centred cosine falls to {item.cosine:.3f} ({item.gate:g} of both is "
                "needed). Extract with --dtype float32 and train again"
            )
    for awake in certificate.still:
        if not awake.passed:
            names = [*awake.trainable, *awake.moved]
            raise ParityError(
                f"the base of the {awake.form} is not frozen: of its {awake.variables} variables "
                f"{len(awake.trainable)} would train in a network around it, and {len(awake.moved)} moved when called "
                f"({', '.join(names[:3])}{', …' if len(names) > 3 else ''}); nothing was written. Build these layers "
                "from others that stay frozen, or keep using the run with `predict`"
            )
    failed = [c for c in certificate.forms if c.tolerance is not None and not c.passed]
    if not failed:
        raise ParityError("nothing was compared with the cached head, so nothing was written")
    worst = max(((c, d) for c in failed for d in c.differences), key=lambda pair: pair[1].largest)
    bound = certificate.bound
    rounding = (
        "" if bound is None else f"; two exact ways to compute the network differ by {bound.measured:.2g}"
    )
    raise ParityError(
        f"the {worst[0].form} differs from the cached head: {worst[1].quantity} by {worst[1].largest:.2g} of their "
        f"spread on {worst[0].images} ({worst[0].tolerance:.2g} is allowed{rounding}); nothing was "
        "written"
    )
