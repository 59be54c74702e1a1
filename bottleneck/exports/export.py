"""From a run to a folder of certified artefacts: made aside, each run bare and compared, and named when that holds."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck import catalog, runs
from bottleneck.contracts import Exporter, Making
from bottleneck.errors import ExportError, UsageError
from bottleneck.exports import manifest
from bottleneck.exports.bare import BareResult, run_bare
from bottleneck.exports.card import Card, render
from bottleneck.exports.card_facts import card_of
from bottleneck.exports.making import LABELS, as_lines, as_text
from bottleneck.exports.manifest import Delivered, Manifest, Refusal
from bottleneck.exports.merged_file import decode_text, document, load_again, score_facts
from bottleneck.exports.reader import reader_text, require_libraries
from bottleneck.models.comparison import GATE, Outputs
from bottleneck.models.merge import merge_model
from bottleneck.models.outputs import answer_names, output_names
from bottleneck.models.reference import OWN, Reference, load_reference
from bottleneck.models.sample_images import LEARNT_FIRST, run_images
from bottleneck.schema import Cache, Certificate, Comparison, Score, Stillness, json_fields, json_value
from bottleneck.system.durable import publish
from bottleneck.system.progress import Progress
from bottleneck.system.staging import staged

#: The user's own images on which every form is compared and measured.
IMAGES = 256

#: Images whose values set the ranges of kinds that are quantized by example; never those that judge them, if others
#: are there.
_SAMPLE = 100

#: Of one run of one artefact: what rounds to whole numbers can be a hundred times slower than what does not.
_SECONDS = 3600.0

#: Every kind of the catalog whose libraries are installed.
ALL = "all"


@dataclass(frozen=True, eq=False)
class Exported:
    """What `export` delivered.

    Attributes
    ----------
    folder : Path
    manifest : Manifest
        Artefacts, what was refused and why, sha256 of every file.
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
        """What was compared, and the verdict."""
        return self.card.certificate

    def to_json(self) -> dict[str, Any]:
        """Describe the artefacts and refusals for a program."""
        artefacts = [
            {**json_value(item), "path": str(self.folder / item.path)} for item in self.manifest.artefacts
        ]
        return {
            "folder": str(self.folder),
            "artefacts": artefacts,
            "refused": json_value(self.manifest.refused),
            **json_fields(self, "left_out", "certificate"),
        }


