"""Merge a run into one certified file.

The model is written aside, reloaded and compared before it gets its name. Model, certificate and pixel contract are
named as one set; the certificate holds the sha256 of both others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottleneck import runs
from bottleneck.bases.load import LoadedBase
from bottleneck.errors import BaseError, UsageError
from bottleneck.exports.keras_archive import save_keras
from bottleneck.models.energy import energy_facts
from bottleneck.models.merge import load_run_model, merge_model
from bottleneck.models.reference import Reference, make_reference
from bottleneck.pixels.contract.standalone import standalone
from bottleneck.schema import Cache, Certificate, Run, Score, ScoreFacts, json_fields, json_value
from bottleneck.schema.strict_json import MalformedDocument, parse_as
from bottleneck.system.disk_errors import about
from bottleneck.system.durable import publish, sha256_of, shown
from bottleneck.system.file_set import naming_lock, take_names
from bottleneck.system.progress import Progress
from bottleneck.system.staging import room_beside

#: Images of the run in the certificate of one file.
_OWN = 32


@dataclass(frozen=True)
class MergedModel:
    """The files that a merge wrote.

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

    def to_json(self) -> dict[str, Any]:
        """Describe the files for a program."""
        return {
            **json_fields(self, "model", "parity", "decode"),
            "bytes": self.size,
            "certificate": json_value(self.certificate),
        }


def write_merged(
    folder: runs.RunFolder, target: Path, cache: Cache, progress: Progress, *, score: Score | None = None
) -> MergedModel:
    """Merge a run's head with its base and write the certified model.

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
        reference = make_reference(load_run_model(folder, cache), cache, _OWN)
        bar.update(2)
        model = merge_model(reference.model.base, reference.model.head, score)
        forms = reference.compare("merged model", reference.of_model(model))
        twins = reference.twins()
        # Before anything is written: a merged model that differs is not worth a file.
        reference.require(reference.certify(forms, twins))
        bar.update()
        target.parent.mkdir(parents=True, exist_ok=True)
        with room_beside(target) as room:
            aside = room / target.name
            save_keras(model, aside, document(folder.run, score_facts(reference, score)))
            bar.update()
            again = load_again(aside)
            forms += reference.compare("reloaded .keras", reference.of_model(again))
            called, still = reference.compare_calls("reloaded .keras", again)
            forms += called
            final = reference.certify(forms, twins, [still])
            reference.require(final)
            written = name_set(room, target, final, decode_text(reference.model.base))
        bar.update()
    return MergedModel(target, *written, target.stat().st_size)


def load_again(path: Path) -> Any:
    """Load a `.keras` file as plain Keras does, in safe mode.

    Raises
    ------
    BaseError
        It cannot be loaded.
    OSError, MemoryError
        The machine refuses; that says nothing of the model.
    """
    import keras

    try:
        with about(path):
            return keras.saving.load_model(path, safe_mode=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # Keras raises whatever a layer's constructor raises
        raise BaseError(
            f"the merged model was written, and Keras cannot load it again: {' '.join(str(error).split())[:300]}; "
            "nothing was kept. Build the base from layers and activations of Keras, or keep to the run and `predict`"
        ) from error


def score_facts(reference: Reference, score: Score | None) -> ScoreFacts | None:
    """Measure the scale of a model's score, if it has one."""
    model = reference.model
    return None if score is None else energy_facts(model.folder, model.head, model.store)


def document(run: Run, score: ScoreFacts | None = None) -> dict[str, Any]:
    """Describe a model for its `bottleneck.json`."""
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
    """Write the pixel contract of `base` as one Python file."""
    pixels = base.spec.recipe.pixels
    return standalone(pixels.height, pixels.width, pixels.resize)


def name_set(
    room: Path, target: Path, certificate: Certificate, decode: str
) -> tuple[Path, Path, Certificate]:
    """Name the model in `room` with its certificate and pixel contract.

    The three become one set. Files that another model needs, or that no model wrote, stay.

    Parameters
    ----------
    room : Path
        From `room_beside(target)`; the model is in it.
    target : Path
    certificate : Certificate
        It receives the sha256 of the model and of the pixel contract.
    decode : str
        The pixel contract.

    Returns
    -------
    parity, decode : Path
    certificate : Certificate

    Raises
    ------
    UsageError
        Both names for the pixel contract belong to files that are not this model's.
    """
    proof = target.with_suffix(".parity.json")
    with naming_lock(target.parent):
        contract, gone = _contract(target, proof, decode)
        whose = {target.name: sha256_of(room / target.name), contract: _sha256(decode)}
        final = certificate.model_copy(update={"files": whose})
        publish(room / proof.name, final.model_dump_json(indent=1).encode("utf-8") + b"\n")
        publish(room / contract, decode.encode("utf-8"))
        take_names(room, target.parent, target.name, gone=gone)
    return proof, target.with_name(contract), final


def _contract(target: Path, proof: Path, decode: str) -> tuple[str, list[str]]:
    """Name the pixel contract and the earlier one to remove.

    ``decode.py`` where that name is free, holds the same text, or belongs to this model and no other.
    """
    common, own = "decode.py", f"{target.stem}_decode.py"
    mine = _files(proof) if os.path.lexists(proof) else {}
    new = _sha256(decode)

    def free(name: str) -> bool:
        """Whether the name is unused or holds this contract."""
        path = target.with_name(name)
        return not os.path.lexists(path) or _is(path, new)

    def own_so_far(name: str) -> bool:
        return name in mine and _is(target.with_name(name), mine[name])

    others = []
    for path in target.parent.glob("*.parity.json"):
        if path != proof:
            try:
                others.append(_files(path))
            except OSError:  # not ours to read: it may need any contract
                others.append({})
    # A certificate of an earlier version does not say which contract its model needs: it may be this one.
    shared = any(common in files or not any(n.endswith(common) for n in files) for files in others)
    if free(common) or (own_so_far(common) and not shared):
        return common, [own] if own_so_far(own) else []
    # Nor does an earlier version's certificate say that a file of this name is its model's, which it may be.
    complete = not os.path.lexists(proof) or any(name.endswith(common) for name in mine)
    if complete and not free(own) and not own_so_far(own):
        raise UsageError(
            f"{shown(str(target.with_name(own)))} and {common} beside it are files of others, and the model needs one "
            "of these names for its pixel contract: move one away, or give another --out"
        )
    return own, []


def _files(proof: Path) -> Mapping[str, str]:
    """Read what files a certificate names; none for another version's."""
    data = proof.read_bytes()
    try:
        return parse_as(Certificate, data).files
    except MalformedDocument:
        return {}


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
