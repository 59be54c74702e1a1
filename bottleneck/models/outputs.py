"""Trace the merged model as TensorFlow functions, for other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bottleneck.schema import Score

#: The named outputs of every artefact, in this order.
STAGES = ("features", "logits", "probabilities")

#: The named output of a model that was merged with this score.
ENERGY: Score = "energy"

#: The named input for pixels.
IMAGE = "image"


def output_names(model: Any) -> tuple[str, ...]:
    """Name the outputs of a merged model: its stages and any score."""
    scored = any(layer.name == ENERGY for layer in model.layers)
    return (*STAGES, ENERGY) if scored else STAGES


def answer_names(model: Any) -> tuple[str, ...]:
    """Name the outputs that answer: probabilities and any score."""
    return output_names(model)[2:]


def stages_model(model: Any) -> Any:
    """Build the Keras model from pixels to a dict of all outputs."""
    import keras

    return keras.Model(model.inputs[0], {name: model.get_layer(name).output for name in output_names(model)})


def stages_function(model: Any, batch: int | None) -> Any:
    """Trace the function from pixels to all stages.

    Parameters
    ----------
    model : keras.Model
        From `merge_model`.
    batch : int or None
        Images of each call; None for any number.

    Returns
    -------
    tf.types.experimental.ConcreteFunction
        From ``image`` (batch, height, width, 3) float32 to a dict by the names of `output_names`.
    """
    import tensorflow as tf

    names, stages = output_names(model), stages_model(model)
    spec = tf.TensorSpec((batch, *model.inputs[0].shape[1:]), tf.float32, name=IMAGE)

    @tf.function(input_signature=[spec], autograph=False)  # type: ignore[untyped-decorator]
    def run(image: Any) -> dict[str, Any]:
        answers = stages(image, training=False)
        # Named here, since formats that know only graphs know outputs by their nodes' names.
        return {name: tf.identity(tf.cast(answers[name], tf.float32), name=name) for name in names}

    return run.get_concrete_function()


def save_model(path: Path, model: Any, signatures: dict[str, Any]) -> None:
    """Write a SavedModel of these signatures, each weight once.

    Keras' own export keeps every weight twice: in the layers that it saves too, and in the functions.
    """
    import tensorflow as tf

    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    tf.saved_model.save(module, str(path), signatures=signatures)


def frozen_function(model: Any) -> Any:
    """Trace `stages_function` for any number of images, weights as constants."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(stages_function(model, None))
