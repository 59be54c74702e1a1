"""A reference with fewer images, and the files of a whole export."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bottleneck.exports import manifest
from bottleneck.models.comparison import Outputs
from bottleneck.models.reference import Reference
from bottleneck.models.sample_images import OWN, PROBES, ComparisonImages


def shortened(known: Reference, most: int) -> Reference:
    """The same with fewer of the run's images, or none."""
    mine, said = known.images[OWN], known.outputs[OWN]
    few = ComparisonImages(
        mine.pixels[:most], mine.files[:most], mine.truth[:most], mine.contents[:most], mine.unseen
    )
    images = {PROBES: known.images[PROBES], OWN: few}
    outputs = {
        PROBES: known.outputs[PROBES],
        OWN: Outputs(said.features[:most], said.logits[:most], said.probabilities[:most]),
    }
    if not most:
        del images[OWN], outputs[OWN]
    return dataclasses.replace(known, images=images, outputs=outputs)


def exported_files(folder: Path) -> dict[str, bytes]:
    """Every file of an export that is whole, and nothing beside it that a stopped one would leave."""
    manifest.check_manifest(folder)
    assert not [p.name for p in folder.parent.iterdir() if p.name.startswith(f".{folder.name}.")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