def load_exporters(kinds: Sequence[str]) -> tuple[list[Exporter], tuple[str, ...]]:
    """The exporters of these kinds, in the catalog's order, and what ``all`` leaves out for want of a library.

    Raises
    ------
    UnknownName
        No such kind; the nearest are named.
    ExportError
        A kind was asked for by name, and its libraries are not installed.
    UsageError
        None was named.

    Examples
    --------
    >>> [exporter.kind for exporter in load_exporters(["litert", "keras"])[0]]
    ['keras', 'litert']
    """
    named = {kind for kind in kinds if kind != ALL}
    if not kinds:
        raise UsageError(f"--format names no kind: give {ALL}, or some of {', '.join(catalog.EXPORTERS)}")
    for kind in named - catalog.EXPORTERS.keys():
        catalog.load("kind of artefact", catalog.EXPORTERS, kind)
    wanted = catalog.EXPORTERS if ALL in kinds else named
    made: list[Exporter] = [
        catalog.load("kind of artefact", catalog.EXPORTERS, kind)()
        for kind in catalog.EXPORTERS
        if kind in wanted
    ]
    for exporter in made:
        if exporter.kind in named:
            require_libraries(exporter.reader, exporter.kind)
    left = {e.kind for e in made if any(util.find_spec(name) is None for name in e.reader.libraries)}
    return [e for e in made if e.kind not in left], tuple(e.kind for e in made if e.kind in left)


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
    """Make artefacts of a run's model, run each in a process without this package, and deliver what is proved.

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
        Up to so many of the run's own images are compared on, those it did not learn from first.
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
    made, left_out = load_exporters(kinds)
    target = out.expanduser().resolve()
    manifest.check_target(target)
    with progress.bar("export", 3 + len(made), "steps") as bar, staged(target) as staging:
        bar.note("the cached head")
        known = load_reference(folder, cache, images)
        bar.update()
        bar.note("merged model")
        model, scale = merge_model(known.base, known.head, score), score_facts(known, score)
        forms = known.compare("merged model", known.of_model(model))
        twins, still = known.twins(), list[Stillness]()
        # A merged model that differs is not worth an artefact.
        known.require(known.certify(forms, twins, still))
        bar.update()
        making = Making(document(folder.run, scale), folder.run.spec.recipe.pixels, _sample(known, cache))
        results: list[Delivered | Refusal] = []
        for exporter in made:
            bar.note(exporter.kind)
            compared, result = _attempt(exporter, model, staging, making, known, gate)
            forms += compared
            if exporter.live:
                called, quiet = known.compare_calls(exporter.kind, load_again(staging / exporter.name))
                forms, still = forms + called, [*still, quiet]
            # Before the next one is made: where one differs, nothing is delivered.
            known.require(known.certify(forms, twins, still))
            results.append(result)
            bar.update()
        delivered = tuple(result for result in results if isinstance(result, Delivered))
        refused = tuple(result for result in results if isinstance(result, Refusal))
        if not delivered:
            why = "; ".join(f"{item.kind}: {item.why}" for item in refused)
            raise ExportError(
                f"nothing of what was asked for can be delivered, so nothing was written: {why}"
            )
        card = card_of(known, model, known.certify(forms, twins, still), delivered, refused, cache, scale)
        for name, text in _texts(known, card, made).items():
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
    exporter: Exporter, model: Any, staging: Path, making: Making, known: Reference, gate: float
) -> tuple[list[Comparison], Delivered | Refusal]:
    """Write one kind, run it bare, compare it; what rounds and is not good enough is taken away again."""
    try:
        artefact = exporter.write(model, staging, making)
        ran = _run(exporter, artefact, known, making, output_names(model))
    except ExportError as error:
        # What computes as it was trained must come out right; what rounds may turn out not to be possible. A disk
        # that fails says nothing about the kind, and must not cost what an earlier export had of it.
        if exporter.tolerance is not None or _blames_the_disk(error):
            raise
        _remove(staging / exporter.name)
        return [], Refusal(kind=exporter.kind, why=str(error))
    if exporter.tolerance is None:
        compared = known.judge(exporter.kind, {OWN: Outputs.of(ran.outputs)}, gate=gate)
    else:
        compared = known.compare(exporter.kind, known.split(ran.outputs), tolerance=exporter.tolerance)
    milliseconds = None
    if exporter.takes_bytes:
        read = run_bare(
            exporter.reader,
            artefact,
            files=known.files,
            wanted=answer_names(model),
            batch=known.forward.batch,
            timeout=_SECONDS,
        )
        milliseconds = read.milliseconds
        form = f"{exporter.kind}, from files"
        compared += known.compare(
            form, known.split(read.outputs, files=True), tolerance=exporter.tolerance or 0.0
        )
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
    """Whether the system refused a write; TensorFlow hands on what it said as text."""
    said = (os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS))
    return isinstance(error.__cause__, OSError) or any(text in str(error) for text in said)


def _run(
    exporter: Exporter, artefact: Path, known: Reference, making: Making, wanted: Sequence[str]
) -> BareResult:
    """The artefact's answers in a process of its own: for all images, or where it rounds, for those of the run."""
    if exporter.tolerance is None and OWN not in known.images:
        raise ExportError(
            f"{exporter.kind} rounds, so it is measured on images of the run, and none of them can be read; put them "
            "back where the run found them, or leave this kind out"
        )
    pixels = known.pixels if exporter.tolerance is not None else known.images[OWN].pixels
    ran = run_bare(
        exporter.reader,
        artefact,
        pixels=pixels,
        wanted=wanted,
        batch=known.forward.batch,
        timeout=_SECONDS,
    )
    if ran.document != json.loads(as_text(making.document)):
        raise ExportError(f"{artefact.name} does not carry the classes and the recipe that it was given")
    return ran


def _sample(known: Reference, cache: Cache) -> np.ndarray:
    """Pixels for kinds that are quantized by example: of other images than those that judge them, if there are any."""
    judges = known.images[OWN].contents if OWN in known.images else None
    found = [
        run_images(
            known.folder, known.forward, known.store, cache, _SAMPLE, first=LEARNT_FIRST, without=without
        )
        for without in (judges, None)
    ]
    return next((some.pixels for some in found if len(some)), found[-1].pixels)


def _texts(known: Reference, card: Card, made: Sequence[Exporter]) -> Mapping[str, str]:
    """What lies beside the artefacts, by name."""
    readers = {exporter.kind: (exporter.reader.name, reader_text(exporter.reader)) for exporter in made}
    return {
        LABELS: as_lines(list(known.run.classes)),
        "decode.py": decode_text(known.base),
        "parity.json": card.certificate.model_dump_json(indent=1) + "\n",
        "card.json": card.model_dump_json(indent=1) + "\n",
        "card.md": render(card, readers),
    }


def _remove(artefact: Path) -> None:
    if artefact.is_dir():
        shutil.rmtree(artefact)
    else:
        artefact.unlink(missing_ok=True)
