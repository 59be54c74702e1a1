"""Layer names: fresh ones for each network, and the blocks they form.

Keras numbers unnamed layers through the whole process: the second InceptionV3 has `conv2d_94` where the first has
`conv2d`. A cut such as `activation_17` must mean one layer, so builders run with counters of their own.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bottleneck.bases.graph import network_of
from bottleneck.errors import BaseError


@contextmanager
def fresh_names() -> Iterator[None]:
    """Number unnamed layers from zero inside; restore the process's counters afterwards."""
    if "keras" not in sys.modules:
        # Nothing has been named yet; and what is called inside may do without Keras altogether.
        yield
        return
    # Keras has no public way to set its name counters aside without clearing the whole session.
    from keras.src.backend.common import global_state

    kept = global_state.get_global_attribute("object_name_uids")
    global_state.set_global_attribute("object_name_uids", defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", kept)


def blocks_of(model: Any, pattern: str) -> list[tuple[str, list[str]]]:
    """List the blocks of `model` from the image upwards, with their layers.

    The last layer of each value of the pattern's group ends a block; what lies between two ends belongs to the upper
    one, and what follows the last end to the last block, so every layer is in exactly one.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential.
    pattern : str
        Regular expression with one group, matched against whole layer names.

    Returns
    -------
    list of (str, list of str)

    Raises
    ------
    BaseError
        No layer matches.
    """
    graph = network_of(model)
    if graph is None:
        raise BaseError(f"{model.name!r} is a subclassed model: it has no blocks")
    # Bare operations count: the sums that end ConvNeXt's blocks are some.
    names = [operation.name for operation in graph._operations]
    ends: dict[str, int] = {}
    for position, name in enumerate(names):
        match = re.fullmatch(pattern, name)
        if match:
            ends[match.group(1)] = position
    if not ends:
        raise BaseError(f"no layer of {model.name!r} matches the block pattern {pattern!r}")
    blocks: list[tuple[str, list[str]]] = []
    start = 0
    for block, end in sorted(ends.items(), key=lambda item: item[1]):
        blocks.append((block, names[start : end + 1]))
        start = end + 1
    blocks[-1][1].extend(names[start:])
    return blocks
