"""The parity certificate: the merged model *is* the head that was trained, shown by a test that can fail.

Every form is compared with the cached head on the user's images and on probe images. Broken twins (channels reversed,
preprocessing left out, BatchNorm in training mode) run through the same comparison and must fail it: a comparison that
lets one of them through has no power, and certifies nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bottleneck.bases.cut import pool
from bottleneck.bases.load import LoadedBase
from bottleneck.bases.preprocess import apply
from bottleneck.contracts import Forward, Head
from bottleneck.errors import ParityError
from bottleneck.images.probes import probes
from bottleneck.models.compare import TOLERANCE, Outputs, compare
from bottleneck.schema import Certificate, Comparison, Preprocessing

PROBES = 32

#: Share of first choices that rows of reduced dtype must leave as they are.
GATE = 0.97

Images = dict[str, np.ndarray]


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

    stages = keras.Model(
        model.inputs[0], [model.get_layer(name).output for name in ("features", "logits", "probabilities")]
    )
    return Outputs(*(np.asarray(part) for part in stages.predict(pixels, batch_size=batch, verbose=0)))


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


def probe_pixels(base: LoadedBase) -> np.ndarray:
    """The probe images at the base's size."""
    pixels = base.spec.recipe.pixels
    return probes(PROBES, pixels.height, pixels.width)


def certify(
    references: dict[str, Outputs],
    forms: dict[str, dict[str, Outputs]],
    broken: dict[str, Outputs],
    *,
    stored: dict[str, Outputs] | None = None,
    recipe: str,
    head: str,
    tolerance: float = TOLERANCE,
) -> Certificate:
    """The verdict, from what each form gave. Pure.

    Parameters
    ----------
    references : dict
        Images' name to what the cached head gives for them; ``probes`` is one of the names.
    forms : dict
        Form's name to the same, from that form.
    broken : dict
        Twin's name to what it gives for the probes.
    stored : dict, optional
        For a store of reduced dtype: images' name to what the head gives on the stored rows.
    recipe, head : str
        Fingerprint, and the head's name with settings, for the file.
    tolerance : float

    Returns
    -------
    Certificate
        ``certified`` when every form passes, every twin fails, and stored rows of reduced dtype keep to the gate.
    """
    compared = tuple(
        compare(form, images, references[images], outputs, tolerance)
        for form, by_images in forms.items()
        for images, outputs in by_images.items()
    )
    # A twin "passes" where its break does not show.
    refused = tuple(
        twin.model_copy(update={"passed": not _shows(twin, tolerance)})
        for name, outputs in broken.items()
        for twin in [compare(name, "probes", references["probes"], outputs, tolerance)]
    )
    drift = tuple(
        drifted.model_copy(update={"passed": drifted.top1 >= GATE})
        for images, outputs in (stored or {}).items()
        for drifted in [compare("stored rows", images, references[images], outputs, tolerance)]
    )
    powerless = not refused or any(twin.passed for twin in refused)
    verdict = (
        "no power"
        if powerless
        else "certified"
        if all(c.passed for c in (*compared, *drift))
        else "different"
    )
    return Certificate.model_validate(
        {
            "verdict": verdict,
            "tolerance": tolerance,
            "recipe": recipe,
            "head": head,
            "forms": compared,
            "twins": refused,
            "drift": drift,
        }
    )


def _shows(twin: Comparison, tolerance: float) -> bool:
    """Whether the break shows in the features and gets through to the logits, not in one of them alone."""
    return all(item.largest > tolerance for item in twin.differences if item.quantity != "probabilities")


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
                f"of float32 features ({GATE:g} is needed). Extract with --dtype float32 and train again"
            )
    worst = max(((c, d) for c in certificate.forms for d in c.differences), key=lambda pair: pair[1].largest)
    raise ParityError(
        f"the {worst[0].form} differs from the cached head: {worst[1].quantity} by {worst[1].largest:.2g} of their "
        f"spread on {worst[0].images} ({certificate.tolerance:g} is allowed); nothing was written"
    )
