"""From a run to a certified file: merge, write aside, reload, compare, and only then give it its name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck import runs
from bottleneck.bases.load import LoadedBase, load
from bottleneck.errors import BaseError, Rejected, UsageError
from bottleneck.exports.keras_archive import written_aside
from bottleneck.extraction.forward import KerasForward, batch_for, prepare_process
from bottleneck.files import publish
from bottleneck.images.standalone import standalone
from bottleneck.models import parity
from bottleneck.models.merge import merge
from bottleneck.progress import Progress
from bottleneck.schema import Cache, Certificate
from bottleneck.sources.open import open_source
from bottleneck.store.read import open_store

#: The user's own images in the certificate.
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


def deliver(folder: runs.RunFolder, target: Path, cache: Cache, progress: Progress) -> Delivery:
    """Merge the run's head with its base, certify the merged and the reloaded model, and write them to `target`.

    Raises
    ------
    ParityError
        A form differs from the cached head, or the comparison has no power. Nothing is written.
    BaseError
        The base is not the one that the run's features came from.
    """
    import keras

    run = folder.run
    head = folder.head()
    prepare_process()
    with progress.bar("merge", 5, "steps") as bar:
        base = load(run.request, cache)
        _same_base(base, run)
        forward = KerasForward(base, batch_for(run.request, cache))
        bar.update()
        images, stored = _images(folder, forward, cache)
        exact = run.spec.recipe.dtype == "float32"
        references = {
            name: parity.cached(forward, head, pixels, stored.get(name) if exact else None)
            for name, pixels in images.items()
        }
        coarse = (
            {} if exact else {n: parity.cached(forward, head, images[n], rows) for n, rows in stored.items()}
        )
        bar.update()
        model = merge(base, head)
        forms = {"merged model": {n: parity.of_model(model, x, forward.batch) for n, x in images.items()}}
        broken = parity.twins(base, head, images["probes"], forward.batch)
        bar.update()
        recipe, named = run.spec.recipe.fingerprint, f"{run.head.name} {dict(run.head.settings)}"

        def certificate() -> Certificate:
            return parity.certify(references, forms, broken, stored=coarse, recipe=recipe, head=named)

        # Before anything is written: a merged model that differs is not worth a file.
        parity.require(certificate())
        decode_file = _decode_file(target, base)
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(model, target, document(run)) as aside:
            bar.update()
            again = keras.saving.load_model(aside, safe_mode=True)
            forms["reloaded .keras"] = {
                n: parity.of_model(again, x, forward.batch) for n, x in images.items()
            }
            final = certificate()
            parity.require(final)
            # Before the model gets its name: no stop may leave a model without its certificate.
            proof = target.with_suffix(".parity.json")
            publish(proof, final.model_dump_json(indent=1).encode("utf-8") + b"\n", replace=True)
            publish(decode_file, _decode_text(base).encode("utf-8"), replace=True)
        bar.update()
    return Delivery(target, proof, decode_file, final, target.stat().st_size)


def document(run: Any) -> dict[str, Any]:
    """What the model's file says of itself in `bottleneck.json`."""
    return {
        "format": 1,
        "about": "One Keras model from pixels (0..255, RGB, at the size below) to class probabilities, in the order "
        "of 'classes'. decode.py beside the file turns image files into such pixels.",
        "classes": list(run.classes),
        "spec": run.spec.model_dump(mode="json"),
        "recipe": run.spec.recipe.fingerprint,
        "head": run.head.model_dump(mode="json"),
        "versions": dict(run.versions),
    }


def _same_base(base: LoadedBase, run: Any) -> None:
    if base.spec.recipe != run.spec.recipe:
        raise BaseError(
            f"the base {run.request.base} is not the one that run {run.name} was trained on: its recipe is "
            f"{base.spec.recipe.fingerprint[:16]}, the run's {run.spec.recipe.fingerprint[:16]}. Its weights or "
            "code changed since: put the old ones back, or train again"
        )


def _images(
    folder: runs.RunFolder, forward: KerasForward, cache: Cache
) -> tuple[dict[str, np.ndarray], Mapping[str, np.ndarray]]:
    """Probe images and some of the user's own, with the stored rows of the latter."""
    images = {"probes": parity.probe_pixels(forward.base)}
    store = open_store(cache, forward.spec)
    inventory = folder.inventory()
    positions = store.find(inventory.keys)
    there = np.flatnonzero(positions >= 0)
    # Spread over the table, which is sorted by path, so that every class has a chance.
    chosen = there[np.linspace(0, len(there) - 1, min(_OWN, len(there)), dtype=int)] if len(there) else there
    pixels, kept = [], []
    try:
        source = open_source(folder.run.source, fetched=cache.fetched)
    except Exception as error:
        raise UsageError(f"the run's images are needed for the certificate, but {error}") from error
    for row in chosen:
        image = inventory[int(row)]
        try:
            data = source.read(image.path)
            # Another picture under the old name would be compared with the old one's features.
            if hashlib.sha256(data).digest() == image.content:
                pixels.append(forward.decode(data))
                kept.append(row)
        except (OSError, Rejected):
            continue  # gone since; others stand for it
    if not kept:
        return images, {}
    images["own images"] = np.stack(pixels)
    rows = store.gather(positions[np.array(kept)])
    return images, {"own images": rows.astype(np.float32, copy=False)}


def _decode_text(base: LoadedBase) -> str:
    pixels = base.spec.recipe.pixels
    return standalone(pixels.height, pixels.width, pixels.resize)


def _decode_file(target: Path, base: LoadedBase) -> Path:
    """Where the pixel contract goes; another model's in the same folder is not overwritten."""
    path = target.parent / "decode.py"
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") != _decode_text(base):
        return target.with_name(f"{target.stem}_decode.py")
    return path
