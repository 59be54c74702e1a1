"""Train layers by cross-entropy, epoch by epoch.

A head on rows and the upper layers of a base with their head learn by this one loop. Its semantics are plain, so that
the same layers trained by hand give the same losses: the loss of a batch is the mean cross-entropy over its rows (times
class weights), and the last batch is as short as it comes out.
Nothing here touches the process's random state or its Keras settings.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Keras' own default for AdamW.
_DECAY = 0.004


class Program(ABC):
    """One step of training and one measurement, for TensorFlow to trace.

    Parameters
    ----------
    trained : list of keras.Variable
    optimizer : keras.optimizers.Optimizer
    weights : numpy.ndarray or None
        (classes,) float32.
    """

    def __init__(self, trained: list[Any], optimizer: Any, weights: np.ndarray | None) -> None:
        import tensorflow as tf

        self._tf, self._trained, self.optimizer = tf, trained, optimizer
        self.optimizer.build(trained)
        self._weights = None if weights is None else tf.constant(weights, tf.float32)

    @abstractmethod
    def _forward(self, rows: Any, *, training: bool) -> Any:
        """Compute logits (n, classes) float32."""

    def _loss(self, logits: Any, codes: Any) -> Any:
        tf = self._tf
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=codes, logits=logits)
        return tf.reduce_mean(losses if self._weights is None else losses * tf.gather(self._weights, codes))

    def _right(self, logits: Any, codes: Any) -> Any:
        tf = self._tf
        return tf.reduce_sum(tf.cast(tf.equal(tf.argmax(logits, axis=1), codes), tf.float32))

    def _step(self, rows: Any, codes: Any) -> Any:
        """Change the weights once; sum losses and right answers (2,)."""
        tf = self._tf
        with tf.GradientTape() as tape:
            logits = self._forward(rows, training=True)
            loss = self._loss(logits, codes)
            scaled = self.optimizer.scale_loss(loss) if hasattr(self.optimizer, "scale_loss") else loss
        gradients = tape.gradient(scaled, [variable.value for variable in self._trained])
        self.optimizer.apply(gradients, self._trained)
        return tf.stack([loss * tf.cast(tf.shape(codes)[0], tf.float32), self._right(logits, codes)])

    def _measure(self, rows: Any, codes: Any) -> Any:
        """Sum losses and right answers (2,) in inference mode, without class weights."""
        tf = self._tf
        logits = self._forward(rows, training=False)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=codes, logits=logits)
        return tf.stack([tf.reduce_sum(losses), self._right(logits, codes)])


def keras_optimizer(name: str, rate: float, *, momentum: float, shares: Sequence[float] | None = None) -> Any:
    """Build the Keras optimizer of that name.

    Parameters
    ----------
    name : {"adam", "adamw", "sgd", "rmsprop"}
    rate : float
    momentum : float
        Of sgd and rmsprop.
    shares : sequence of float, optional
        Variable number i has ``shares[i]`` of the rate.
    """
    import keras

    kinds = keras.optimizers
    kind: Any = {"sgd": kinds.SGD, "rmsprop": kinds.RMSprop}.get(name, kinds.Adam)
    options = {"momentum": momentum} if name in ("sgd", "rmsprop") else {}
    if shares is None:
        return kinds.AdamW(rate) if name == "adamw" else kind(rate, **options)
    parts, decay = list(shares), _DECAY if name == "adamw" else 0.0

    class Shared(kind):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            rate = learning_rate * parts[self._get_variable_index(variable)]
            if decay:
                # AdamW's own decay knows one rate for all variables.
                self.assign_sub(variable, variable * (rate * decay))
            super().update_step(gradient, variable, rate)

    return Shared(learning_rate=rate, **options)


@dataclass
class Course:
    """How far a training has come.

    Attributes
    ----------
    history : list of dict
        An entry an epoch. ``epoch`` 0, where there is one, measures the weights before training.
    best : int
        The epoch that `kept` is of.
    kept : list, or None
        Copies of the weights of that epoch; None: it is the last one, and they are what they are now.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best: int = 0
    kept: list[Any] | None = None

    @property
    def epoch(self) -> int:
        """The last epoch that ran; 0 before the first."""
        return int(self.history[-1]["epoch"]) if self.history else 0

    @property
    def losses(self) -> list[float]:
        """The losses that decide; those of training where nothing is watched."""
        return [entry.get("val_loss", entry.get("loss", math.inf)) for entry in self.history]


def train_epochs(
    course: Course,
    run_epoch: Callable[[int], dict[str, float]],
    values: Callable[[], list[Any]],
    *,
    epochs: int,
    patience: int | None,
    watched: bool,
    on_epoch: Callable[[dict[str, float]], None],
) -> None:
    """Run epochs from where `course` stands, and keep the best weights.

    Parameters
    ----------
    course : Course
    run_epoch : callable
        Trains an epoch, given its number, and returns its entry of the history.
    values : callable
        Copies the weights.
    epochs : int
        Most epochs.
    patience : int or None
        Stop after as many epochs without a lower validation loss.
    watched : bool
        Whether entries have a ``val_loss``. Else every epoch runs, and the last one's weights are the best.
    on_epoch : callable
        Is given a copy of each entry.
    """
    while course.epoch < epochs and not (watched and is_stalled(course.losses, patience)):
        lowest = min(course.losses, default=math.inf)
        course.history.append(run_epoch(course.epoch + 1))
        if not watched:
            course.best, course.kept = course.epoch, None
        elif course.losses[-1] < lowest:
            course.best, course.kept = course.epoch, values()
        on_epoch(dict(course.history[-1]))


def is_stalled(losses: Sequence[float], patience: int | None) -> bool:
    """Whether `patience` epochs in a row brought no new lowest loss.

    Examples
    --------
    >>> is_stalled([1.0, 0.5, 0.6], 2), is_stalled([1.0, 0.5, 0.6, 0.7], 2)
    (False, True)
    """
    if patience is None or not losses:
        return False
    best = min(range(len(losses)), key=losses.__getitem__)
    return len(losses) - 1 - best >= patience


def count_plateaus(losses: Sequence[float], patience: int, least_gain: float = 0.0) -> int:
    """How often `patience` epochs in a row brought no gain.

    Examples
    --------
    >>> count_plateaus([1.0, 0.9, 0.95, 0.9], 2), count_plateaus([1.0, 0.9, 0.8], 2)
    (1, 0)
    """
    count, lowest, waited = 0, math.inf, 0
    for loss in losses:
        if loss < lowest - least_gain:
            lowest, waited = loss, 0
        else:
            waited += 1
        if waited == patience:
            count, waited = count + 1, 0
    return count


def epoch_note(entry: Mapping[str, float]) -> str:
    """Losses and accuracies of an epoch, for a progress bar.

    Examples
    --------
    >>> epoch_note({"epoch": 1.0, "loss": 0.5, "val_accuracy": 1.0})
    'loss=0.5000 val_accuracy=1.0000'
    """
    return " ".join(f"{name}={value:.4f}" for name, value in entry.items() if "loss" in name or "acc" in name)
