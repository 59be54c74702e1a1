"""Cut a base at a layer that a person names.

A cut is a layer's name, a path through nested networks (`vgg16/block5_pool`), or `output`. The new network shares the
layers of the old one; nothing is copied.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from bottleneck.bases.graph import network_of
from bottleneck.errors import BaseError, UnknownName, UsageError
from bottleneck.schema import Pooling

OUTPUT = "output"

#: Of an output, batch first; None where it is open.
Shape = tuple[int | None, ...]


def layer_shapes(model: Any, prefix: str = "") -> dict[str, Shape | None]:
    """Map the path of each layer, at any depth, to its shape.

    In graph order; None where a layer has several outputs.
    """
    graph = network_of(model)
    if graph is None:
        return {}
    shapes: dict[str, Shape | None] = {}
    for operation in graph._operations:
        outputs = [t for node in _nodes(graph, operation) for t in node.outputs]
        path = prefix + operation.name
        shapes[path] = tuple(outputs[0].shape) if len(outputs) == 1 else None
        shapes |= layer_shapes(operation, path + "/")
    return shapes


def _nodes(graph: Any, operation: Any) -> list[Any]:
    # A layer may also have been called in another graph.
    inside = {id(node) for nodes in graph._nodes_by_depth.values() for node in nodes}
    return [node for node in operation._inbound_nodes if id(node) in inside]


def cut_at(model: Any, path: str, *, aliases: Iterable[str] = ()) -> tuple[Any, str]:
    """Cut `model` at `path`; return the network and the full path.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential with one input; a subclassed one only at ``output``.
    path : str
        ``output``, a layer's name, or names joined by ``/`` through nested networks.
    aliases : iterable of str
        Other names that the message about an unknown layer may offer.

    Returns
    -------
    keras.Model, str

    Raises
    ------
    UnknownName
        No such layer; lists the nearest with their output shapes.
    BaseError
        The layer is used more than once or has several outputs, or the model is no graph of layers.
    """
    import keras

    graph = network_of(model)
    if graph is None:
        raise BaseError(
            f"{model.name!r} is a subclassed model: it can be cut at {OUTPUT!r} only, not at {path!r}"
        )
    if path == OUTPUT:
        if len(graph._outputs) != 1:
            names = ", ".join(getattr(model, "output_names", []))
            raise BaseError(
                f"base {model.name!r} has {len(graph._outputs)} outputs ({names}); cut it at one layer"
            )
        return keras.Model(_one(graph._inputs), graph._outputs[0], name=model.name), _owner(graph)
    tensor = _tensor(model, path, path, aliases)
    return keras.Model(_one(graph._inputs), tensor, name=model.name), path


def _owner(graph: Any) -> str:
    name: str = graph._outputs[0]._keras_history.operation.name
    return name


def _tensor(model: Any, path: str, whole: str, aliases: Iterable[str]) -> Any:
    import keras

    graph = network_of(model)
    if graph is None:
        raise BaseError(
            f"cut {whole!r}: {model.name!r} is no graph of layers, so there is nothing inside it to cut at"
        )
    name, _, rest = path.partition("/")
    operation = next((o for o in graph._operations if o.name == name), None)
    if operation is None:
        raise _unknown(model, path, whole, aliases)
    nodes = _nodes(graph, operation)
    if len(nodes) > 1:
        raise BaseError(
            f"cut {whole!r}: layer {name!r} is used {len(nodes)} times, so its name does not say "
            "which output is meant; cut at a layer after it"
        )
    node = nodes[0]
    if not rest:
        if len(node.outputs) != 1:
            raise BaseError(
                f"cut {whole!r}: layer {name!r} has {len(node.outputs)} outputs; cut at a layer after it"
            )
        return node.outputs[0]
    inner = _tensor(operation, rest, whole, aliases)
    nested = network_of(operation)
    assert nested is not None
    # The piece of the nested network below the cut, called on what feeds the nested network: no layer is copied.
    piece = keras.Model(_one(nested._inputs), inner, name=operation.name)
    return piece(_one(node.input_tensors))


def _one(tensors: list[Any]) -> Any:
    # A list of one would make callers pass lists of one: Keras warns about any other structure.
    return tensors[0] if len(tensors) == 1 else tensors


def _unknown(model: Any, path: str, whole: str, aliases: Iterable[str]) -> UnknownName:
    import keras

    shapes = layer_shapes(model)
    prefix = whole[: len(whole) - len(path)]
    known = [*shapes, *aliases, OUTPUT] if not prefix else list(shapes)
    graph = network_of(model)
    operations = [] if graph is None else graph._operations
    opaque = [o.name for o in operations if isinstance(o, keras.Model) and network_of(o) is None]
    hint = f"{', '.join(opaque)}: subclassed, so it can be cut at its output only" if opaque else ""
    error = UnknownName("layer to cut at", whole, [prefix + k for k in known], hint)
    near = [n for n in error.nearest if n[len(prefix) :] in shapes]
    shown = (
        "; shapes: " + ", ".join(f"{n} {show_shape(shapes[n[len(prefix) :]])}" for n in near) if near else ""
    )
    error.args = (str(error) + shown,)
    return error


def show_shape(shape: Shape | None) -> str:
    """Write a shape for a person: without batch, ``?`` for open sizes.

    Examples
    --------
    >>> show_shape((None, 7, 7, 512)), show_shape((None, None, 64)), show_shape(None)
    ('(7, 7, 512)', '(?, 64)', '(several)')
    """
    if shape is None:
        return "(several)"
    inner = ", ".join("?" if extent is None else str(extent) for extent in shape[1:])
    return f"({inner}{',' if len(shape) == 2 else ''})"


def resolve_pooling(asked: Pooling | None, usual: Pooling, shape: Shape) -> Pooling:
    """Choose the pooling for a cut of this output shape.

    Maps and tokens can be pooled; flat rows cannot.

    Examples
    --------
    >>> resolve_pooling(None, "avg", (None, 7, 7, 512)), resolve_pooling("max", "avg", (None, 4096))
    ('avg', 'none')
    """
    if len(shape) == 2:
        return "none"
    pooling = usual if asked is None else asked
    if pooling != "none" and len(shape) not in (3, 4):
        raise UsageError(
            f"--pooling {pooling} takes maps (height, width, channels) or tokens (tokens, channels); "
            f"this cut gives {show_shape(shape)}; use --pooling none"
        )
    return pooling


def pool(tensor: Any, pooling: Pooling) -> Any:
    """Pool a map, or a sequence of tokens, to (n, channels)."""
    import keras

    if pooling == "none":
        return tensor
    rank = len(tensor.shape)
    kinds = {
        ("avg", 4): keras.layers.GlobalAveragePooling2D,
        ("max", 4): keras.layers.GlobalMaxPooling2D,
        ("avg", 3): keras.layers.GlobalAveragePooling1D,
        ("max", 3): keras.layers.GlobalMaxPooling1D,
    }
    return kinds[pooling, rank]()(tensor)


def row_shape(shape: Shape, pooling: Pooling, where: str) -> tuple[int, ...]:
    """Return the shape of one row; `BaseError` if images decide it.

    Examples
    --------
    >>> row_shape((None, 7, 7, 512), "avg", "vgg16"), row_shape((None, 7, 7, 512), "none", "vgg16")
    ((512,), (7, 7, 512))
    """
    inner = shape[-1:] if pooling != "none" else shape[1:]
    if any(extent is None or extent < 1 for extent in inner) or math.prod(e or 0 for e in inner) < 1:
        raise BaseError(
            f"{where}: a row would have the shape {show_shape((None, *inner))}; give --size, or another cut"
        )
    return tuple(int(extent) for extent in inner if extent is not None)
