"""Train the head and the upper layers of one stage.

The order of images is `epoch_order`. The base is never called in training mode. The head is, so its dropout drops; but
no BatchNormalization is, the head's included: its scale and shift train, its statistics stay. Statistics that follow a
few hundred steps with momentum 0.99 lag behind weights that move, and what is validated would not be what was trained.
Each stage makes its own program and optimizer, so nothing that was compiled for other layers lives on.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottleneck.bases import cut, preprocess
from bottleneck.errors import TuningError
from bottleneck.finetuning.feeds import Feed
from bottleneck.finetuning.prefix import Tail
from bottleneck.finetuning.schedule import plateau, rate_factor
from bottleneck.finetuning.unfreeze import is_batch_norm, unfreeze
from bottleneck.heads.training_loop import Course, Program, keras_optimizer, train_epochs
from bottleneck.schema import Pooling, Preprocessing, TuneSettings
from bottleneck.store.batches import epoch_order
from bottleneck.store.views import epoch_views


@dataclass(frozen=True, eq=False)
class Chain:
    """The way from what a stage is fed with to logits.

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
        """Compute logits (n, classes); `training` is of the head alone."""
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


class StageProgram(Program):
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
        self.chain, self._settings = chain, settings
        base = unfreeze(chain.tail.layers, frozenset(rates))
        head = [variable for layer in chain.head for variable in layer.trainable_variables]
        shares = [rates[path] / settings.rate for path, _ in base] + [head_rate / settings.rate] * len(head)
        super().__init__([*(variable for _, variable in base), *head], _optimizer(settings, shares), weights)
        tf = self._tf
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
        self._traced_step = tf.function(self._step, input_signature=signature, autograph=False)
        self._traced_measure = tf.function(self._measure, input_signature=signature, autograph=False)

    @property
    def parameters(self) -> int:
        """How many numbers train."""
        return sum(math.prod(variable.shape) for variable in self._trained)

    @property
    def frozen(self) -> int:
        """How many numbers of tail and head stay as they are."""
        return sum(before.size for _, _, before in self._still)

    def _forward(self, rows: Any, *, training: bool) -> Any:
        if not training:
            return self.chain(rows, training=False)
        with self._computing(self._settings.precision):
            return self.chain(rows, training=True)

    @contextlib.contextmanager
    def _computing(self, precision: str) -> Iterator[None]:
        """Let the layers of a traced step compute in `precision`."""
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
        sums: np.ndarray = self._traced_step(self._tf.constant(rows), self._tf.constant(codes)).numpy()
        return sums

    def measure(self, feed: Feed) -> tuple[float, float]:
        """Measure mean loss and accuracy in inference mode."""
        count, sums = len(feed.codes), np.zeros(2)
        for rows, codes in feed.batches(
            np.arange(count), np.zeros(count, np.int64), self._settings.batch_size
        ):
            sums += self._traced_measure(self._tf.constant(rows), self._tf.constant(codes)).numpy()
        return float(sums[0]) / count, float(sums[1]) / count

    def features(self, rows: np.ndarray) -> np.ndarray:
        """`Chain.features` of (n, *shape) as they are now: (n, *feature shape) float32."""
        return np.asarray(self.chain.features(self._tf.constant(rows)), np.float32)

    def check_still(self) -> None:
        """Check that no frozen weight or statistic moved by a bit.

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


def _optimizer(settings: TuneSettings, shares: list[float]) -> Any:
    momentum = settings.momentum if settings.optimizer == "sgd" else 0.0
    optimizer = keras_optimizer(settings.optimizer, settings.rate, momentum=momentum, shares=shares)
    if settings.precision != "mixed_float16":
        return optimizer
    import keras

    return keras.optimizers.LossScaleOptimizer(optimizer)


def draws(settings: TuneSettings, epoch: int, images: int) -> np.ndarray:
    """Choose the view (images,) that an epoch shows of each image.

    Epochs count over all stages.
    """
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
    """Run a stage to its end, and restore the best weights.

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

    def run_epoch(epoch: int) -> dict[str, float]:
        started, sums, rate = time.perf_counter(), np.zeros(2), 0.0
        lowered = settings.rate * plateau(settings, course.losses if watched else [])
        order, views = (
            epoch_order(settings.seed, before + epoch, images),
            draws(settings, before + epoch, images),
        )
        for number, (rows, codes) in enumerate(training.batches(order, views, settings.batch_size)):
            rate = lowered * rate_factor(settings, (epoch - 1) * steps + number, steps)
            sums += program.learn(rows, codes, rate)
        program.check_still()
        loss, accuracy = (float(part) / images for part in sums)
        entry = {"epoch": float(epoch), "loss": loss, "accuracy": accuracy, "rate": rate}
        return _measured(program, entry, watched, started)

    def epoch_done(entry: dict[str, float]) -> None:
        save(course)
        on_epoch(entry)

    if not course.history:
        course.history.append(_measured(program, {"epoch": 0.0}, watched, time.perf_counter()))
        course.kept = program.values()
        save(course)
    train_epochs(
        course, run_epoch, program.values,
        epochs=settings.epochs, patience=settings.patience, watched=watched is not None, on_epoch=epoch_done,
    )  # fmt: skip
    if course.kept is not None:
        program.restore(course.kept)


def _measured(
    program: StageProgram, entry: dict[str, float], watched: Feed | None, started: float
) -> dict[str, float]:
    if watched is not None:
        entry["val_loss"], entry["val_accuracy"] = program.measure(watched)
    entry["seconds"] = time.perf_counter() - started
    wrong = [f"{name} {value}" for name, value in entry.items() if not math.isfinite(value)]
    if wrong:
        raise TuningError(
            f"epoch {entry['epoch']:.0f}: {', '.join(wrong)}; expected finite numbers. The run before is untouched: "
            "lower --rate, add --warmup 1, or train in --precision float32"
        )
    return entry
