"""From a run to a certified file: merge, write aside, reload, compare, and only then give it its name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottleneck import runs
from bottleneck.bases.load import LoadedBase
from bottleneck.errors import BaseError
from bottleneck.exports.card import ScoreFacts
from bottleneck.exports.keras_archive import written_aside
from bottleneck.files import publish
from bottleneck.images.standalone import standalone
from bottleneck.models.energy import energy_facts
from bottleneck.models.merge import merge
from bottleneck.models.reference import Reference, reference
from bottleneck.progress import Progress
from bottleneck.schema import Cache, Certificate, Run, Score

#: The user's own images in the certificate of one file.
_OWN = 32


@dataclass(frozen=True)
class Delivery:
    """What `merge` wrote.

    Attributes
    ----------
    model, parity, decode : Path
        The `.keras` file, the certificate, the pixel contract as one Python file.
    certificate : Certificate
    size : int
        Bytes of the model's file.
    """

    model: Path
    parity: Path
    decode: Path
    certificate: Certificate
    size: int


def deliver(
    folder: runs.RunFolder, target: Path, cache: Cache, progress: Progress, *, score: Score | None = None
) -> Delivery:
    """Merge the run's head with its base, certify the merged and the reloaded model, and write them to `target`.

    Raises
    ------
    ParityError
        A form differs from the cached head, or the comparison has no power. Nothing is written.
    BaseError
        The base is not the one that the run's features came from.
    HeadError
        The head was not made on the run's features.
    """
    with progress.bar("merge", 5, "steps") as bar:
        known = reference(folder, cache, _OWN)
        bar.update(2)
        model = merge(known.base, known.head, score)
        forms = known.compare("merged model", known.of_model(model))
        twins = known.twins()
        # Before anything is written: a merged model that differs is not worth a file.
        known.require(known.certify(forms, twins))
        bar.update()
        decode_file = _decode_file(target, known.base)
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(model, target, document(folder.run, score_facts(known, score))) as aside:
            bar.update()
            again = load_again(aside)
            forms += known.compare("reloaded .keras", known.of_model(again))
            called, still = known.compare_calls("reloaded .keras", again)
            forms += called
            with aside.open("rb") as file:
                whose = {target.name: hashlib.file_digest(file, "sha256").hexdigest()}
            final = known.certify(forms, twins, [still]).model_copy(update={"files": whose})
            known.require(final)
            # Before the model gets its name: no stop may leave a model without its certificate.
            proof = target.with_suffix(".parity.json")
            publish(proof, final.model_dump_json(indent=1).encode("utf-8") + b"\n", replace=True)
            publish(decode_file, decode_text(known.base).encode("utf-8"), replace=True)
        bar.update()
    return Delivery(target, proof, decode_file, final, target.stat().st_size)


def load_again(path: Path) -> Any:
    """Load the `.keras` file at `path` as plain Keras does, in safe mode.

    Raises
    ------
    BaseError
        It cannot be loaded.
    """
    import keras

    try:
        return keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # Keras raises whatever a layer's constructor raises
        raise BaseError(
            f"the merged model was written, and Keras cannot load it again: {' '.join(str(error).split())[:300]}; "
            "nothing was kept. Build the base from layers and activations of Keras, or keep to the run and `predict`"
        ) from error


def score_facts(known: Reference, score: Score | None) -> ScoreFacts | None:
    """The scale of the score that a model is merged with; None where it has none."""
    return None if score is None else energy_facts(known.folder, known.head, known.store)


def document(run: Run, score: ScoreFacts | None = None) -> dict[str, Any]:
    """What the model's file says of itself in `bottleneck.json`."""
    scale = {} if score is None else {"score": score.model_dump(mode="json")}
    return {
        "format": 1,
        "about": "One Keras model from pixels (0..255, RGB, at the size below) to class probabilities, in the order "
        "of 'classes'. decode.py beside the file turns image files into such pixels.",
        "classes": list(run.classes),
        "spec": run.spec.model_dump(mode="json"),
        "recipe": run.spec.recipe.fingerprint,
        "head": run.head.model_dump(mode="json"),
        "versions": dict(run.versions),
        **scale,
    }


def decode_text(base: LoadedBase) -> str:
    """The pixel contract of `base` as one Python file."""
    pixels = base.spec.recipe.pixels
    return standalone(pixels.height, pixels.width, pixels.resize)


def _decode_file(target: Path, base: LoadedBase) -> Path:
    """Where the pixel contract goes; another model's in the same folder is not overwritten."""
    path = target.parent / "decode.py"
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") != decode_text(base):
        return target.with_name(f"{target.stem}_decode.py")
    return path
