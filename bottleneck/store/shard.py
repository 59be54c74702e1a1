"""Build a shard's HDF5 file in memory.

HDF5 never touches the disk itself: on a full disk the library dies by signal and leaves rows of zeros behind. Serving
never parses HDF5 either: a shard's record says at which offsets the rows lie.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np

from bottleneck.schema import FORMAT, StoreSpec

_ALIGN = 4096


class ShardImage(NamedTuple):
    """The bytes of a shard's file, and where its arrays lie."""

    data: bytes
    features_offset: int
    content_offset: int


def build_shard(identity: str, spec: StoreSpec, keys: np.ndarray, features: np.ndarray) -> ShardImage:
    """Build the file of one shard.

    Contiguous and uncompressed, aligned to 4 KiB, fixed-length types only, no time stamps: equal rows give equal
    bytes, and a memory map of the file serves them.

    Parameters
    ----------
    identity : str
        The shard's id.
    spec : StoreSpec
    keys : numpy.ndarray
        (n, 32) uint8, n >= 1.
    features : numpy.ndarray
        (n, *spec.shape) of the recipe's storage dtype.

    Returns
    -------
    Image
    """
    import h5py

    buffer = io.BytesIO()
    # libver's lower bound stays "earliest": from v110 on the root group carries a time stamp.
    with h5py.File(
        buffer, "w", libver=("earliest", "v110"), alignment_threshold=_ALIGN, alignment_interval=_ALIGN
    ) as file:
        rows = file.create_dataset("features", data=np.ascontiguousarray(features), track_times=False)
        content = file.create_dataset("content", data=np.ascontiguousarray(keys), track_times=False)
        notes = {
            "about": "Bottleneck features: row i of 'features' belongs to the image file whose sha256 is row i of "
            "'content'. Made by the Python package bottleneck-features. A shard counts only beside its record, "
            "the .json of the same id.",
            "format": str(FORMAT),
            "shard": identity,
            "base": spec.base,
            "cut": spec.cut,
            "recipe": spec.recipe.fingerprint,
            "recipe_json": spec.recipe.canonical().decode("ascii"),
        }
        if spec.views is not None:
            notes["views_json"] = spec.views.canonical().decode("ascii")
            notes["about_views"] = (
                "These rows are of augmented views: the last two bytes of 'content' number the view (big-endian), "
                "the 30 before them are the first of the image file's sha256."
            )
        for name, text in notes.items():
            # Fixed-length strings: one flipped bit in variable-length data can hang the library.
            file.attrs[name] = np.bytes_(text.encode("utf-8"))
        features_offset, content_offset = rows.id.get_offset(), content.id.get_offset()
    return ShardImage(buffer.getvalue(), features_offset, content_offset)


def build_takeout(features: np.ndarray, keys: np.ndarray, texts: dict[str, list[bytes]]) -> bytes:
    """Build an HDF5 file for other tools, with a column a text."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("earliest", "v110")) as file:
        file.create_dataset("features", data=features, track_times=False)
        file.create_dataset("content", data=np.ascontiguousarray(keys), track_times=False)
        for name, values in texts.items():
            width = max([len(value) for value in values] or [1]) or 1
            file.create_dataset(name, data=np.array(values, f"S{width}"), track_times=False)
    return buffer.getvalue()
