"""Find the frozen prefix, and copy the network above it.

The rows at the end of the prefix never change while the layers above it train, so they can be computed once. The end
is one layer's output through which everything passes on its way from the image to the features.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bottleneck.bases.calibrate import seeded
from bottleneck.bases.graph import IMAGE, Network, Step, above, inference, needed, run_graph
from bottleneck.bases.inference_only import copy_without_randomness
from bottleneck.errors import BaseError


def prefix(network: Network, trained: Collection[int]) -> int:
    """Find the step that ends the prefix, or the image (-1).

    Parameters
    ----------
    network : Network
    trained : collection of int
        ``id`` of the operations that train.

    Returns
    -------
    int
        Of the steps that everything passes through and that nothing which trains lies below: the latest; where only
        steps without weights lead up to it, the one of these with the smallest rows.
    """
    steps = network.steps
    uses = Counter(id(step.operation) for step in steps)
    ends: list[int] = []
    for number, step in enumerate(steps):
        if id(step.operation) in trained:
            break  # what comes later and carries everything lies above it
        # A layer that is used twice cannot be named as a cut.
        if uses[id(step.operation)] == 1 and prefix_row_shape(step) and IMAGE not in needed(network, number):
            ends.append(number)
    if not ends:
        return IMAGE
    free = [ends[-1]]
    for number in reversed(ends[:-1]):
        if any(_has_weights(step.operation) for step in steps[number + 1 : free[-1] + 1]):
            break
        free.append(number)
    return min(free, key=lambda number: (math.prod(prefix_row_shape(steps[number])), -number))


def prefix_row_shape(step: Step) -> tuple[int, ...]:
    """Shape of a row of `step`; empty where no prefix ends."""
    if len(step.outputs) != 1 or step.dtype != "float32":
        return ()
    extents = tuple(step.outputs[0].shape)[1:]
    return () if any(extent is None or extent < 1 for extent in extents) else extents


def _has_weights(operation: Any) -> bool:
    return bool(getattr(operation, "weights", ()))


@dataclass(frozen=True, eq=False)
class Tail:
    """The network above a prefix, with layers of its own.

    Attributes
    ----------
    network : Network
        Its `image` stands for the rows of the prefix.
    layers : mapping of str to keras.layers.Layer
        Those with weights, by the path of the layer they are a copy of.
    originals : mapping of str to keras.layers.Layer
        The layers of the base under the same paths.
    shape : tuple of int
        Of one row that goes in.
    """

    network: Network
    layers: Mapping[str, Any]
    originals: Mapping[str, Any]
    shape: tuple[int, ...]

    def __call__(self, rows: Any) -> Any:
        """Run rows (n, *shape) up to the base's cut, in inference mode."""
        (found,) = run_graph(self.network, rows, inference)
        return found

    def give_back(self) -> None:
        """Put the weights into the base that this is a part of."""
        for path, layer in self.layers.items():
            self.originals[path].set_weights(layer.get_weights())


def tail(network: Network, end: int, paths: Mapping[int, str]) -> Tail:
    """Copy the steps above step `end`, with the same weights.

    Dropout and noise are left out.

    Parameters
    ----------
    network : Network
        Of the base up to its cut.
    end : int
        As `prefix` gives it; `IMAGE` copies the whole network.
    paths : mapping of int to str
        Path of each operation by its ``id``.

    Raises
    ------
    BaseError
        A layer cannot be rebuilt.
    """
    import keras

    part = above(network, end)
    shape = tuple(int(extent) for extent in part.image.shape[1:])
    # Initial weights are drawn and replaced; the process's own random state stays as it is.
    with seeded(0):
        operations = {id(step.operation): step.operation for step in part.steps}
        copies = {key: _copied(operation) for key, operation in operations.items()}
        again = replace(
            part, steps=tuple(replace(step, operation=copies[id(step.operation)]) for step in part.steps)
        )
        run_graph(again, keras.ops.zeros((1, *shape), part.image.dtype), inference)  # which builds them
    layers, originals = {}, {}
    for key, original in operations.items():
        if _has_weights(original):
            path = paths[key]
            layers[path], originals[path] = copies[key], original
            layers[path].set_weights(original.get_weights())
    return Tail(again, layers, originals, shape)


def _copied(operation: Any) -> Any:
    try:
        return copy_without_randomness(operation)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise BaseError(
            f"layer {operation.name!r} cannot be rebuilt without its dropout: {error}; "
            "give custom layers get_config and from_config"
        ) from error
