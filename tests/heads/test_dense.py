"""Dense head: plain semantics, seeded, watched, and asked without TensorFlow."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest

from bottleneck.errors import HeadError, UsageError
from bottleneck.heads.dense import DenseHead, activate
from bottleneck.heads.dense_training import epoch_order
from bottleneck.heads.inputs import BadRows
from tests.heads.toy_rows import clusters

pytestmark = pytest.mark.keras

SMALL = {"hidden": (8,), "epochs": 3, "patience": None}


def test_losses_are_those_of_the_same_layers_trained_by_hand():
    """Seed S5: the head on cached rows and the layers in a plain Keras loop are one thing."""
    import keras

    X, y = clusters(42, (12,), 3)
    X[:, 2] -= 500
    head = DenseHead(
        hidden=(8,),
        batch_norm=True,
        l2=0.01,
        optimizer="rmsprop",
        batch_size=8,
        epochs=4,
        patience=None,
        standardize=False,
        class_weight={"class a": 2.0},
        seed=3,
    )
    layers = head.initial_layers((12,), 3)
    for layer in layers:
        if isinstance(layer, keras.layers.Dense):
            layer.kernel.regularizer = keras.regularizers.L2(0.01)
    model = keras.Sequential([keras.Input((12,)), *layers])
    model.compile(
        keras.optimizers.RMSprop(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    codes = np.unique(y, return_inverse=True)[1]
    by_hand = []
    for epoch in range(1, 5):
        order = epoch_order(3, epoch, 42)
        losses = []
        for start in range(0, 42, 8):
            part = order[start : start + 8]
            weight = np.where(codes[part] == 0, 2.0, 1.0)
            losses += [float(model.train_on_batch(X[part], codes[part], sample_weight=weight))] * len(part)
            model.reset_metrics()
        by_hand.append(np.mean(losses))
    head.fit(X, y)
    np.testing.assert_allclose([entry["loss"] for entry in head.history_], by_hand, rtol=2e-5)
    np.testing.assert_allclose(head.logits(X), model(X, training=False).numpy(), atol=2e-4)
    assert by_hand[-1] < by_hand[0]


def test_it_learns_and_history_says_so():
    X, y = clusters(160, (12,), 4)
    seen = []
    head = DenseHead(hidden=(16,), epochs=30, patience=None, learning_rate=2e-2).fit(
        X, y, on_epoch=seen.append
    )
    assert seen == head.history_
    assert [entry["epoch"] for entry in seen] == list(range(1, 31))
    assert set(seen[0]) == {"epoch", "loss", "accuracy", "learning_rate"}
    assert seen[-1]["loss"] < seen[0]["loss"] / 2
    assert head.score(X, y) > 0.85
    assert head.best_epoch_ == head.n_iter_ == 30


def test_same_seed_same_result_and_no_trace_in_the_process():
    X, y = clusters(60, (12,), 3)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global state that must not move
    wanted = (random.random(), np.random.random())  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    settings = {**SMALL, "dropout": 0.5, "batch_norm": True}
    first = DenseHead(**settings).fit(X, y)
    first.layers()
    assert (random.random(), np.random.random()) == wanted  # noqa: NPY002
    again = DenseHead(**settings).fit(X, y)
    other = DenseHead(**settings, seed=1).fit(X, y)
    assert first.history_ == again.history_
    assert all((first.arrays_[name] == again.arrays_[name]).all() for name in first.arrays_)
    assert first.history_ != other.history_


def test_early_stopping_keeps_the_best_epoch():
    X, y = clusters(60, (12,), 3)
    noise = np.random.default_rng(0).permutation(y)
    watched = clusters(60, (12,), 3, seed=8)
    head = DenseHead(hidden=(32,), epochs=60, patience=3, learning_rate=3e-2).fit(
        X, noise, validation_data=watched
    )
    losses = [entry["val_loss"] for entry in head.history_]
    assert head.n_iter_ < 60
    assert head.n_iter_ == head.best_epoch_ + 3
    assert int(np.argmin(losses)) + 1 == head.best_epoch_
    codes = np.searchsorted(head.classes_, watched[1])
    kept = -np.log(head.predict_proba(watched[0])[np.arange(60), codes]).mean()
    assert kept == pytest.approx(min(losses), rel=1e-4)
    assert kept < losses[-1]


def test_a_part_is_held_out_only_without_validation_data():
    X, y = clusters(60, (12,), 3)
    held = DenseHead(hidden=(), epochs=2, patience=5, holdout=0.2, standardize=False)
    assert "val_loss" in held.fit(X, y).history_[0]
    lone = DenseHead(hidden=(), epochs=2, patience=None, standardize=False).fit(X, y)
    assert "val_loss" not in lone.history_[0]
    given = held.fit(X, y, validation_data=clusters(30, (12,), 3, seed=4))
    assert [e["loss"] for e in given.history_] == [e["loss"] for e in lone.history_]  # no row was taken away
    tiny = DenseHead(hidden=(), epochs=2, patience=5).fit(X[:6], y[:6])
    assert "val_loss" not in tiny.history_[0]


def test_learning_rate_falls_on_a_plateau():
    X, y = clusters(30, (12,), 3)
    head = DenseHead(
        hidden=(),
        epochs=8,
        patience=None,
        optimizer="sgd",
        learning_rate=1e-7,
        reduce_lr=0.1,
        reduce_lr_patience=2,
        min_learning_rate=2e-9,
    ).fit(X, y)
    rates = [entry["learning_rate"] for entry in head.history_]
    np.testing.assert_allclose(rates, [1e-7, 1e-7, 1e-7, 1e-8, 1e-8, 2e-9, 2e-9, 2e-9])


def test_a_lower_rate_reaches_the_optimizer():
    X, y = clusters(30, (12,), 3)
    shuffled = np.roll(y, 1)  # the better the rows are learnt, the worse these get: a plateau from epoch 2 on
    head = DenseHead(
        hidden=(),
        epochs=5,
        patience=None,
        optimizer="sgd",
        learning_rate=0.1,
        batch_size=5,
        reduce_lr=1e-9,
        reduce_lr_patience=1,
        min_learning_rate=0.0,
    ).fit(X, y, validation_data=(X, shuffled))
    losses = [entry["val_loss"] for entry in head.history_]
    assert losses[1] > losses[0] + 1e-2
    assert head.history_[2]["learning_rate"] == pytest.approx(1e-10)
    np.testing.assert_allclose(losses[2:], losses[1], atol=1e-6)


def test_a_rate_below_the_floor_is_not_raised():
    X, y = clusters(30, (12,), 3)
    settings = {"hidden": (), "epochs": 3, "patience": None, "optimizer": "sgd", "learning_rate": 1e-8}
    head = DenseHead(**settings, reduce_lr=0.5, reduce_lr_patience=1, min_learning_rate=1e-6).fit(X, y)
    assert [entry["learning_rate"] for entry in head.history_] == [1e-8] * 3


def test_momentum_needs_an_optimizer_that_has_it():
    X, y = clusters(30, (12,), 3)
    with pytest.raises(UsageError, match="only sgd and rmsprop"):
        DenseHead(momentum=0.9).fit(X, y)
    settings = {"hidden": (), "epochs": 3, "patience": None, "optimizer": "sgd", "learning_rate": 1e-2}
    plain = DenseHead(**settings).fit(X, y)
    assert DenseHead(**settings, momentum=0.9).fit(X, y).history_[2]["loss"] < plain.history_[2]["loss"]


def test_a_loss_that_runs_away_is_an_error_that_says_what_to_lower():
    X, y = clusters(40, (12,), 3)
    with pytest.raises(HeadError, match=r"loss is nan at epoch \d.*learning_rate"):
        DenseHead(hidden=(8,), optimizer="sgd", learning_rate=1e30, epochs=5, patience=None).fit(X, y)


def test_validation_labels_must_be_known():
    X, y = clusters(30, (12,), 3)
    with pytest.raises(BadRows, match="class z"):
        DenseHead(**SMALL).fit(X, y, validation_data=(X[:1], ["class z"]))
    with pytest.raises(BadRows, match="2 rows and 1 labels"):
        DenseHead(**SMALL).fit(X, y, validation_data=(X[:2], y[:1]))
    assert "val_loss" not in DenseHead(**SMALL).fit(X, y, validation_data=(X[:0], y[:0])).history_[0]


def test_pickle_in_memory_holds_no_keras_object():
    X, y = clusters(30, (12,), 3)
    head = DenseHead(**SMALL).fit(X, y)
    data = pickle.dumps(head)
    assert b"keras" not in data
    assert (pickle.loads(data).logits(X) == head.logits(X)).all()


@pytest.mark.parametrize("name", ["relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid"])
def test_activations_are_keras(name):
    import keras

    x = np.linspace(-8, 8, 401, dtype=np.float32)
    np.testing.assert_allclose(
        activate(name, x),
        keras.ops.convert_to_numpy(keras.activations.get(name)(keras.ops.convert_to_tensor(x))),
        atol=2e-6,
    )
    assert activate(name, x).dtype == np.float32


def test_layers_of_a_hidden_stack():
    X, y = clusters(40, (3, 4), 3)
    head = DenseHead(hidden=(8, 5), dropout=0.3, batch_norm=True, epochs=2, patience=None).fit(X, y)
    layers = head.layers()
    assert [layer.name for layer in layers] == [
        "head_flatten",
        "head_dense_1",
        "head_norm_1",
        "head_dropout_1",
        "head_dense_2",
        "head_norm_2",
        "head_dropout_2",
        "logits",
        "probabilities",
    ]
    assert layers[3].rate == 0.3
    assert all(
        not made.name.endswith("1") or made is not again
        for made, again in zip(layers, head.layers(), strict=True)
    )
    counted = sum(int(np.prod(v.shape)) for layer in layers for v in layer.weights if "seed" not in v.path)
    assert counted == sum(array.size for array in head.arrays_.values())


def test_batches_larger_than_the_data_and_of_one():
    X, y = clusters(7, (12,), 2)
    for size in (1, 3, 100):
        head = DenseHead(hidden=(), batch_size=size, epochs=2, patience=None).fit(X, y)
        assert np.isfinite(head.history_[1]["loss"])


def test_copies_are_on_one_side_of_the_head_s_own_holdout():
    from bottleneck.heads.dense_training import Data
    from bottleneck.heads.holdout import hold_out

    random = np.random.default_rng(0)
    once = random.normal(size=(100, 5)).astype(np.float32)
    X, y = np.tile(once, (3, 1)), np.tile(random.integers(0, 2, 100), 3)
    data, watched = hold_out(Data(X, y), 0.1, 0)
    assert 20 <= len(watched.rows) <= 30 and len(data.rows) + len(watched.rows) == 300
    assert not {row.tobytes() for row in data.rows} & {row.tobytes() for row in watched.rows}


def test_without_copies_the_holdout_is_what_it_was():
    from bottleneck.heads.dense_training import Data
    from bottleneck.heads.holdout import hold_out

    X, codes = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32), np.arange(60) % 3
    data, watched = hold_out(Data(X, codes), 0.2, 5)
    draw, held = np.random.default_rng([5, 0]), np.zeros(60, bool)
    for code in range(3):
        held[draw.permutation(np.flatnonzero(codes == code))[:4]] = True
    np.testing.assert_array_equal(watched.rows, X[held])
    np.testing.assert_array_equal(data.rows, X[~held])


def test_float64_rows_far_from_zero_are_learnt_and_told_apart():
    X, y = clusters(90, (6,), 3)
    X = X[:, 3:].astype(np.float64)
    settings = {"epochs": 20, "learning_rate": 0.02, "patience": None}
    for hidden in ((8,), ()):
        near = DenseHead(hidden=hidden, **settings).fit(X, y)
        far = DenseHead(hidden=hidden, **settings).fit(X + 1e7, y)
        assert far.score(X + 1e7, y) == pytest.approx(near.score(X, y), abs=0.03) and near.score(X, y) > 0.5
        np.testing.assert_allclose(far.predict_proba(X + 1e7), near.predict_proba(X), atol=0.01)
    with pytest.raises(BadRows, match="standardize=true"):
        DenseHead(standardize=False, epochs=1).fit(X + 1e7, y)
