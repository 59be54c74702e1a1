"""The parity certificate: the merged model *is* the head that was trained, shown by a test that can fail.

Every form is compared with the cached head on the user's images and on probe images. Broken twins (channels reversed,
preprocessing left out, BatchNorm in training mode) run through the same comparison and must fail it: a comparison that
lets one of them through has no power, and certifies nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bottleneck.bases.cut import pool
from bottleneck.bases.load import LoadedBase
from bottleneck.bases.preprocess import apply
from bottleneck.contracts import Forward, Head
from bottleneck.errors import ParityError
from bottleneck.exports.graph import outputs_of
from bottleneck.models.compare import GATE, TOLERANCE, WIDEST, Outputs, compare
from bottleneck.schema import Certificate, Comparison, Preprocessing


def cached(forward: Forward, head: Head, pixels: np.ndarray, rows: np.ndarray | None = None) -> Outputs:
    """The reference: the head on features, as stored or as extraction would compute them now.

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
        rows = np.concatenate(list(_batches(forward.features, pixels, forward.batch)))
    return Outputs(rows, head.logits(rows), head.predict_proba(rows))


def of_model(model: Any, pixels: np.ndarray, batch: int) -> Outputs:
    """What a merged model gives, stage by stage."""
    import keras

    stages = keras.Model(model.inputs[0], {name: model.get_layer(name).output for name in outputs_of(model)})
    return Outputs.of(stages.predict(pixels, batch_size=batch, verbose=0))


def twins(base: LoadedBase, head: Head, pixels: np.ndarray, batch: int) -> dict[str, Outputs]:
    """The broken twins that apply to this base, by name.

    Parameters
    ----------
    base : LoadedBase
    head : Head
    pixels : numpy.ndarray
        (n, height, width, 3) float32 in 0..255; coloured, or a swap of channels cannot show.
    batch : int

    Returns
    -------
    dict of str to Outputs
    """
    right = base.spec.recipe.preprocessing
    found: dict[str, Callable[[np.ndarray], Any]] = {}
    if right.channels != "grey":
        found["channels reversed"] = lambda x: _run(base, x[..., ::-1], right, training=False)
    if right.is_identity:
        found["pixels divided by 255"] = lambda x: _run(base, x / np.float32(255), right, training=False)
    else:
        bare = Preprocessing(channels="grey" if right.channels == "grey" else "rgb")
        found["preprocessing left out"] = lambda x: _run(base, x, bare, training=False)
    if has_batch_norm(base.model):
        found["BatchNorm in training mode"] = lambda x: _run(base, x, right, training=True)
    made = {}
    for name, function in found.items():
        rows = np.concatenate(list(_batches(function, pixels, batch)))
        made[name] = Outputs(rows, head.logits(rows), head.predict_proba(rows))
    return made


def has_batch_norm(model: Any) -> bool:
    """Whether a BatchNormalization lies in `model`, nested ones included."""
    import keras

    return any(
        isinstance(layer, keras.layers.BatchNormalization)
        for layer in model._flatten_layers(include_self=False, recursive=True)
    )


def _run(base: LoadedBase, x: np.ndarray, preprocessing: Preprocessing, *, training: bool) -> np.ndarray:
    """Rows of `x` through the base as given; in training mode its updates are dropped, never applied."""
    prepared = apply(x, preprocessing)
    model = base.model
    trainable = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]
    y, _ = model.stateless_call(trainable, others, prepared, training=training)
    return np.asarray(pool(y, base.spec.recipe.pooling), np.float32)


def _batches(function: Callable[[np.ndarray], Any], pixels: np.ndarray, batch: int) -> Any:
    for start in range(0, len(pixels), batch):
        part = pixels[start : start + batch]
        padded = np.zeros((batch, *pixels.shape[1:]), np.float32)
        padded[: len(part)] = part
        # Padding by repetition, not by black: in training mode a BatchNorm sees the whole batch.
        padded[len(part) :] = part[np.arange(batch - len(part)) % len(part)]
        yield np.asarray(function(padded), np.float32)[: len(part)]


def judge_twin(name: str, reference: Outputs, outputs: Outputs) -> Comparison:
    """A broken twin on the probes: it "passes" where its break does not show. Pure."""
    found = compare(name, "probes", reference, outputs, WIDEST)
    return found.model_copy(update={"passed": not _shows(found)})


def judge_rows(images: str, reference: Outputs, outputs: Outputs, gate: float = GATE) -> Comparison:
    """The head on stored rows of reduced dtype against the head on float32 features. Pure."""
    found = compare("stored rows", images, reference, outputs, gate=gate)
    close = found.cosine is not None and found.cosine >= gate
    return found.model_copy(update={"passed": found.passed and close})


def certify(
    forms: Sequence[Comparison],
    twins: Sequence[Comparison],
    drift: Sequence[Comparison] = (),
    *,
    recipe: str,
    head: str,
) -> Certificate:
    """The verdict, from what was compared. Pure.

    Parameters
    ----------
    forms : sequence of Comparison
        From `compare`. Those held to a tolerance decide; those at a gate are reported, and refused one by one.
    twins : sequence of Comparison
        From `judge_twin`.
    drift : sequence of Comparison
        From `judge_rows`, for a store of reduced dtype.
    recipe, head : str
        Fingerprint, and the head's name with settings, for the file.

    Returns
    -------
    Certificate
        ``certified`` when there are forms held to a tolerance and every one passes, every twin fails, and stored rows
        of reduced dtype keep to the gate.
    """
    deciding = [form for form in forms if form.tolerance is not None]
    powerless = not twins or any(twin.passed for twin in twins)
    equal = bool(deciding) and all(item.passed for item in (*deciding, *drift))
    return Certificate(
        verdict="no power" if powerless else "certified" if equal else "different",
        tolerance=max((form.tolerance or 0.0 for form in deciding), default=TOLERANCE),
        recipe=recipe,
        head=head,
        forms=tuple(forms),
        twins=tuple(twins),
        drift=tuple(drift),
    )


def _shows(twin: Comparison) -> bool:
    """Whether the break shows in the features and gets through to the logits, not in one of them alone."""
    return all(item.largest > WIDEST for item in twin.differences if item.quantity != "probabilities")


def require(certificate: Certificate) -> None:
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
    failed = [c for c in certificate.forms if c.tolerance is not None and not c.passed]
    if not failed:
        raise ParityError("nothing was compared with the cached head, so nothing was written")
    worst = max(((c, d) for c in failed for d in c.differences), key=lambda pair: pair[1].largest)
    raise ParityError(
        f"the {worst[0].form} differs from the cached head: {worst[1].quantity} by {worst[1].largest:.2g} of their "
        f"spread on {worst[0].images} ({worst[0].tolerance:g} is allowed); nothing was written"
    )
