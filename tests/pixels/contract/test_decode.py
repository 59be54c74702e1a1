"""The contract as one function: what it refuses, and where it runs."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pixels.pictures import H, W, decoded, encoded, graph, photo

pytestmark = pytest.mark.keras


@given(st.binary(max_size=200), st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WebP"]))
@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
def test_rubbish_behind_a_signature_is_an_invalid_argument(rubbish: bytes, kind: str) -> None:
    import tensorflow as tf

    start = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "GIF": b"GIF89a", "BMP": b"BM"}
    # Nothing else may come out of it; a picture may.
    with contextlib.suppress(tf.errors.InvalidArgumentError):
        graph()(start.get(kind, b"RIFF\0\0\0\0WEBP") + rubbish)


def test_unknown_resizes_and_extents_are_refused() -> None:
    from bottleneck.pixels.contract.decode import decoder

    for arguments in ((0, 5, "stretch"), (5, -1, "stretch"), (5, 5, "fit")):
        with pytest.raises(ValueError, match="must be"):
            decoder(*arguments)


def test_many_threads_and_map_fn_give_the_same_bits() -> None:
    import tensorflow as tf

    images = [
        encoded(photo(50 + i, 90, seed=i), f) for i, f in enumerate(["JPEG", "PNG", "GIF", "BMP", "WebP"])
    ]
    alone = [decoded(data) for data in images]
    found: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        found[i] = graph()(images[i % 5]).numpy()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(20)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert all(np.array_equal(found[i], alone[i % 5]) for i in range(20))
    spec = tf.TensorSpec([H, W, 3], tf.float32)
    batch = tf.function(lambda b: tf.map_fn(graph(), b, fn_output_signature=spec))(tf.constant(images))
    assert np.array_equal(batch, alone)
