"""Run a Keras base: one graph, one batch shape, inference mode."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bottleneck.bases import custom
from bottleneck.bases.load import LoadedBase, features_of, load_cuts
from bottleneck.bases.precision import isa
from bottleneck.contracts import Forward
from bottleneck.errors import NotReducible, UsageError
from bottleneck.forward import frozen_graph
from bottleneck.forward.batch_size import ON_CPU, ON_GPU
from bottleneck.forward.concurrency import in_turn
from bottleneck.forward.cuts import specs_of
from bottleneck.pixels.decoder import Decoder, first_line
from bottleneck.pixels.probes import probes
from bottleneck.pixels.samples import decoder_of
from bottleneck.schema import BaseRequest, Cache, Precision, StoreSpec, ViewPolicy
from bottleneck.store.canary import DECODER
from bottleneck.store.header import find_store
from bottleneck.system.onednn import onednn_in_use

#: Of networks that are too large to be frozen, or have nothing to fold; part of the numeric environment.
_KERAS_GRAPH = "keras graph 1"

#: Passes at a batch shape that is tried; the first is nearly all set-up.
_TRIED = 3


def prepare_process() -> None:
    """Set TensorFlow up: memory grows on GPUs, float32 is float32."""
    import tensorflow as tf

    for device in tf.config.list_physical_devices("GPU"):
        # Too late, and no harm, where this process has used the GPU already.
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(device, True)
    # On by default on GPUs; parity to 1e-4 does not survive a mantissa of ten bits.
    tf.config.experimental.enable_tensor_float_32_execution(False)


def open_forward(requests: Sequence[BaseRequest], cache: Cache) -> Forward:
    """Open the forward pass of one base at its cuts.

    A ``module:function`` may give anything that keeps the `Forward` contract instead of a Keras model.

    Raises
    ------
    UsageError
        Several cuts are asked of such a forward pass, which has one of its own.
    """
    first = requests[0]
    if custom.is_function(first.base):
        forward = custom.call(first.base)
        if isinstance(forward, Forward):
            if len(specs_of(forward)) != len(requests):
                raise UsageError(
                    f"--cut: {len(requests)} were asked for; {first.base} gives a forward pass of its own, with "
                    f"{len(specs_of(forward))}"
                )
            return forward
    return keras_forward(functools.partial(load_cuts, cache=cache), requests, cache)


def keras_forward(
    load: Callable[[Sequence[BaseRequest]], Sequence[LoadedBase]],
    requests: Sequence[BaseRequest],
    cache: Cache,
) -> KerasForward:
    """Make the forward pass of bases; `auto` may fall to float32.

    Raises
    ------
    NotReducible
        They cannot be computed in the precision that `requests` name.
    """
    prepare_process()
    batch = batch_for(requests[0], cache)
    try:
        return KerasForward(load(requests), batch, again=lambda: load(requests))
    except NotReducible:
        if requests[0].precision != "auto":
            raise
    # What there is to reduce shows in the graph alone, and the precision is in the name of the rows: once more.
    exact = [one.computed_in("float32") for one in requests]
    return KerasForward(load(exact), batch, again=lambda: load(exact))


def batch_for(request: BaseRequest, cache: Cache) -> Callable[[Sequence[StoreSpec]], int]:
    """Choose the batch shape: asked for, the stores', or the usual."""

    def choose(specs: Sequence[StoreSpec]) -> int:
        if request.batch:
            return request.batch
        batches = {spec.cut: find_store(cache, spec)[1].batch for spec in specs}
        known = {batch for batch in batches.values() if batch}
        if len(known) > 1:
            shapes = ", ".join(f"{batch} ({cut})" for cut, batch in batches.items() if batch)
            raise UsageError(
                f"the stores of these cuts have other batch shapes: {shapes}. Give --batch, or extract one "
                "cut at a time"
            )
        return known.pop() if known else _usual_batch()

    return choose


def _usual_batch() -> int:
    import tensorflow as tf

    return ON_GPU if tf.config.list_physical_devices("GPU") else ON_CPU


