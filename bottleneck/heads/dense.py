"""A small network on cached rows; it predicts without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, FiniteFloat

from bottleneck.errors import UsageError
from bottleneck.heads.dense_training import Data, DenseProgram, initial_layers, train_dense
from bottleneck.heads.holdout import hold_out
from bottleneck.heads.inputs import (
    BadRows,
    check_views,
    class_weights,
    feature_count,
    known_rows,
    training_rows,
)
from bottleneck.heads.keras_layers import activate, batch_norm, dense, dropout, ending, layer_seed
from bottleneck.heads.scaling import check_float32, fold, scaling_of
from bottleneck.heads.settings import check_settings
from bottleneck.heads.softmax_head import SoftmaxHead

Activation = Literal["relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid"]

#: Keras' default for BatchNormalization, which `layers` uses.
EPSILON = 1e-3


class DenseHead(SoftmaxHead):
    """Dense layers, each with optional batch normalisation and dropout, and a softmax.

    Parameters
    ----------
    hidden : tuple of int, or int
        Units of each hidden layer; empty for the softmax layer alone.
    dropout : float
        Rate after each hidden layer.
    batch_norm : bool
        BatchNormalization after each hidden layer's activation.
    l2 : float
        Penalty ``l2 * |W|^2`` on every kernel, as trained (that is, on standardised features).
    activation : {"relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid"}
    optimizer : {"adam", "adamw", "sgd", "rmsprop"}
    learning_rate : float
    momentum : float
        Of sgd and rmsprop.
    epochs : int
        Most epochs.
    batch_size : int
    patience : int or None
        Stop after as many epochs without a lower validation loss. None: run all epochs.
    holdout : float
        Part of each class kept out of training and watched, when `fit` is given no validation data and
        `patience` is set; equal rows stay on one side. Where a class is too small to give a row, it gives none;
        where none does, nothing is watched.
    reduce_lr : float or None
        Multiply the learning rate by this after `reduce_lr_patience` epochs on a plateau.
    reduce_lr_patience : int
    min_learning_rate : float
    class_weight : "balanced", mapping of label to float, or None
    seed : int
        Of initial weights, dropout, the order of rows and the held-out part.
    standardize : bool
        Centre and scale the rows first; folded into the first kernel afterwards, so no parameter is added.
        False trains on the rows as they are, exactly as these layers would on the base itself.

    Attributes
    ----------
    history_ : list of dict
        An entry an epoch: ``epoch``, ``loss``, ``accuracy``, ``learning_rate`` and, where something was
        watched, ``val_loss``, ``val_accuracy``.
    best_epoch_ : int
        The epoch whose weights were kept: lowest validation loss, or the last.
    n_iter_ : int
        Epochs run.

    Examples
    --------
    >>> DenseHead(hidden=(4096,), batch_norm=True).layout((4096,), 19)["logits.kernel"]
    (4096, 19)
    """

    FACTS: ClassVar[Mapping[str, Any]] = {
        **SoftmaxHead.FACTS,
        "n_iter_": int | None,
        "best_epoch_": int | None,
        "history_": list[dict[str, FiniteFloat]] | None,
    }

    n_iter_: int | None
    best_epoch_: int | None
    history_: list[dict[str, float]] | None

    def __init__(
        self,
        hidden: tuple[Annotated[int, Field(ge=1)], ...] = (128,),
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        batch_norm: bool = False,
        l2: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0,
        activation: Activation = "relu",
        optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam",
        learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        epochs: Annotated[int, Field(ge=1)] = 50,
        batch_size: Annotated[int, Field(ge=1)] = 32,
        patience: Annotated[int, Field(ge=1)] | None = 5,
        holdout: Annotated[float, Field(gt=0, lt=1)] = 0.1,
        reduce_lr: Annotated[float, Field(gt=0, lt=1)] | None = None,
        reduce_lr_patience: Annotated[int, Field(ge=1)] = 3,
        min_learning_rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-6,
        class_weight: Literal["balanced"] | dict[Any, FiniteFloat] | None = None,
        seed: Annotated[int, Field(ge=0)] = 0,
        standardize: bool = True,
    ) -> None:
        self.hidden = hidden
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.l2 = l2
        self.activation = activation
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.holdout = holdout
        self.reduce_lr = reduce_lr
        self.reduce_lr_patience = reduce_lr_patience
        self.min_learning_rate = min_learning_rate
        self.class_weight = class_weight
        self.seed = seed
        self.standardize = standardize

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        validation_data: tuple[Any, Any] | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        views: int = 1,
    ) -> Self:
        """Train from new weights; what an earlier fit learnt is forgotten.

        Parameters
        ----------
        X : array-like, (n, *shape)
        y : array-like, (n,)
        validation_data : (array-like (m, *shape), array-like (m,)), optional
            Watched for early stopping and the learning rate; never trained on, and no row of `X` is held out.
            Labels that `y` does not have are refused.
        on_epoch : callable, optional
            Called with each epoch's entry of ``history_``.
        views : int
            As many rows side by side are views of one image, the first of them the image itself: each epoch sees one
            of them, drawn anew, and rows held out are of whole images, watched by their first.

        Raises
        ------
        BadRows
            NaN or infinite values, fewer than two classes, lengths that differ; values too small or too large for the
            weights of float32 layers.
        UsageError
            A setting out of bounds; momentum for an optimizer without it.
        HeadError
            The loss is no longer finite.

        Warns
        -----
        LeftOutWarning
            Features that vary no further than rounding count as constant.
        """
        settings = check_settings(self)
        if settings["momentum"] and settings["optimizer"] not in ("sgd", "rmsprop"):
            raise UsageError(
                f"momentum={settings['momentum']} with optimizer={settings['optimizer']}: only sgd and rmsprop have "
                "it; leave one of them out"
            )
        rows, codes, classes = training_rows(self, X, y)
        self.classes_ = classes
        check_views(codes, views)
        if not settings["standardize"]:
            check_float32(rows)
        data, watched = Data(rows, codes, views), None
        if validation_data is not None:
            watched = self._watched(*validation_data)
        elif settings["patience"] is not None:
            data, watched = hold_out(data, settings["holdout"], settings["seed"])
        scaling = None
        if settings["standardize"]:
            scaling = scaling_of(data.rows, divide=True).subtracted_in(rows.dtype)
        weights = class_weights(settings["class_weight"], classes, data.codes)
        layers = initial_layers(settings, rows.shape[1], len(classes))
        program = DenseProgram(layers, settings, data, None if scaling is None else scaling.pair, weights)
        learnt, self.history_, self.best_epoch_ = train_dense(program, settings, watched, on_epoch)
        self.rest_, self.left_out_ = None, 0
        if scaling is not None:
            kernel, bias, self.rest_ = fold(learnt[0][0], learnt[0][1], *scaling.pair, exact=scaling.exact)
            learnt[0] = [kernel, bias]
            self.left_out_ = scaling.left_out
            scaling.warn("dense head")
        self.settings_, self.solver_ = settings, settings["optimizer"]
        shapes = self.layout(self.feature_shape_, len(classes))
        self.arrays_ = dict(zip(shapes, (w for layer in learnt for w in layer), strict=True))
        self.n_iter_ = len(self.history_)
        return self

    def _watched(self, X: Any, y: Any) -> Data | None:
        labels = np.asarray(y)
        strange = sorted(set(labels.tolist()) - set(self.classes_.tolist()), key=str)
        if strange:
            raise BadRows(
                f"validation labels {strange!r} are not among the training labels {self.classes_.tolist()!r}: every "
                "class needs training images"
            )
        if len(labels) == 0:
            return None
        rows = known_rows(self, X)
        if len(rows) != len(labels):
            raise BadRows(f"validation data has {len(rows)} rows and {len(labels)} labels: give one a row")
        return Data(rows, np.searchsorted(self.classes_, labels).astype(np.int64))

    def initial_layers(self, feature_shape: tuple[int, ...], classes: int) -> list[Any]:
        """Build Keras layers with the weights that `fit` starts from."""
        return initial_layers(check_settings(self), feature_count(feature_shape), classes)

    def layout(self, feature_shape: tuple[int, ...], classes: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the arrays, in the order of the layers."""
        settings, width = self._settings(), feature_count(feature_shape)
        shapes: dict[str, tuple[int, ...]] = {}
        for number, units in enumerate(settings["hidden"], start=1):
            shapes[f"head_dense_{number}.kernel"] = (width, units)
            shapes[f"head_dense_{number}.bias"] = (units,)
            if settings["batch_norm"]:
                for part in ("gamma", "beta", "moving_mean", "moving_variance"):
                    shapes[f"head_norm_{number}.{part}"] = (units,)
            width = units
        return shapes | {"logits.kernel": (width, classes), "logits.bias": (classes,)}

    def _forward(self, rows: np.ndarray) -> np.ndarray:
        # NumPy, not Keras: a saved head predicts without TensorFlow, and a GPU's TF32 never enters.
        settings, known = self._settings(), dict(self.arrays_)
        if self.rest_ is not None:
            # Fitted on rows which may lie so far from zero that float32 tells them apart no more.
            first = next(iter(known)).removesuffix(".kernel")
            known[f"{first}.kernel"] = known[f"{first}.kernel"].astype(np.float64)
            known[f"{first}.bias"] = known[f"{first}.bias"] + np.array(self.rest_)

        def layer(value: np.ndarray, name: str) -> np.ndarray:
            kernel, bias = known[f"{name}.kernel"], known[f"{name}.bias"]
            made: np.ndarray = value.astype(kernel.dtype, copy=False) @ kernel + bias
            return made.astype(np.float32, copy=False)

        parts, step = [], max(1, (8 << 20) // max(1, rows.shape[1]))
        for start in range(0, len(rows), step):
            value = rows[start : start + step]
            for number in range(1, len(settings["hidden"]) + 1):
                value = activate(settings["activation"], layer(value, f"head_dense_{number}"))
                if settings["batch_norm"]:
                    gamma, beta, mean, variance = (
                        known[f"head_norm_{number}.{part}"]
                        for part in ("gamma", "beta", "moving_mean", "moving_variance")
                    )
                    value = (value - mean) * (gamma / np.sqrt(variance + np.float32(EPSILON))) + beta
            parts.append(layer(value, "logits"))
        return np.concatenate(parts)

    def layers(self) -> list[Any]:
        """The fitted head as stock Keras layers, new, built and with weights.

        Returns
        -------
        list of keras.layers.Layer
            ``head_flatten`` where rows have axes; ``head_dense_1``, ``head_norm_1``, ``head_dropout_1`` (at
            its rate, for fine-tuning) and so on; the Dense ``logits``; the softmax ``probabilities``. The
            scaler is folded in; the L2 penalty belongs to the training and is not in the layers.
        """
        settings = self._settings()
        made = []
        for number in range(1, len(settings["hidden"]) + 1):
            kernel, bias = (self.arrays_[f"head_dense_{number}.{part}"] for part in ("kernel", "bias"))
            made.append(dense(f"head_dense_{number}", kernel, bias, settings["activation"]))
            if settings["batch_norm"]:
                parts = ("gamma", "beta", "moving_mean", "moving_variance")
                name = f"head_norm_{number}"
                made.append(batch_norm(name, *(self.arrays_[f"{name}.{part}"] for part in parts)))
            if settings["dropout"]:
                made.append(dropout(settings["dropout"], layer_seed(settings["seed"], number), number))
        made.append(dense("logits", self.arrays_["logits.kernel"], self.arrays_["logits.bias"]))
        return ending(self.feature_shape_, made)
