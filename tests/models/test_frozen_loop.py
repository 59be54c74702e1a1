"""A head trained on the cache, and the same head trained on the frozen network in the loop: one course of losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bottleneck
from bottleneck import runs
from bottleneck.bases.load import load_base
from bottleneck.forward.keras_forward import KerasForward, batch_for
from bottleneck.models.merge import merge_model
from bottleneck.pipeline.session import cache_at
from bottleneck.store.batches import epoch_order
from tests.models.tiny_network import PREPROCESSING, save_network, worker_here, write_patterns

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("worker_here")]
__all__ = ["worker_here"]

EPOCHS = 3


def plain_losses(
    network: Any, layers: list[Any], pixels: np.ndarray, codes: np.ndarray, batch: int
) -> list[float]:
    """What anybody would write: the whole network in training mode, the new layers learn; mean loss of each epoch."""
    import keras
    import tensorflow as tf

    optimizer = keras.optimizers.RMSprop(1e-3)
    learning = [variable for layer in layers for variable in layer.trainable_variables]
    losses = []
    for epoch in range(1, EPOCHS + 1):
        order, total = epoch_order(0, epoch, len(pixels)), 0.0
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            with tf.GradientTape() as tape:
                value = network(pixels[chosen], training=True)
                for layer in layers:
                    value = layer(value, training=True)
                loss = tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(labels=codes[chosen], logits=value)
                )
            optimizer.apply(tape.gradient(loss, [v.value for v in learning]), learning)
            total += float(loss) * len(chosen)
        losses.append(total / len(order))
    return losses


@pytest.mark.parametrize("batch", [1, 16])
def test_losses_are_equal_epoch_for_epoch_and_the_faulty_way_differs(tmp_path: Path, batch: int) -> None:
    import keras

    source, base = write_patterns(tmp_path / "in", 7), save_network(tmp_path)
    settings = {
        "hidden": (8,), "dropout": 0.3, "optimizer": "rmsprop", "epochs": EPOCHS, "batch_size": batch,
        "patience": None, "standardize": False,
    }  # fmt: skip
    bottleneck.train(
        source, str(base), "dense", run=tmp_path / "run", settings=settings, preprocessing=PREPROCESSING,
        pooling="avg", validation=0.0,
    )  # fmt: skip
    folder, cache = runs.read_run(tmp_path / "run"), cache_at(None)
    head = folder.head()
    cached = [entry["loss"] for entry in head.history_]

    loaded = load_base(folder.run.request, cache)
    forward = KerasForward([loaded], batch_for(folder.run.request, cache))
    inventory = folder.inventory()
    pixels = np.stack([forward.decode((source / image.path.decode()).read_bytes()) for image in inventory])
    codes = np.array([folder.run.classes.index(image.label) for image in inventory])

    merged = merge_model(loaded, head)
    frozen = keras.Model(merged.inputs[0], merged.get_layer("features").output)
    looped = plain_losses(frozen, head.initial_layers((8,), 3), pixels, codes, batch)
    np.testing.assert_allclose(looped, cached, rtol=1e-4)

    # Freezing by `trainable` alone: Dropout still drops.
    awake = loaded.features_model
    awake.trainable = False
    faulty = plain_losses(awake, head.initial_layers((8,), 3), pixels, codes, batch)
    assert np.abs(np.array(faulty) / cached - 1).max() > 0.01
    # And with BatchNorm awake too, its statistics move.
    awake.trainable = True
    worse = plain_losses(awake, head.initial_layers((8,), 3), pixels, codes, batch)
    assert np.abs(np.array(worse) / cached - 1).max() > 0.01
