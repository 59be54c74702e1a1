"""Train a dense head by one TensorFlow program.

The loss has the L2 penalty as Keras counts it, and the order of rows is `epoch_order`. Rows of a store that were not
loaded are fed to the same program by pieces, in the same order and batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottleneck.errors import HeadError
from bottleneck.heads.keras_layers import dropout, layer_seed
from bottleneck.heads.training_loop import Course, Program, count_plateaus, keras_optimizer, train_epochs
from bottleneck.store.batches import batches, epoch_order, gather_rows
from bottleneck.store.rows import Rows
from bottleneck.store.views import epoch_views

#: ReduceLROnPlateau's own default: a smaller gain in loss is none.
PLATEAU_DELTA = 1e-4

#: Parameters x rows x epochs from which compiling a step by XLA (about a second) pays for itself: below, the whole
#: fit takes less. Dense(50) on 1,120 rows of 25,088 passes it by its tenth epoch, a small head on pooled rows never.
COMPILE = 1e10

_EVALUATE_ROWS = 1024


@dataclass(frozen=True)
class Data:
    """Rows (n, d) and class codes (n,) int64.

    `views` rows side by side are of one image.
    """

    rows: np.ndarray | Rows
    codes: np.ndarray
    views: int = 1

    @property
    def images(self) -> int:
        """How many rows an epoch sees."""
        return len(self.rows) // self.views

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Order the rows of an epoch: a random view of each image."""
        order = epoch_order(seed, epoch, self.images)
        if self.views == 1:
            return order
        return order * self.views + epoch_views(seed, epoch, self.images, self.views)[order]


def initial_layers(settings: Mapping[str, Any], features: int, classes: int) -> list[Any]:
    """Build the Keras layers that training starts from.

    Parameters
    ----------
    settings : mapping
        Of `DenseHead`, parsed.
    features, classes : int

    Returns
    -------
    list of keras.layers.Layer
        Dense, BatchNormalization and Dropout a hidden layer, then the Dense ``logits``; no softmax.
    """
    import keras

    seed: int = settings["seed"]
    made: list[Any] = []

    def units(count: int, name: str, activation: str | None) -> Any:
        initializer = keras.initializers.GlorotUniform(seed=layer_seed(seed, len(made)))
        return keras.layers.Dense(
            count, activation=activation, kernel_initializer=initializer, dtype="float32", name=name
        )

    for number, count in enumerate(settings["hidden"], start=1):
        made.append(units(count, f"head_dense_{number}", settings["activation"]))
        if settings["batch_norm"]:
            made.append(keras.layers.BatchNormalization(dtype="float32", name=f"head_norm_{number}"))
        if settings["dropout"]:
            dropout_seed = layer_seed(seed, len(made))
            made.append(dropout(settings["dropout"], dropout_seed, number))
    made.append(units(classes, "logits", None))
    shape: tuple[int | None, ...] = (None, features)
    for layer in made:
        layer.build(shape)
        shape = layer.compute_output_shape(shape)
    return made


