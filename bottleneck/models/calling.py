"""Call a merged model in every way that a user does.

Each time the base must give what it gave before, and its variables must keep their values. The head is the user's to
train: its dropout and BatchNorm are awake in training mode, so there it is asked in inference mode about the features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from bottleneck.models.comparison import Outputs
from bottleneck.models.outputs import output_names, stages_model
from bottleneck.schema import Stillness

#: The layer of a merged model that is its base.
BASE = "base"

#: Images of each set that every way is tried on.
FEW = 4

#: Images that are sent one at a time.
_SINGLE = 2

#: A way to call: from pixels to `Outputs`.
Way = Callable[[np.ndarray], Outputs]


class CallResult(NamedTuple):
    """What a model gave in one way for one set of images."""

    way: str
    images: str
    outputs: Outputs


def call_every_way(
    model: Any, form: str, images: Mapping[str, np.ndarray]
) -> tuple[list[CallResult], Stillness]:
    """Call `model` in every way there is, the outer fit last.

    Parameters
    ----------
    model : keras.Model
        From `merge_model`, or loaded from a file.
    form : str
        Its name in the certificate.
    images : mapping of str to numpy.ndarray
        (n, height, width, 3) float32 in 0..255, by set; the first few of each are used.

    Returns
    -------
    list of CallResult, Stillness
    """
    base = model.get_layer(BASE)
    few = {name: pixels[:FEW] for name, pixels in images.items() if len(pixels)}
    # All at once: what a call costs a deep network is its layers, not these few images.
    pixels = np.concatenate(list(few.values()))
    before = [_hash(variable) for variable in base.variables]
    answers = [(way, call(pixels)) for way, call in _ways(model)]
    of_base = {id(variable) for variable in base.variables}
    with_head = [variable for variable in model.variables if id(variable) not in of_base]
    kept = [np.array(variable.numpy()) for variable in with_head]
    fit_around(model, pixels)
    # The head may learn from that; the question is whether the base is as it was.
    for variable, value in zip(with_head, kept, strict=True):
        variable.assign(value)
    answers.append(("called after an outer fit", _stages(model)(pixels)))
    called = [
        CallResult(way, name, part)
        for way, outputs in answers
        for name, part in _by_set(outputs, {name: len(pictures) for name, pictures in few.items()})
    ]
    return called, stillness(base, form, before)


def _by_set(outputs: Outputs, counts: Mapping[str, int]) -> Iterator[tuple[str, Outputs]]:
    start = 0
    for name, count in counts.items():
        part = {stage: values[start : start + count] for stage, values in outputs.named.items()}
        start += count
        # Calls with one image at a time answer for the first images only.
        if len(part["probabilities"]):
            yield name, Outputs.of(part)


def stillness(base: Any, form: str, before: list[bytes]) -> Stillness:
    """Compare the variables of `base` with what they were."""
    trainable = tuple(variable.path for variable in base.variables if variable.trainable)
    after = [_hash(variable) for variable in base.variables]
    moved = tuple(
        variable.path for variable, old, new in zip(base.variables, before, after, strict=True) if old != new
    )
    passed = not (trainable or moved)
    return Stillness(form=form, variables=len(before), trainable=trainable, moved=moved, passed=passed)


def _ways(model: Any) -> Iterator[tuple[str, Way]]:
    whole = _stages(model)
    yield "called", whole
    yield "called again", whole
    yield "called with one image at a time", lambda x: _one_at_a_time(whole, x)
    yield "called in training mode", _in_training(model)
    yield "called after training mode", whole


def _stages(model: Any) -> Way:
    stages = stages_model(model)
    # No `training`: as a user calls it, so that layers follow their own default.
    return lambda x: Outputs.of({name: np.asarray(part, np.float32) for name, part in stages(x).items()})


def _in_training(model: Any) -> Way:
    import keras

    middle = model.get_layer("features").output
    below = keras.Model(model.inputs[0], middle)
    head = keras.Model(middle, {name: model.get_layer(name).output for name in output_names(model)[1:]})

    def call(x: np.ndarray) -> Outputs:
        rows = below(x, training=True)
        answers = {"features": rows, **head(rows, training=False)}
        return Outputs.of({name: np.asarray(part, np.float32) for name, part in answers.items()})

    return call


def fit_around(model: Any, pixels: np.ndarray) -> None:
    """Train a network around `model` for one step, as a user might."""
    import keras

    image = keras.Input(tuple(model.inputs[0].shape)[1:])
    answers = keras.tree.flatten(model(image))
    flat = [keras.layers.Reshape((-1,))(answer) for answer in answers]
    value = keras.layers.Dense(1)(flat[0] if len(flat) == 1 else keras.layers.Concatenate()(flat))
    outer = keras.Model(image, value)
    # Adam moves every weight that it is given, however small its gradient.
    outer.compile(keras.optimizers.Adam(1e-2), "mse", jit_compile=False, run_eagerly=True)
    outer.fit(pixels, np.ones(len(pixels), np.float32), epochs=1, batch_size=len(pixels), verbose=0)


def _one_at_a_time(call: Way, x: np.ndarray) -> Outputs:
    parts = [call(x[i : i + 1]) for i in range(_SINGLE)]
    return Outputs.of({name: np.concatenate([part.named[name] for part in parts]) for name in parts[0].named})


def _hash(variable: Any) -> bytes:
    # As bytes: NumPy hands out no buffer of bfloat16.
    values = np.ascontiguousarray(variable.numpy()).reshape(-1).view(np.uint8)
    return hashlib.blake2b(values.data, digest_size=16).digest()
