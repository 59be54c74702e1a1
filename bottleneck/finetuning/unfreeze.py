"""Choose the layers of a base that train, by name.

A base is a row of units, from the image upwards: the blocks of the catalog where it has them, else its layers that
have weights to train. `top:N` counts units from the top. BatchNormalization never trains here, so it makes no unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bottleneck.bases.graph import network_of
from bottleneck.bases.layer_names import blocks_of
from bottleneck.errors import BaseError, UnknownName, UsageError
from bottleneck.schema import TuneSettings, TuneStage

#: What the head is called where rates are named.
HEAD = "head"


@dataclass(frozen=True)
class Unit:
    """A block, or a layer where a base has no blocks.

    Attributes
    ----------
    name : str
    layers : tuple of str
        Paths of the layers in it that can train; at least one.
    """

    name: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Choices:
    """What of a base can train, and under which names.

    Attributes
    ----------
    units : tuple of Unit
        From the image upwards.
    blocks : bool
        Whether these are blocks.
    frozen : frozenset of str
        Paths of the layers that never train: no weights, or BatchNormalization.
    """

    units: tuple[Unit, ...]
    blocks: bool
    frozen: frozenset[str]

    @property
    def kind(self) -> str:
        """What a unit is, for messages."""
        return "block" if self.blocks else "layer"

    def chosen(self, stage: TuneStage) -> frozenset[str]:
        """Paths of the layers that `stage` sets free.

        Raises
        ------
        UnknownName
            No such block or layer; lists the nearest.
        UsageError
            More units than there are, or a layer that has nothing to train.
        """
        found: set[str] = set()
        for name in stage.unfreeze:
            found.update(self._named(name, stage.top))
        return frozenset(found)

    def _named(self, name: str, top: int) -> Iterator[str]:
        if name == "all" or name.startswith("top:"):
            if top > len(self.units):
                names = ", ".join(unit.name for unit in self.units)
                raise UsageError(
                    f"--unfreeze {name}: the base has {len(self.units)} {self.kind}s with weights to train ({names}); "
                    "use a smaller number, or all"
                )
            units = self.units if name == "all" else self.units[len(self.units) - top :]
            for unit in units:
                yield from unit.layers
            return
        yield from self.named(name, "--unfreeze")

    def named(self, name: str, option: str) -> tuple[str, ...]:
        """Find the layers that a block's, layer's or network's name means."""
        blocks = {unit.name: unit.layers for unit in self.units}
        if name in blocks:
            return blocks[name]
        paths = [path for unit in self.units for path in unit.layers]
        within = tuple(path for path in paths if path == name or path.startswith(name + "/"))
        if within:
            return within
        if any(path == name or path.startswith(name + "/") for path in self.frozen):
            raise UsageError(
                f"{option} {name}: this layer has no weights to train (BatchNormalization stays frozen); "
                f"name a {self.kind}: {', '.join(unit.name for unit in self.units)}"
            )
        raise UnknownName("block or layer to train", name, [*blocks, *paths], "or top:N, or all")

    def rates(self, trained: frozenset[str], settings: TuneSettings) -> tuple[dict[str, float], float]:
        """The rate of each layer that trains, and the head's.

        The highest unit that trains has `rate` times `block_decay`, each one below it another `block_decay` less;
        what `rates` names has that rate where it trains.
        """
        found: dict[str, float] = {}
        rate = settings.rate
        for unit in reversed(self.units):
            layers = [path for path in unit.layers if path in trained]
            if layers:
                rate *= settings.block_decay
                found.update(dict.fromkeys(layers, rate))
        for name, value in settings.rates.items():
            if name != HEAD:
                found.update((path, value) for path in self.named(name, "--rate") if path in trained)
        return found, settings.rates.get(HEAD, settings.rate)

    def check_rates(self, trained: frozenset[str], settings: TuneSettings) -> None:
        """Raise `UsageError` where `rates` names a layer that stays frozen."""
        for name, value in settings.rates.items():
            if name != HEAD and not trained & set(self.named(name, "--rate")):
                raise UsageError(f"--rate {name}={value:g}: {name} is not unfrozen; add it to --unfreeze")


def choices(model: Any, pattern: str) -> Choices:
    """What of `model` can train.

    Parameters
    ----------
    model : keras.Model
        A base up to its cut, Functional or Sequential.
    pattern : str
        Its block pattern; empty for a user's own model, whose units are its layers with weights.

    Returns
    -------
    Choices

    Raises
    ------
    BaseError
        Nothing in it can train.
    """
    able = {path: can_train(layer) for path, layer in leaves(model)}
    units: list[Unit] = []
    if pattern:
        for name, members in _blocks(model, pattern):
            inside = [
                path
                for path, can in able.items()
                if can and any(path == member or path.startswith(member + "/") for member in members)
            ]
            if inside:
                units.append(Unit(name, tuple(inside)))
    blocks = bool(units)
    if not blocks:
        units = [Unit(path, (path,)) for path, can in able.items() if can]
    if not units:
        raise BaseError(f"{model.name!r} has no weights that could train: there is nothing to fine-tune")
    return Choices(tuple(units), blocks, frozenset(path for path, can in able.items() if not can))


def _blocks(model: Any, pattern: str) -> Sequence[tuple[str, list[str]]]:
    try:
        return blocks_of(model, pattern)
    except BaseError:  # cut below the first block: the layers are counted instead
        return []


def leaves(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield each leaf layer of `model` with its path, in graph order."""
    import keras

    for path, operation in paths(model):
        if isinstance(operation, keras.layers.Layer) and network_of(operation) is None:
            yield path, operation


def paths(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield each operation of `model` once, with its path.

    The path is the one a cut would name it by; the order is the graph's.
    """
    seen: set[int] = set()

    def visit(network: Any, before: str) -> Iterator[tuple[str, Any]]:
        graph = network_of(network)
        for operation in () if graph is None else graph._operations:
            if id(operation) not in seen:
                seen.add(id(operation))
                yield before + operation.name, operation
                yield from visit(operation, f"{before}{operation.name}/")

    return visit(model, "")


def can_train(layer: Any) -> bool:
    """Whether `layer` or a layer inside it has weights to train.

    Those of BatchNormalization may not; nor may weights that no training changes, as the mean of a `Normalization`.
    """
    return any(
        bool(inner._trainable_variables) and not is_batch_norm(inner)
        for inner in layer._flatten_layers(include_self=True, recursive=True)
    )


def is_batch_norm(layer: Any) -> bool:
    """Whether `layer` is a BatchNormalization."""
    import keras

    return isinstance(layer, keras.layers.BatchNormalization)


def unfreeze(layers: Mapping[str, Any], trained: frozenset[str]) -> list[tuple[str, Any]]:
    """Set `trainable` of every layer; return the variables that train, by path.

    Whatever `trainable` says of a network above them: parents hand theirs down when it is set, so the leaves are set
    last, and each BatchNormalization after everything else.
    """
    found: list[tuple[str, Any]] = []
    for path, layer in layers.items():
        layer.trainable = path in trained
        for inner in layer._flatten_layers(include_self=True, recursive=True):
            if is_batch_norm(inner):
                inner.trainable = False
        found += [(path, variable) for variable in layer.trainable_variables]
    return found