class KerasForward:
    """A loaded base as extraction sees it.

    Parameters
    ----------
    bases : sequence of LoadedBase
        One network at one cut or at several.
    batch : callable
        Gives the batch shape for their `StoreSpec`.
    precision : {"float32", "bfloat16", "float16"}, optional
        Another one than the recipe's, to see what that costs.
    again : callable, optional
        Gives `bases` once more, for trials of other batch shapes.
    """

    def __init__(
        self,
        bases: Sequence[LoadedBase],
        batch: Callable[[Sequence[StoreSpec]], int],
        precision: Precision | None = None,
        again: Callable[[], Sequence[LoadedBase]] | None = None,
    ) -> None:
        import tensorflow as tf

        self.specs: tuple[StoreSpec, ...] = tuple(base.spec for base in bases)
        self.spec: StoreSpec = self.specs[0]
        self.batch: int = batch(self.specs)
        precision = precision or self.spec.recipe.precision
        pixels = self.spec.recipe.pixels
        model = features_of(bases)
        self._tf = tf
        self._views: dict[ViewPolicy, Any] = {}
        self._making_views = threading.Lock()
        self._shape = (self.batch, pixels.height, pixels.width, 3)
        if precision != "float32" and not frozen_graph.fits(model):
            raise NotReducible(
                f"--precision {precision}: {self.spec.base} has 2 GB of weights or more, which no frozen graph can "
                "hold; use --precision float32"
            )
        self._precision, self._again = precision, again
        self.environment: Mapping[str, str] = tensorflow_environment(
            frozen_graph.IMPLEMENTATION if self._is_frozen(model) else _KERAS_GRAPH
        )
        self._call = self._compile(model, self._shape)
        # A frozen graph holds the weights itself; the network is kept where it may have to show what precision costs.
        self._model = model if precision != "float32" else None
        self._decoder = Decoder(pixels)

    def ready(self, coming: int = 0) -> None:
        """Wait for the decoder."""
        self._decoder.ready(coming)

    def decode(self, data: bytes) -> np.ndarray:
        """(height, width, 3) float32 in 0..255 from the bytes of a file."""
        return self._decoder(data)

    def view(self, pixels: np.ndarray, key: bytes, policy: ViewPolicy) -> np.ndarray:
        """The augmented view of `pixels` that has this key, by `images.augment`."""
        with self._making_views:
            augment = self._views.get(policy)
            if augment is None:
                from bottleneck.pixels.augment import augmenter

                # With its graph, or every decoding thread would make one at its first view.
                height, width, _ = pixels.shape
                augment = augmenter(height, width, policy).get_concrete_function()
                self._views[policy] = augment
        seed = self._tf.constant(policy.draw_seed(key), self._tf.int64)
        return np.asarray(augment(self._tf.constant(pixels), seed))

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Compute the rows (batch, *shape) of the first cut."""
        return self.several(pixels)[0]

    def several(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        """Compute the rows (batch, *shape) of each cut."""
        return tuple(np.asarray(rows, np.float32) for rows in self._call(self._tf.constant(pixels)))

    def exact(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        """Compute rows (n, *shape) of each cut in float32.

        By a graph made for the moment, of Keras: it is sooner set up than a frozen one, and as good to a few digits.
        """
        assert self._model is not None, "float32 has no other rows"
        call = _keras_graph(self._model, pixels.shape)
        return tuple(np.asarray(rows, np.float32) for rows in call(self._tf.constant(pixels)))

    def rate(self, batch: int) -> float:
        """Measure images a second at another batch shape. Raises MemoryError."""
        if self._again is None:
            raise MemoryError("the base cannot be built once more")
        tf = self._tf
        self._model = self._model or features_of(self._again())
        _, height, width, _ = self._shape
        pixels = tf.constant(probes(batch, height, width))
        call = self._compile(self._model, (batch, height, width, 3))
        seconds = []
        try:
            for _ in range(_TRIED):
                started = time.perf_counter()
                for rows in call(pixels):
                    np.asarray(rows)
                seconds.append(time.perf_counter() - started)
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(first_line(error.message)) from error
        return batch / min(seconds)

    def _compile(self, model: Any, shape: tuple[int, ...]) -> Callable[[Any], list[Any]]:
        if self._is_frozen(model):
            return frozen_graph.freeze_graph(model, shape, self._precision)
        return _keras_graph(model, shape)

    def _is_frozen(self, model: Any) -> bool:
        return frozen_graph.fits(model) and (
            self._precision != "float32" or frozen_graph.has_batchnorm(model)
        )


def _keras_graph(model: Any, shape: tuple[int, ...]) -> Callable[[Any], list[Any]]:
    import tensorflow as tf

    call = tf.function(
        lambda x: tf.nest.flatten(model(x, training=False)),
        input_signature=[tf.TensorSpec(shape, tf.float32)],
    )
    return in_turn(call, call.get_concrete_function().graph)


def tensorflow_environment(forward: str = frozen_graph.IMPLEMENTATION) -> dict[str, str]:
    """Describe what rows' bits depend on besides recipe and batch."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    device = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else "CPU"
    onednn = onednn_in_use()
    facts = {
        "forward": forward,
        "device": str(device),
        "machine": platform.machine(),
        "isa": isa(),
        "onednn": str(int(onednn)),
        "tf32": str(int(tf.config.experimental.tensor_float_32_execution_enabled())),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "tensorflow": importlib.metadata.version("tensorflow"),
        "keras": importlib.metadata.version("keras"),
        DECODER: decoder_of(),
    }
    if not onednn:
        # Eigen's sums are cut up among threads.
        asked = tf.config.threading.get_intra_op_parallelism_threads()
        facts["threads"] = str(asked or os.environ.get("TF_NUM_INTRAOP_THREADS") or os.cpu_count())
    return facts
