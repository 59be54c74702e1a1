"""The training of one stage: head and upper layers together, on rows of the prefix or on pixels.

Plain semantics: the loss of a batch is the mean cross-entropy over its images (times class weights), the last batch is
as short as it comes out, and the order of images is `epoch_order`. The base is never called in training mode. The head
is, so its dropout drops; but no BatchNormalization is, the head's included: its scale and shift train, its statistics
stay. Statistics that follow a few hundred steps with momentum 0.99 lag behind weights that move, and what is validated
would not be what was trained. Each stage makes its own program and optimizer, so nothing that was compiled for other
layers lives on.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bottleneck.bases import cut, preprocess
from bottleneck.errors import TuningError
from bottleneck.finetuning.feeds import Feed
from bottleneck.finetuning.prefix import Tail
from bottleneck.finetuning.schedule import over, plateau, rate_factor
from bottleneck.finetuning.unfreeze import is_batch_norm, unfreeze
from bottleneck.schema import Pooling, Preprocessing, TuneSettings
from bottleneck.store.batches import epoch_order
from bottleneck.store.views import epoch_views

#: Keras' own default for AdamW.
_DECAY = 0.004


@dataclass(frozen=True, eq=False)
class Chain:
    """All that lies between what a stage is fed with and the logits.

    Attributes
    ----------
    preprocessing : Preprocessing or None
        Where pixels are fed; None for rows.
    tail : Tail
    pooling : {"none", "avg", "max"}
    head : list of keras.layers.Layer
        Up to the layer ``logits``.
    """

    preprocessing: Preprocessing | None
    tail: Tail
    pooling: Pooling
    head: list[Any]

    def __call__(self, rows: Any, *, training: bool) -> Any:
        """Logits (n, classes) float32; `training` is the head's mode, the base has one."""
        value = self.features(rows)
        for layer in self.head:
            value = layer(value, training=training and not is_batch_norm(layer))
        return value

    def features(self, rows: Any) -> Any:
        """What the base gives for `rows`, pooled: (n, *feature shape) float32."""
        import keras

        if self.preprocessing is not None:
            rows = preprocess.apply(rows, self.preprocessing)
        return cut.pool(keras.ops.cast(self.tail(rows), "float32"), self.pooling)


