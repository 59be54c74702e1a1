"""The blocks of a built base, by the pattern that its catalog row gives."""

from __future__ import annotations

import re
from typing import Any

from bottleneck.bases.graph import network_of
from bottleneck.errors import BaseError


def blocks_of(model: Any, pattern: str) -> list[tuple[str, list[str]]]:
    """The blocks of `model` from the image upwards, each with its layers in graph order.

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
