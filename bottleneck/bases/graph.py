"""A network as a flat list of steps, whatever its layer names.

Keras keeps a network as nodes: one call of one operation on tensors that earlier nodes made. `walk` follows them back
from the output, opens nested networks, and lists each step after those that feed it. The order depends on the wiring
alone (depth first, arguments in call order), never on layer names or on what else was built in the process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from bottleneck.errors import BaseError

#: `Ref.step` of the image itself.
IMAGE = -1


@dataclass(frozen=True)
class Ref:
    """Output `output` of step `step`; step -1 is the image."""

    step: int
    output: int = 0


@dataclass(frozen=True, eq=False)
class Step:
    """One call of an operation."""

    operation: Any
    #: (args, kwargs) as recorded, with a `Ref` in place of each tensor.
    arguments: tuple[Any, Any]
    refs: tuple[Ref, ...]
    #: dtype of the first output, as text.
    dtype: str
    #: The symbolic tensors that it gave when the network was wired.
    outputs: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)
class Network:
    """The steps from the image to the outputs."""

    #: The symbolic input tensor.
    image: Any
    steps: tuple[Step, ...]
    outputs: tuple[Ref, ...]

    @property
    def output(self) -> Ref:
        """The one output of most networks."""
        (only,) = self.outputs
        return only


class _Frame:
    """One call of a nested network, whose inputs stand for real tensors."""

    def __init__(self, network: Any, parent: _Frame | None, node: Any) -> None:
        self.network, self.parent, self.node = network, parent, node
        self.inputs = {id(tensor): i for i, tensor in enumerate(network._inputs)}
        self.children: dict[int, _Frame] = {}

    def child(self, network: Any, node: Any) -> _Frame:
        if id(node) not in self.children:
            if len(node.input_tensors) != len(network._inputs):
                raise BaseError(
                    f"nested network {node.operation.name!r} takes {len(network._inputs)} inputs and is called on "
                    f"{len(node.input_tensors)}; cut the base below it"
                )
            self.children[id(node)] = _Frame(network, self, node)
        return self.children[id(node)]


def network_of(operation: Any) -> Any | None:
    """Return the graph inside a Functional or Sequential network, else None.

    A subclass that overrides `call` counts as one opaque layer.
    """
    import keras
    from keras.src.models.functional import Functional  # Keras exports no public name for this class

    if isinstance(operation, keras.Sequential) and type(operation).call is keras.Sequential.call:
        return operation._functional
    if isinstance(operation, Functional) and type(operation).call is Functional.call:
        return operation
    return None


def walk(model: Any) -> Network:
    """List the steps of a network with one input and one output.

    Raises
    ------
    BaseError
        When it has several inputs or outputs, or is no graph of layers.
    """
    root = network_of(model)
    if root is None or len(root._inputs) != 1 or len(root._outputs) != 1:
        raise BaseError(f"{model.name!r} is no graph of layers with one input and one output")
    return steps_of(root)


def steps_of(root: Any) -> Network:
    """List the steps of a network from `network_of` with one input.

    Raises
    ------
    BaseError
        A network inside it is called on another number of inputs than it takes.
    """
    import keras

    top = _Frame(root, None, None)
    index: dict[tuple[int, int], int] = {}
    steps: list[Step] = []
    keep_alive: list[_Frame] = [top]  # keys are id()s, which must not be reused

    def locate(frame: _Frame, tensor: Any) -> tuple[_Frame, Any, int] | None:
        # Down into nested networks and up out of them until an operation that is no network has made the tensor.
        while True:
            position = frame.inputs.get(id(tensor))
            if position is not None:
                if frame.parent is None:
                    return None
                tensor = frame.node.input_tensors[position]
                frame = frame.parent
                continue
            operation, node_index, output = tensor._keras_history
            node = operation._inbound_nodes[node_index]
            inner = network_of(operation)
            if inner is None:
                return frame, node, output
            frame = frame.child(inner, node)
            keep_alive.append(frame)
            tensor = inner._outputs[output]

    def ref(frame: _Frame, tensor: Any) -> Ref:
        source = locate(frame, tensor)
        return Ref(IMAGE) if source is None else Ref(index[id(source[0]), id(source[1])], source[2])

    last = [locate(top, output) for output in reversed(root._outputs)]
    stack: list[tuple[_Frame, Any, bool]] = [(one[0], one[1], False) for one in last if one is not None]
    while stack:
        frame, node, ready = stack.pop()
        key = (id(frame), id(node))
        if key in index:
            continue
        if not ready:
            stack.append((frame, node, True))
            for tensor in reversed(node.input_tensors):
                feeding = locate(frame, tensor)
                if feeding is not None and (id(feeding[0]), id(feeding[1])) not in index:
                    stack.append((feeding[0], feeding[1], False))
            continue
        refs: list[Ref] = []

        def replaced(value: Any, frame: _Frame = frame, refs: list[Ref] = refs) -> Any:
            if not isinstance(value, keras.KerasTensor):
                return value
            refs.append(ref(frame, value))
            return refs[-1]

        arguments = keras.tree.map_structure(replaced, (node.arguments.args, node.arguments.kwargs))
        dtype = str(node.outputs[0].dtype) if node.outputs else "none"
        index[key] = len(steps)
        steps.append(Step(node.operation, arguments, tuple(refs), dtype, tuple(node.outputs)))
    return Network(root._inputs[0], tuple(steps), tuple(ref(top, output) for output in root._outputs))


def needed(network: Network, end: int = IMAGE) -> set[int]:
    """Return the steps that the outputs need when step `end` is given.

    `IMAGE` is among them where `end` is not enough.
    """
    steps: set[int] = set()
    waiting = [ref.step for ref in network.outputs]
    while waiting:
        number = waiting.pop()
        if number == end or number in steps:
            continue
        steps.add(number)
        if number != IMAGE:
            waiting.extend(ref.step for ref in network.steps[number].refs)
    return steps


def above(network: Network, end: int = IMAGE) -> Network:
    """Return the part above step `end`, which becomes its image."""
    import keras

    numbers = sorted(needed(network, end))
    place = {number: position for position, number in enumerate(numbers)} | {end: IMAGE}

    def moved(ref: Any) -> Any:
        return Ref(place[ref.step], ref.output) if isinstance(ref, Ref) else ref

    steps = tuple(
        replace(
            step,
            arguments=keras.tree.map_structure(moved, step.arguments),
            refs=tuple(moved(ref) for ref in step.refs),
        )
        for step in (network.steps[number] for number in numbers)
    )
    image = network.image if end == IMAGE else network.steps[end].outputs[0]
    return Network(image, steps, tuple(moved(ref) for ref in network.outputs))


def run_graph(network: Network, image: Any, call: Callable[..., Any]) -> list[Any]:
    """Send `image` through the steps and return the outputs.

    A value is dropped after its last use, so a network of any depth holds only its widest cut in memory.

    Parameters
    ----------
    network : Network
    image : tensor
        (n, height, width, channels), preprocessed.
    call : callable
        Computes a step: ``call(operation, *args, **kwargs)``.

    Returns
    -------
    list of tensor
        One for each of the network's outputs.
    """
    import keras

    uses = Counter(r.step for step in network.steps for r in step.refs)
    uses.update(r.step for r in network.outputs)
    values: dict[int, list[Any]] = {IMAGE: [image]}
    for number, step in enumerate(network.steps):

        def filled(value: Any) -> Any:
            return values[value.step][value.output] if isinstance(value, Ref) else value

        args, kwargs = keras.tree.map_structure(filled, step.arguments)
        values[number] = keras.tree.flatten(call(step.operation, *args, **kwargs))
        for r in step.refs:
            uses[r.step] -= 1
            if not uses[r.step]:
                del values[r.step]
    return [values[r.step][r.output] for r in network.outputs]


def inference(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """Call `operation` in inference mode, whatever its recorded `training`."""
    if "training" in getattr(operation, "_call_context_args", ()):
        kwargs = {**kwargs, "training": False}
    return operation(*args, **kwargs)