class StageProgram:
    """A chain that learns: one traced step, one optimizer.

    Parameters
    ----------
    chain : Chain
    rates : mapping of str to float
        Rate of each layer of the base that trains, by path; the others stay as they are.
    head_rate : float
    settings : TuneSettings
    weights : numpy.ndarray or None
        (classes,) float32.
    """

    def __init__(
        self,
        chain: Chain,
        rates: Mapping[str, float],
        head_rate: float,
        settings: TuneSettings,
        weights: np.ndarray | None,
    ) -> None:
        import tensorflow as tf

        self._tf = tf
        self.chain, self._settings = chain, settings
        base = unfreeze(chain.tail.layers, frozenset(rates))
        head = [variable for layer in chain.head for variable in layer.trainable_variables]
        self._trained = [*(variable for _, variable in base), *head]
        shares = [rates[path] / settings.rate for path, _ in base] + [head_rate / settings.rate] * len(head)
        self.optimizer = stage_optimizer(settings, shares)
        self.optimizer.build(self._trained)
        self._weights = None if weights is None else tf.constant(weights, tf.float32)
        #: All that training changes besides the optimizer: what a checkpoint holds, and the best epoch.
        self.variables = [
            *(variable for _, variable in base),
            *(variable for layer in chain.head for variable in layer.variables),
        ]
        free = {id(variable) for variable in self._trained}
        held = [*chain.tail.layers.items(), *((layer.name, layer) for layer in chain.head)]
        #: All that must not move, as it is before the first step.
        self._still = [
            (path, weight, np.array(weight.numpy()))
            for path, layer in held
            for weight in layer.weights
            if id(weight) not in free
        ]
        rows = tf.TensorSpec((None, *chain.tail.shape), tf.float32)
        if chain.preprocessing is not None:
            rows = tf.TensorSpec((None, *chain.tail.shape[:2], 3), tf.float32)
        signature = [rows, tf.TensorSpec((None,), tf.int64)]
        self._step = tf.function(self._one_step, input_signature=signature, autograph=False)
        self._sums = tf.function(self._measure, input_signature=signature, autograph=False)

    @property
    def parameters(self) -> int:
        """How many numbers train."""
        return sum(math.prod(variable.shape) for variable in self._trained)

    @property
    def frozen(self) -> int:
        """How many numbers of the tail and the head stay as they are."""
        return sum(before.size for _, _, before in self._still)

    def _one_step(self, rows: Any, codes: Any) -> Any:
        tf, scaled = self._tf, hasattr(self.optimizer, "scale_loss")
        with tf.GradientTape() as tape:
            with self._computing(self._settings.precision):
                logits = self.chain(rows, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=codes, logits=logits)
            if self._weights is not None:
                losses *= tf.gather(self._weights, codes)
            loss = tf.reduce_mean(losses)
            climbed = self.optimizer.scale_loss(loss) if scaled else loss
        gradients = tape.gradient(climbed, [variable.value for variable in self._trained])
        self.optimizer.apply(gradients, self._trained)
        return tf.stack([loss * tf.cast(tf.shape(codes)[0], tf.float32), self._right(logits, codes)])

    def _measure(self, rows: Any, codes: Any) -> Any:
        tf = self._tf
        logits = self.chain(rows, training=False)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=codes, logits=logits)
        return tf.stack([tf.reduce_sum(losses), self._right(logits, codes)])

    def _right(self, logits: Any, codes: Any) -> Any:
        tf = self._tf
        return tf.reduce_sum(tf.cast(tf.equal(tf.argmax(logits, axis=1), codes), tf.float32))

    @contextlib.contextmanager
    def _computing(self, precision: str) -> Iterator[None]:
        """While a step is traced: its layers compute in `precision`. What is traced outside stays float32."""
        layers = [
            inner
            for step in self.chain.tail.network.steps
            if hasattr(step.operation, "_flatten_layers")
            for inner in step.operation._flatten_layers()
        ]
        policies = [layer.dtype_policy for layer in layers]
        if precision != "float32":
            for layer in layers:
                layer.dtype_policy = precision
        try:
            yield
        finally:
            for layer, policy in zip(layers, policies, strict=True):
                layer.dtype_policy = policy

    def learn(self, rows: np.ndarray, codes: np.ndarray, rate: float) -> np.ndarray:
        """One step; the sum of its losses and its right answers (2,)."""
        self.optimizer.learning_rate = rate
        sums: np.ndarray = self._step(self._tf.constant(rows), self._tf.constant(codes)).numpy()
        return sums

    def measure(self, feed: Feed) -> tuple[float, float]:
        """Mean loss and accuracy of the images as they are, in inference mode; each counts alike."""
        count, sums = len(feed.codes), np.zeros(2)
        for rows, codes in feed.batches(
            np.arange(count), np.zeros(count, np.int64), self._settings.batch_size
        ):
            sums += self._sums(self._tf.constant(rows), self._tf.constant(codes)).numpy()
        return float(sums[0]) / count, float(sums[1]) / count

    def features(self, rows: np.ndarray) -> np.ndarray:
        """`Chain.features` of (n, *shape) as they are now: (n, *feature shape) float32."""
        return np.asarray(self.chain.features(self._tf.constant(rows)), np.float32)

    def check_still(self) -> None:
        """That nothing moved which is frozen, moving statistics above all, to the bit.

        Raises
        ------
        TuningError
            Names the weight.
        """
        for path, weight, before in self._still:
            now = np.asarray(weight.numpy())
            if now.tobytes() != before.tobytes():
                gap = float(np.abs(now.astype(np.float64) - before).max())
                raise TuningError(
                    f"layer {path!r}: its frozen weight {weight.name!r} moved by {gap:.3g} while other layers trained; "
                    "expected every frozen weight and moving statistic to stay as it is. The run before is "
                    "untouched. A layer that changes itself when it is called cannot lie in a part that trains: "
                    "unfreeze layers above it only"
                )

    def values(self) -> list[np.ndarray]:
        """Copies of all that training changed so far."""
        return [np.array(variable.numpy()) for variable in self.variables]

    def restore(self, values: list[np.ndarray]) -> None:
        """Set what `values` gave."""
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)