class DenseProgram(Program):
    """Layers, optimizer and data as one TensorFlow function an epoch.

    In fits that are worth it each full batch is one XLA program, so that the optimizer's many elementwise
    steps pass memory once; the loop over batches is in the graph. Rows are standardised batch by batch:
    the matrix itself is never copied, and float16 rows stay float16 in memory. `Rows` are streamed: a call of the
    program then takes a piece of the epoch.
    """

    def __init__(
        self,
        layers: list[Any],
        settings: Mapping[str, Any],
        data: Data,
        scaling: tuple[np.ndarray, np.ndarray] | None,
        weights: np.ndarray | None,
    ) -> None:
        optimizer = keras_optimizer(
            settings["optimizer"], settings["learning_rate"], momentum=settings["momentum"]
        )
        super().__init__([v for layer in layers for v in layer.trainable_variables], optimizer, weights)
        tf = self._tf
        self.layers, self.data, self._l2 = layers, data, settings["l2"]
        self.batch = min(settings["batch_size"], data.images)
        # Float64 rows are centred before they are rounded: far from zero, float32 tells them apart no more.
        self._exact = tf.float64 if data.rows.dtype == np.float64 else tf.float32
        self._scaling = None if scaling is None else [tf.constant(part, self._exact) for part in scaling]
        self._whole = None
        if isinstance(data.rows, np.ndarray):
            self._whole = tf.convert_to_tensor(data.rows), tf.convert_to_tensor(data.codes)
        work = sum(math.prod(v.shape) for v in self._trained) * data.images * settings["epochs"]
        self._full = (
            tf.function(self._step, jit_compile=True, autograph=False) if work > COMPILE else self._step
        )
        self._epoch = tf.function(self._steps, autograph=False)
        self._evaluate = tf.function(self._measure, autograph=False, reduce_retracing=True)

    def _forward(self, rows: Any, *, training: bool) -> Any:
        import keras

        value = self._tf.cast(rows, self._exact)
        if self._scaling is not None:
            value = (value - self._scaling[0]) * self._scaling[1]
        value = self._tf.cast(value, self._tf.float32)
        for layer in self.layers:
            value = layer(value) if isinstance(layer, keras.layers.Dense) else layer(value, training=training)
        return value

    def _loss(self, logits: Any, codes: Any) -> Any:
        return super()._loss(logits, codes) + self._penalty()

    def _penalty(self) -> Any:
        tf = self._tf
        kernels = [layer.kernel.value for layer in self.layers if hasattr(layer, "kernel")]
        return self._l2 * tf.add_n([tf.reduce_sum(tf.square(k)) for k in kernels]) if self._l2 else 0.0

    def _steps(self, rows: Any, codes: Any, full: Any, rest: Any) -> Any:
        """Train on rows `full` (steps, batch), then on `rest` (r,)."""
        tf = self._tf

        def body(step: Any, sums: Any) -> Any:
            chosen = tf.ensure_shape(full[step], (self.batch,))  # XLA wants the shape before it runs
            return step + 1, sums + self._full(tf.gather(rows, chosen), tf.gather(codes, chosen))

        _, sums = tf.while_loop(
            lambda step, sums: step < tf.shape(full)[0],
            body,
            (tf.constant(0), tf.zeros(2)),
            parallel_iterations=1,
        )
        if rest.shape[0]:
            # Not compiled: a second XLA program takes longer than all the short batches of a usual fit.
            sums += self._step(tf.gather(rows, rest), tf.gather(codes, rest))
        return sums

    def run_epoch(self, order: np.ndarray) -> tuple[float, float]:
        """Train on all rows once; return mean loss and accuracy."""
        sums = np.zeros(2)
        if self._whole is not None:
            sums += self._run(*self._whole, order)
        else:
            for rows, numbers in batches(self.data.rows, self._piece(), order):
                codes = self._tf.constant(self.data.codes[numbers])
                sums += self._run(self._tf.constant(rows), codes, np.arange(len(rows)))
        return float(sums[0]) / len(order), float(sums[1]) / len(order)

    def _run(self, rows: Any, codes: Any, order: np.ndarray) -> np.ndarray:
        tf, full = self._tf, len(order) // self.batch * self.batch
        sums: np.ndarray = self._epoch(
            rows, codes, tf.constant(order[:full].reshape(-1, self.batch)), tf.constant(order[full:])
        ).numpy()
        return sums

    def _piece(self) -> int:
        """Rows of one streamed call: whole batches, so no step changes."""
        return gather_rows(self.data.rows, self.batch)  # type: ignore[arg-type]

    def evaluate(self, data: Data) -> tuple[float, float]:
        """Measure mean loss and accuracy in inference mode."""
        sums = np.zeros(2)
        for start in range(0, len(data.rows), _EVALUATE_ROWS):
            part = slice(start, start + _EVALUATE_ROWS)
            rows, codes = self._tf.constant(data.rows[part]), self._tf.constant(data.codes[part])
            sums += self._evaluate(rows, codes).numpy()
        return float(sums[0]) / len(data.rows) + float(self._penalty()), float(sums[1]) / len(data.rows)

    def weights(self) -> list[list[np.ndarray]]:
        """Copies of all weights, a list a layer that has any."""
        return [
            [np.array(v.value.numpy()) for v in layer.weights if "seed_generator" not in v.path]
            for layer in self.layers
        ]


def train_dense(
    program: DenseProgram,
    settings: Mapping[str, Any],
    validation: Data | None,
    on_epoch: Callable[[dict[str, float]], None] | None,
) -> tuple[list[list[np.ndarray]], list[dict[str, float]], int]:
    """Run the epochs, watching the validation rows when there are any.

    Returns
    -------
    weights : list of list of ndarray
        Of the epoch with the lowest validation loss; of the last one when nothing was watched.
    history : list of dict
        An entry an epoch: ``epoch``, ``loss``, ``accuracy``, ``val_loss``, ``val_accuracy``, ``learning_rate``.
    best : int
        The epoch, from 1, that `weights` come from.

    Raises
    ------
    HeadError
        The loss is no longer finite.
    """
    course = Course()

    def run_epoch(epoch: int) -> dict[str, float]:
        program.optimizer.learning_rate = rate = _learning_rate(settings, course.losses)
        loss, accuracy = program.run_epoch(program.data.order(settings["seed"], epoch))
        entry = {"epoch": float(epoch), "loss": loss, "accuracy": accuracy}
        if validation is not None:
            entry["val_loss"], entry["val_accuracy"] = program.evaluate(validation)
        if not math.isfinite(loss + entry.get("val_loss", 0.0)):
            raise HeadError(
                f"the loss is {loss} at epoch {epoch} (learning rate {rate:g}): expected a finite number; "
                "lower learning_rate, or set standardize=true"
            )
        return entry | {"learning_rate": rate}

    train_epochs(
        course, run_epoch, program.weights,
        epochs=settings["epochs"], patience=settings["patience"], watched=validation is not None,
        on_epoch=on_epoch or (lambda _: None),
    )  # fmt: skip
    return (program.weights() if course.kept is None else course.kept), course.history, course.best


def _learning_rate(settings: Mapping[str, Any], losses: list[float]) -> float:
    rate: float = settings["learning_rate"]
    if settings["reduce_lr"] is not None:
        lowest = min(rate, settings["min_learning_rate"])  # a rate that starts below is never raised
        for _ in range(count_plateaus(losses, settings["reduce_lr_patience"], PLATEAU_DELTA)):
            rate = max(rate * settings["reduce_lr"], lowest)
    return rate
