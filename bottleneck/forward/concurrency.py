"""Tell whether two passes of one graph may run at once.

Its oneDNN convolution with a fused sum adds in place, where nothing else needs the other term any more. Where something
does (the convolution itself in ``conv(x) + x``, a later layer, whoever fetches it) the term is copied first, through
members of the kernel that every pass shares (``fuse_add_src_`` and ``fuse_add_dst_`` of mkl_conv_ops.cc; seen in
TensorFlow 2.21): two passes then copy to and from each other's memory, and free it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

_SUMS = ("Add", "AddV2", "AddN")

#: What may stand between a convolution and the sum that is fused with it; more than TensorFlow 2.21 fuses.
_BETWEEN = (
    *("BiasAdd", "Add", "AddV2", "Mul", "Cast", "Identity"),
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh"),
)

#: Their values lie in the memory of what they are given; and of two casts alike TensorFlow makes one.
_ALIASES = ("Identity", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "Cast")


def in_turn(function: Callable[[Any], Any], graph: Any) -> Callable[[Any], list[Any]]:
    """Call `function` one pass at a time where races are possible.

    Parameters
    ----------
    function : callable
        tf.Tensor to several.
    graph : tf.Graph
        Its own.

    Returns
    -------
    callable
        tf.Tensor to a list of tf.Tensor; safe from several threads.

    Examples
    --------
    >>> import tensorflow as tf
    >>> double = tf.function(lambda x: [2 * x], input_signature=[tf.TensorSpec([2])]).get_concrete_function()
    >>> in_turn(double, double.graph)(tf.constant([1.0, 2.0]))[0].numpy().tolist()
    [2.0, 4.0]
    """
    if not may_race(graph):
        return lambda pixels: list(function(pixels))
    turn = threading.Lock()

    def one_at_a_time(pixels: Any) -> list[Any]:
        with turn:
            return list(function(pixels))

    return one_at_a_time


def may_race(graph: Any) -> bool:
    """Whether a fused sum in `graph` still needs its other term.

    Told from the graph as it is before TensorFlow optimizes it, with more taken to be fused than is.

    Examples
    --------
    >>> import tensorflow as tf
    >>> kernel = tf.ones([1, 1, 3, 3])
    >>> def block(x):
    ...     return x + tf.nn.conv2d(x, kernel, 1, "SAME")
    ...
    >>> may_race(tf.function(block, input_signature=[tf.TensorSpec([1, 8, 8, 3])]).get_concrete_function().graph)
    True
    """
    order = _Order(graph)
    for operation in graph.get_operations():
        if operation.type not in _SUMS:
            continue
        terms = [term for term in operation.inputs if order.varies(term.op)]
        for convolved in terms:
            fused = _convolution(convolved.op, order)
            if fused and any(
                _is_needed(term, operation, fused, order) for term in terms if term is not convolved
            ):
                return True
    return False


class _Order:
    """The order of a graph's operations, as bits of numbers."""

    def __init__(self, graph: Any) -> None:
        self.fetched = {tensor.name for tensor in graph.outputs}
        self._number = {operation: at for at, operation in enumerate(graph.get_operations())}
        self._before: dict[Any, int] = {}
        # Listed in the order in which they were made: what an operation is given is there before it.
        for operation in self._number:
            bits = 0
            for given in operation.inputs:
                bits |= self._before.get(given.op, 0) | 1 << self._number[given.op]
            self._before[operation] = bits
        self._input = graph.inputs[0].op

    def is_before(self, one: Any, other: Any) -> bool:
        return bool(self._before[other] >> self._number[one] & 1)

    def varies(self, operation: Any) -> bool:
        return operation is self._input or self.is_before(self._input, operation)


def _convolution(operation: Any, order: _Order) -> list[Any]:
    """Follow `operation` back to its convolution, both included, or nothing."""
    passed = [operation]
    while passed[-1].type in _BETWEEN:
        given = [term.op for term in passed[-1].inputs if order.varies(term.op)]
        if len(given) != 1:
            return []
        passed += given
    return passed if passed[-1].type == "Conv2D" else []


def _is_needed(term: Any, sum_of: Any, fused: list[Any], order: _Order) -> bool:
    """Whether something besides `sum_of` may hold `term` by then."""
    while term.op.type in _ALIASES:
        term = term.op.inputs[0]
    for tensor, reader in _readers_of_memory(term):
        if reader is None:
            if tensor.name in order.fetched:
                return True
        elif reader is not sum_of and (reader in fused or not order.is_before(reader, sum_of)):
            return True
    return False


def _readers_of_memory(tensor: Any) -> Iterator[tuple[Any, Any]]:
    """List `tensor` and its aliases, each with its readers and None."""
    yield tensor, None
    for reader in tensor.consumers():
        if reader.type in _ALIASES:
            yield from _readers_of_memory(reader.outputs[0])
        else:
            yield tensor, reader
