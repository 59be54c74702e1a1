"""Export a run as a folder of certified artefacts."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck import runs
from bottleneck.contracts import Exporter, Making
from bottleneck.errors import ExportError
from bottleneck.exports import manifest
from bottleneck.exports.artefact import LABELS, as_lines, as_text, load_exporters, reader_text
from bottleneck.exports.bare import BareResult, run_bare
from bottleneck.exports.card import Card, render
from bottleneck.exports.card_facts import card_of
from bottleneck.exports.manifest import Delivered, Manifest, Refusal
from bottleneck.exports.merged_file import decode_text, document, load_again, score_facts
from bottleneck.models.comparison import GATE, Outputs
from bottleneck.models.merge import load_run_model, merge_model
from bottleneck.models.outputs import answer_names, output_names
from bottleneck.models.reference import Reference, make_reference
from bottleneck.models.sample_images import LEARNT_FIRST, OWN, run_images
from bottleneck.schema import Cache, Certificate, Comparison, Score, Stillness, json_fields, json_value
from bottleneck.system.durable import publish
from bottleneck.system.progress import Progress
from bottleneck.system.staging import staged

#: Images of the run on which every form is compared and measured.
IMAGES = 256

#: Images whose values set the ranges of kinds that are quantized by example; if possible, not those that judge them.
_SAMPLE = 100

#: Time for one run of one artefact: integer kinds can be a hundred times slower than others.
_SECONDS = 3600.0


@dataclass(frozen=True, eq=False)
class Exported:
    """What an export delivered.

    Attributes
    ----------
    folder : Path
    manifest : Manifest
        Artefacts, refusals with their reasons, sha256 of every file.
    card : Card
        With the certificate and the figures.
    left_out : tuple of str
        Kinds that `all` would have made, had their libraries been installed.
    """

    folder: Path
    manifest: Manifest
    card: Card
    left_out: tuple[str, ...]

    @property
    def certificate(self) -> Certificate:
        """The comparisons and the verdict."""
        return self.card.certificate

    def to_json(self) -> dict[str, Any]:
        """Describe the artefacts and refusals for a program."""
        artefacts = [
            {**json_value(item), "path": str(self.folder / item.path)} for item in self.manifest.artefacts
        ]
        rest = {"refused": json_value(self.manifest.refused), **json_fields(self, "left_out", "certificate")}
        return {"folder": str(self.folder), "artefacts": artefacts, **rest}


def export_artefacts(
    folder: runs.RunFolder,
    out: Path,
    kinds: Sequence[str],
    cache: Cache,
    progress: Progress,
    *,
    gate: float = GATE,
    images: int = IMAGES,
    score: Score | None = None,
) -> Exported:
    """Make artefacts of a run's model, and deliver those that are proved.

    Parameters
    ----------
    folder : RunFolder
    out : Path
        A folder: new, empty, or of an earlier export, which stays as it is until the new one is whole.
    kinds : sequence of str
        Of `catalog.EXPORTERS`, or ``all``.
    cache : Cache
    progress : Progress
    gate : float
        Share of equal first choices that a kind that rounds must reach to be delivered.
    images : int
        How many of the run's own images to compare on at most; unseen ones come first.
    score : {"energy"}, optional
        A second answer of every artefact: see `models.energy`.

    Returns
    -------
    Exported

    Raises
    ------
    ParityError
        A form that computes as it was trained differs, or the comparison has no power. Nothing is delivered.
    ExportError
        A kind cannot be made or run here, or every kind was refused. Nothing is delivered.
    HeadError, BaseError
        The head or the base is not the run's.
    UsageError
        `out` holds something else.
    """
    chosen, left_out = load_exporters(kinds)
    target = out.expanduser().resolve()
    manifest.check_target(target)
    with progress.bar("export", 3 + len(chosen), "steps") as bar, staged(target) as staging:
        bar.note("the cached head")
        reference = make_reference(load_run_model(folder, cache), cache, images)
        base, head = reference.model.base, reference.model.head
        bar.update()
        bar.note("merged model")
        model, scale = merge_model(base, head, score), score_facts(reference, score)
        forms = reference.compare("merged model", reference.of_model(model))
        twins, still = reference.twins(), list[Stillness]()
        # A merged model that differs is not worth an artefact.
        reference.require(reference.certify(forms, twins, still))
        bar.update()
        making = Making(document(folder.run, scale), folder.run.spec.recipe.pixels, _sample(reference, cache))
        results: list[Delivered | Refusal] = []
        for exporter in chosen:
            bar.note(exporter.kind)
            compared, result = _attempt(exporter, model, staging, making, reference, gate)
            forms += compared
            if exporter.live:
                called, stillness = reference.compare_calls(
                    exporter.kind, load_again(staging / exporter.name)
                )
                forms, still = forms + called, [*still, stillness]
            # Before the next one is made: where one differs, nothing is delivered.
            reference.require(reference.certify(forms, twins, still))
            results.append(result)
            bar.update()
        delivered = tuple(result for result in results if isinstance(result, Delivered))
        refused = tuple(result for result in results if isinstance(result, Refusal))
        if not delivered:
            why = "; ".join(f"{item.kind}: {item.why}" for item in refused)
            raise ExportError(
                f"nothing of what was asked for can be delivered, so nothing was written: {why}"
            )
        card = card_of(
            reference, model, reference.certify(forms, twins, still), delivered, refused, cache, scale
        )
        for name, text in _texts(reference, card, chosen).items():
            publish(staging / name, text.encode("utf-8"))
        written = Manifest(
            run=folder.run.name,
            created=card.exported,
            recipe=card.base.recipe.fingerprint,
            head=card.certificate.head,
            artefacts=delivered,
            refused=refused,
            files=manifest.facts_of(staging),
        )
        publish(staging / manifest.NAME, written.model_dump_json(indent=1).encode("utf-8") + b"\n")
        # Somebody may have put something there in all this time.
        manifest.check_target(target)
        bar.update()
    return Exported(target, written, card, left_out)


def _attempt(
    exporter: Exporter, model: Any, staging: Path, making: Making, reference: Reference, gate: float
) -> tuple[list[Comparison], Delivered | Refusal]:
    """Write one kind, run it bare and compare it.

    A kind that rounds and is not good enough is removed again.
    """
    try:
        artefact = exporter.write(model, staging, making)
        ran = _run(exporter, artefact, reference, making, output_names(model))
    except ExportError as error:
        # A kind that computes as it was trained must succeed; one that rounds may prove impossible. A disk that fails
        # says nothing about the kind, and must not cost what an earlier export had of it.
        if exporter.tolerance is not None or _blames_the_disk(error):
            raise
        _remove(staging / exporter.name)
        return [], Refusal(kind=exporter.kind, why=str(error))
    if exporter.tolerance is None:
        compared = reference.compare(exporter.kind, {OWN: Outputs.of(ran.outputs)}, gate=gate)
    else:
        answers = reference.split(ran.outputs)
        compared = reference.compare(exporter.kind, answers, tolerance=exporter.tolerance)
    milliseconds = None
    if exporter.takes_bytes:
        batch = reference.model.forward.batch
        read = run_bare(
            exporter.reader, artefact,
            files=reference.files, wanted=answer_names(model), batch=batch, timeout=_SECONDS,
        )  # fmt: skip
        milliseconds = read.milliseconds
        answers = reference.split(read.outputs, files=True)
        form = f"{exporter.kind}, from files"
        compared += reference.compare(form, answers, tolerance=exporter.tolerance or 0.0)
    short = next((c for c in compared if c.gate is not None and not c.passed), None)
    size = manifest.size_of(artefact)
    if short is not None:
        _remove(artefact)
        return compared, Refusal(
            kind=exporter.kind,
            why=f"names the head's first choice for {short.top1:.3f} of {short.count} images of the run"
            + ("" if short.top1 < gate else ", but its energy goes other ways than the head's")
            + f"; {gate:g} is needed",
            bytes=size,
            milliseconds=ran.milliseconds,
        )
    return compared, Delivered(
        kind=exporter.kind,
        path=artefact.relative_to(staging).as_posix(),
        bytes=size,
        milliseconds=ran.milliseconds,
        milliseconds_from_file=milliseconds,
    )


def _blames_the_disk(error: ExportError) -> bool:
    """Whether the system refused a write; TensorFlow passes it on as text."""
    reasons = (os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS))
    return isinstance(error.__cause__, OSError) or any(text in str(error) for text in reasons)


def _run(
    exporter: Exporter, artefact: Path, reference: Reference, making: Making, wanted: Sequence[str]
) -> BareResult:
    """Run an artefact; one that rounds gets only the run's images."""
    if exporter.tolerance is None and OWN not in reference.images:
        raise ExportError(
            f"{exporter.kind} rounds, so it is measured on images of the run, and none of them can be read; put them "
            "back where the run found them, or leave this kind out"
        )
    pixels = reference.pixels if exporter.tolerance is not None else reference.images[OWN].pixels
    batch = reference.model.forward.batch
    ran = run_bare(exporter.reader, artefact, pixels=pixels, wanted=wanted, batch=batch, timeout=_SECONDS)
    if ran.document != json.loads(as_text(making.document)):
        raise ExportError(f"{artefact.name} does not carry the classes and the recipe that it was given")
    return ran


def _sample(reference: Reference, cache: Cache) -> np.ndarray:
    """Decode example images for quantization, if possible not those that judge."""
    judges = reference.images[OWN].contents if OWN in reference.images else None
    others = run_images(reference.model, cache, _SAMPLE, first=LEARNT_FIRST, without=judges)
    return (others if len(others) else run_images(reference.model, cache, _SAMPLE, first=LEARNT_FIRST)).pixels


def _texts(reference: Reference, card: Card, chosen: Sequence[Exporter]) -> Mapping[str, str]:
    """Write the texts that lie beside the artefacts, by name."""
    readers = {exporter.kind: (exporter.reader.name, reader_text(exporter.reader)) for exporter in chosen}
    return {
        LABELS: as_lines(list(reference.run.classes)),
        "decode.py": decode_text(reference.model.base),
        "parity.json": card.certificate.model_dump_json(indent=1) + "\n",
        "card.json": card.model_dump_json(indent=1) + "\n",
        "card.md": render(card, readers),
    }


def _remove(artefact: Path) -> None:
    if artefact.is_dir():
        shutil.rmtree(artefact)
    else:
        artefact.unlink(missing_ok=True)
