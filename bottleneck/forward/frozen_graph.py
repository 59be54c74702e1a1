"""Freeze the features model: its variables become constants of a graph.

What lies around a convolution is folded into it first (`folding`); TensorFlow then fuses it with bias, sum and
activation, which it cannot do with variables. Reduced precision is a rewriting of this one graph: the option of the
same name is global to the process, and changes functions that were traced before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bottleneck.bases.graph import inference, network_of, run_graph, steps_of
from bottleneck.errors import NotReducible
from bottleneck.forward.concurrency import in_turn
from bottleneck.forward.fold_batchnorm import folded
from bottleneck.schema import Precision

#: Part of the numeric environment, raised when bits may change.
IMPLEMENTATION = "frozen graph 4"

#: Rewriters of TensorFlow's graph optimizer, and the type that they bring into the graph.
_REWRITERS = {
    "bfloat16": ("auto_mixed_precision_onednn_bfloat16", "DT_BFLOAT16"),
    "float16": ("auto_mixed_precision", "DT_HALF"),
}

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
#: What TensorFlow makes part of a convolution.
_SUMS, _ACTIVATIONS = ("BiasAdd", "AddV2"), ("Relu", "Relu6")

#: How many convolutions next to the pixels may stay float32 in bfloat16. Eight bits round pixels and first kernels
#: alike wherever a picture is flat, and pooling does not average that out: of SqueezeNet's features of 1,797 digits
#: at 96 pixels, 159 had a centred cosine below 0.999 with all in bfloat16, one with the first convolution kept, none
#: with two. The last three instead changed next to nothing.
_KEPT = 2

#: A GraphDef is a protocol buffer, which cannot pass 2 GiB.
_MOST_BYTES = (1 << 31) - (1 << 24)


def fits(model: Any) -> bool:
    """Whether the weights of `model` can be constants of a graph."""
    size: int = sum(
        weight.value.dtype.size * int(weight.value.shape.num_elements()) for weight in model.weights
    )
    return size < _MOST_BYTES


def has_batchnorm(model: Any) -> bool:
    """Whether `model` has BatchNormalization, which constants let fold.

    Without any the graph that has variables gives the same bits at the same speed, and weights are not copied: VGG16
    starts 0.8 s sooner and takes 0.8 GB less.
    """
    return any(weight.name == "moving_variance" for weight in model.weights)


def freeze_graph(model: Any, shape: tuple[int, ...], precision: Precision) -> Callable[[Any], list[Any]]:
    """Freeze `model` at one input shape, in inference mode.

    Parameters
    ----------
    model : keras.Model
        A graph of layers with one input and any number of outputs; weights that `fits`.
    shape : tuple of int
        (batch, height, width, channels).
    precision : {"float32", "bfloat16", "float16"}
        Of the operations that allow it; pixels and rows stay float32.

    Returns
    -------
    callable
        tf.Tensor of that shape, float32, to a list of tf.Tensor, float32: one for each output.

    Raises
    ------
    NotReducible
        The graph has nothing that could be computed in this precision on this machine.

    Examples
    --------
    >>> (rows,) = freeze_graph(model, (32, 96, 96, 3), "float32")(pixels)  # doctest: +SKIP
    """
    frozen = _traced(model, shape)
    if precision != "float32":
        frozen = _rewritten(frozen, precision)
    return in_turn(frozen, frozen.graph)


def _traced(model: Any, shape: tuple[int, ...]) -> Any:
    """Trace `model` with constants in the place of its variables.

    TensorFlow's own conversion, of a graph that has variables, takes twice as long and copies the weights some times
    more; it is left for variables that Keras does not know of.
    """
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    network = folded(steps_of(network_of(model)))
    operations = {id(step.operation): step.operation for step in network.steps}.values()
    weights = {id(weight): weight for one in operations for weight in getattr(one, "weights", ())}
    values = [(weight, weight.numpy()) for weight in weights.values()]

    def rows(pixels: Any) -> list[Any]:
        constants = [(weight, tf.constant(value)) for weight, value in values]
        with keras.StatelessScope(state_mapping=constants):
            outputs = run_graph(network, pixels, inference)
        return [tf.cast(part, tf.float32) for part in outputs]

    signature = [tf.TensorSpec(shape, tf.float32)]
    traced = tf.function(rows, input_signature=signature).get_concrete_function()
    return convert_variables_to_constants_v2(traced) if traced.captured_inputs else traced


def _rewritten(frozen: Any, precision: Precision) -> Any:
    """Rewrite `frozen` in `precision` where TensorFlow holds that safe."""
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
    from tensorflow.python.grappler import tf_optimizer

    rewriter, brought = _REWRITERS[precision]
    graph = meta_graph_pb2.MetaGraphDef(graph_def=frozen.graph.as_graph_def(add_shapes=True))
    kept = _next_to_pixels(frozen.graph) if precision == "bfloat16" else []
    # What is fetched is left as it is.
    fetched = graph.collection_def["train_op"].node_list.value
    fetched.extend(tensor.name for tensor in [*frozen.outputs, *kept])
    config = config_pb2.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    # Nothing else: TensorFlow folds constants when it first runs the graph, and folding them here as well would make
    # weights of bfloat16, which take seconds to bring back into Python's graph, for the same speed.
    rewriting.optimizers.append(rewriter)
    setattr(rewriting, rewriter, rewriter_config_pb2.RewriterConfig.ON)
    rewriting.min_graph_nodes = -1  # small graphs too
    definition = tf_optimizer.OptimizeGraph(config, graph)
    kind = tf.dtypes.bfloat16 if brought == "DT_BFLOAT16" else tf.dtypes.float16
    if not any(_computes_in(node, kind.as_datatype_enum) for node in definition.node):
        raise NotReducible(
            f"--precision {precision}: TensorFlow finds nothing in this base that it could compute so on this machine; "
            "use --precision float32"
        )

    def rows(pixels: Any) -> Any:
        given, wanted = {frozen.inputs[0].name: pixels}, [tensor.name for tensor in frozen.outputs]
        return tf.import_graph_def(definition, input_map=given, return_elements=wanted, name="")

    signature = [tf.TensorSpec(frozen.inputs[0].shape, tf.float32)]
    return tf.function(rows, input_signature=signature).get_concrete_function()


def _computes_in(node: Any, kind: int) -> bool:
    # Asking a node for an attribute that it has not gives it an empty one.
    return node.op not in ("Cast", "Const") and "T" in node.attr and bool(node.attr["T"].type == kind)


def _next_to_pixels(graph: Any) -> list[Any]:
    """Find the first convolutions, which stay float32 where cheap.

    By what lies next to the pixels alone, so that it is the same at every cut. With bias and activation, which are part
    of a convolution in one type alone.
    """
    convolutions = [operation for operation in graph.get_operations() if operation.type in _CONVOLUTIONS]
    near = convolutions[:_KEPT]
    kept = [one for one in near if _multiplications(one) <= _multiplications(near[0])]
    return [part.outputs[0] for one in kept for part in _with_activation(one)]


def _with_activation(operation: Any) -> Iterator[Any]:
    """Give `operation` with the bias and activation that read it."""
    yield operation
    for reader in operation.outputs[0].consumers():
        if reader.type in _ACTIVATIONS or (reader.type in _SUMS and _is_bias(reader)):
            yield from _with_activation(reader)


def _is_bias(sum_of: Any) -> bool:
    channels = sum_of.outputs[0].shape[-1]
    return any(term.shape.num_elements() == channels for term in sum_of.inputs)


def _multiplications(convolution: Any) -> int:
    kernel, values = convolution.inputs[1].shape, convolution.outputs[0].shape.num_elements()
    if values is None or not kernel.is_fully_defined():
        return 0
    # The last axis of a kernel is of outputs; the last two are, where each channel has its own.
    summed = kernel[:-1] if convolution.type == "Conv2D" else kernel[:-2]
    return int(values * summed.num_elements())
