"""Load a run's base and head, and merge them into one `keras.Model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bottleneck import runs
from bottleneck.bases.custom import foreign
from bottleneck.bases.cut import pool
from bottleneck.bases.inference_only import freeze_base
from bottleneck.bases.load import LoadedBase, load_base
from bottleneck.bases.preprocess import apply
from bottleneck.contracts import Head
from bottleneck.errors import BaseError
from bottleneck.forward.keras_forward import KerasForward, batch_for, prepare_process
from bottleneck.models.calling import BASE
from bottleneck.models.energy import energy_output
from bottleneck.schema import Cache, Score
from bottleneck.store.read import Store, open_store


@dataclass(frozen=True, eq=False)
class RunModel:
    """A run's base and head, loaded.

    Attributes
    ----------
    folder : RunFolder
    base : LoadedBase
        As it was when the run was trained.
    forward : KerasForward
        The forward pass of the base, in float32.
    head : Head
    store : Store
    """

    folder: runs.RunFolder
    base: LoadedBase
    forward: KerasForward
    head: Head
    store: Store


def load_run_model(folder: runs.RunFolder, cache: Cache) -> RunModel:
    """Load a run's base, head and store.

    Raises
    ------
    HeadError
        The head was made on another recipe, shape or class list than the run's.
    BaseError
        The base is not the one that the run's features came from.
    """
    run = folder.run
    head = folder.head()
    prepare_process()
    base = load_base(run.request, cache)
    runs.check_base(run, base.spec)
    # The merged model computes in float32, so the reference does too.
    forward = KerasForward([base], batch_for(run.request, cache), "float32")
    return RunModel(folder, base, forward, head, open_store(cache, forward.spec))


def merge_model(base: LoadedBase, head: Head, score: Score | None = None) -> Any:
    """Put a fitted head back on its base.

    The base is rebuilt frozen: no dropout or noise can switch on and no moving statistic can move, whatever
    ``training=`` an outer call passes on (Keras 3 hands the outer value down).

    Parameters
    ----------
    base : LoadedBase
    head : Head
        Fitted on this base's features.
    score : {"energy"}, optional
        A second output that says how little the head knows an image: see `models.energy`.

    Returns
    -------
    keras.Model
        From (n, height, width, 3) pixels in 0..255 (uint8 or float) at the base's size to (n, k) probabilities;
        with a score, to a dict of ``probabilities`` and ``energy`` (n,). Layers ``features``, ``logits`` and
        ``probabilities`` name the stages.

    Raises
    ------
    BaseError
        The base holds layers of its own making, which could not be loaded without their code, or layers that would not
        stay frozen.
    """
    import keras

    strangers = foreign(base.model)
    if strangers:
        raise BaseError(
            f"the base {base.name} holds layers that are not Keras' own ({', '.join(strangers)}): a merged file would "
            "load only beside their code. Rebuild the base from stock layers, or keep using the run with `predict`"
        )
    pixels = base.spec.recipe.pixels
    image = keras.Input((pixels.height, pixels.width, 3), name="image")
    x = apply(image, base.spec.recipe.preprocessing)
    frozen = freeze_base(base.model)
    # A base may be called anything, also like one of the layers around it.
    frozen.name = BASE
    x = frozen(x)
    x = pool(x, base.spec.recipe.pooling)
    x = keras.layers.Identity(name="features")(x)
    *below, softmax = head.layers()
    for layer in below:
        x = layer(x)
    answer = softmax(x)
    answers = answer if score is None else {softmax.name: answer, score: energy_output(x)}
    return keras.Model(image, answers, name="bottleneck_merged")