def stage_optimizer(settings: TuneSettings, shares: list[float]) -> Any:
    """The Keras optimizer that the settings name; variable number i has ``shares[i]`` of its rate."""
    import keras

    kinds = keras.optimizers
    kind: Any = {"sgd": kinds.SGD, "rmsprop": kinds.RMSprop}.get(settings.optimizer, kinds.Adam)
    decay = _DECAY if settings.optimizer == "adamw" else 0.0

    class Shared(kind):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            rate = learning_rate * shares[self._get_variable_index(variable)]
            if decay:
                # AdamW's own decay knows one rate for all variables.
                self.assign_sub(variable, variable * (rate * decay))
            super().update_step(gradient, variable, rate)

    momentum = {"momentum": settings.momentum} if settings.optimizer == "sgd" else {}
    made = Shared(learning_rate=settings.rate, **momentum)
    return kinds.LossScaleOptimizer(made) if settings.precision == "mixed_float16" else made


@dataclass
class Course:
    """How far a stage has come.

    Attributes
    ----------
    history : list of dict
        As in `StageDone`.
    best : int
        The epoch that `kept` is of.
    kept : list of numpy.ndarray
        `Program.values` of that epoch.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best: int = 0
    kept: list[np.ndarray] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        """The losses that decide, epoch 0 first; those of training where no image is held out."""
        return [entry.get("val_loss", entry.get("loss", math.inf)) for entry in self.history]


def draws(settings: TuneSettings, epoch: int, images: int) -> np.ndarray:
    """Which view of each image epoch number `epoch`, counted over all stages, sees: (images,) int64."""
    if settings.views > 1:
        return epoch_views(settings.seed, epoch, images, settings.views)
    return np.full(images, epoch if settings.augment is not None else 0, np.int64)


def train_stage(
    program: StageProgram,
    training: Feed,
    watched: Feed | None,
    settings: TuneSettings,
    course: Course,
    *,
    before: int,
    save: Callable[[Course], None],
    on_epoch: Callable[[dict[str, float]], None],
) -> None:
    """Run a stage from where `course` stands to its end; the best weights are restored.

    Parameters
    ----------
    program : Program
    training, watched : Feed
        Without held-out images every epoch runs, and the last one's weights are kept.
    settings : TuneSettings
    course : Course
        A new one, or one from a checkpoint whose values are in the program.
    before : int
        Epochs that earlier stages ran.
    save : callable
        Is given the course after each epoch.
    on_epoch : callable
        Is given each entry of the history.

    Raises
    ------
    TuningError
        The loss is no longer finite, or something moved that is frozen.
    """
    images = len(training.codes)
    steps = -(-images // settings.batch_size)
    if not course.history:
        _add(course, program, {"epoch": 0.0}, watched, time.perf_counter())
        course.kept = program.values()
        save(course)
    while len(course.history) <= settings.epochs and not (watched and over(settings, course.losses)):
        epoch, started, sums = len(course.history), time.perf_counter(), np.zeros(2)
        lowered = settings.rate * plateau(settings, course.losses if watched else [])
        order = epoch_order(settings.seed, before + epoch, images)
        views, rate = draws(settings, before + epoch, images), 0.0
        for number, (rows, codes) in enumerate(training.batches(order, views, settings.batch_size)):
            rate = lowered * rate_factor(settings, (epoch - 1) * steps + number, steps)
            sums += program.learn(rows, codes, rate)
        loss, accuracy = (float(part) / images for part in sums)
        entry = {"epoch": float(epoch), "loss": loss, "accuracy": accuracy, "rate": rate}
        program.check_still()
        _add(course, program, entry, watched, started)
        if watched is None or course.losses[-1] < course.losses[course.best]:
            course.best, course.kept = epoch, program.values()
        save(course)
        on_epoch(dict(course.history[-1]))
    program.restore(course.kept)


def _add(
    course: Course, program: StageProgram, entry: dict[str, float], watched: Feed | None, started: float
) -> None:
    if watched is not None:
        entry["val_loss"], entry["val_accuracy"] = program.measure(watched)
    entry["seconds"] = time.perf_counter() - started
    wrong = [f"{name} {value}" for name, value in entry.items() if not math.isfinite(value)]
    if wrong:
        raise TuningError(
            f"epoch {entry['epoch']:.0f}: {', '.join(wrong)}; expected finite numbers. The run before is untouched: "
            "lower --rate, add --warmup 1, or train in --precision float32"
        )
    course.history.append(entry)
