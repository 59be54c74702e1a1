"""From the bytes of a file to pixels, as extraction does it: the contract's graph, and a shorter way to the same bits.

The shorter way is for large JPEG files, of which the contract wants an eighth: `images.jpeg_eighth`, where Numba is
installed. It is taken only after it has given the graph's own pixels of pictures made here, on this machine, with
these versions.
"""

from __future__ import annotations

import base64
import importlib.util
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from bottleneck.errors import Rejected
from bottleneck.images import header
from bottleneck.images.probes import probes
from bottleneck.schema import Pixels

#: A PNG of one black pixel.
_ONE_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


class Decoder:
    """The function from files to pixels at a base's size. Many threads may call it at once.

    Parameters
    ----------
    pixels : Pixels
        The target's extent, and how it is reached.

    Examples
    --------
    >>> from bottleneck.schema import Pixels
    >>> Decoder(Pixels(height=8, width=8))(_ONE_PIXEL).shape
    (8, 8, 3)
    """

    def __init__(self, pixels: Pixels) -> None:
        # Aside, and now: tracing is Python's work, and what comes next, the first forward pass, is not.
        aside = ThreadPoolExecutor(1, thread_name_prefix="decoder")
        self._graph = aside.submit(_graph, pixels)
        self._eighth = _Eighth(pixels, aside)

    def ready(self) -> None:
        """Wait until all is set up that the files until now have called for."""
        self._graph.result()
        self._eighth.ready()

    def __call__(self, data: bytes) -> np.ndarray:
        """Pixels of one file.

        Parameters
        ----------
        data : bytes

        Returns
        -------
        numpy.ndarray
            (height, width, 3) float32 in 0..255.

        Raises
        ------
        Rejected
            Stage ``header`` or ``decode``: no image of the contract, or no whole one.
        """
        import tensorflow as tf

        head = header.check(data)
        try:
            pixels = self._eighth(data, head)
            return np.asarray(self._graph.result()(text_of(data))) if pixels is None else pixels
        except tf.errors.OpError as error:
            raise Rejected("decode", first_line(error.message)) from error


class _Eighth:
    """The shorter way, set up `aside` at the first file that it is for. Until then, and where there is none, None."""

    def __init__(self, pixels: Pixels, aside: ThreadPoolExecutor) -> None:
        self._pixels = pixels
        # Of either axis, so that it does not matter here how the file is turned.
        self._least = 8 * max(pixels.height, pixels.width)
        self._aside = aside
        self._beginning = threading.Lock()
        self._way: Future[Callable[[bytes], np.ndarray | None]] | None = None

    def ready(self) -> None:
        if self._way is not None:
            self._way.result()

    def __call__(self, data: bytes, head: header.Header) -> np.ndarray | None:
        if head.format != "JPEG" or min(head.width, head.height) < self._least:
            return None
        with self._beginning:
            if self._way is None:
                self._way = self._aside.submit(_shorter, self._pixels)
        return self._way.result()(data) if self._way.done() else None


def _graph(pixels: Pixels) -> Callable[[Any], Any]:
    """Set up by one image, or each decoding thread would do that for itself at its first."""
    from bottleneck.images.decode import decoder

    # The one graph there is: to look for it among others costs a tenth of a decoding, under Python's lock.
    made: Callable[[Any], Any] = decoder(pixels.height, pixels.width, pixels.resize).get_concrete_function()
    made(text_of(_ONE_PIXEL))
    return made


def _shorter(pixels: Pixels) -> Callable[[bytes], np.ndarray | None]:
    """From the bytes of a JPEG file of which the contract wants an eighth to pixels; None where that is not to be had.

    The first time on a machine this compiles for some seconds.
    """
    import tensorflow as tf

    from bottleneck.images.decode import finisher

    if importlib.util.find_spec("numba") is None:
        return lambda data: None
    try:
        from bottleneck.images.jpeg_eighth import at_an_eighth

        for halved in (True, False):
            _demand_agreement(at_an_eighth, halved)
    except Exception:
        # Whatever Numba may not find here: a compiler's target, a folder for what it compiled; or libjpeg's pixels.
        logging.getLogger(__name__).warning("large JPEG files are decoded the long way", exc_info=True)
        return lambda data: None
    finish = finisher(pixels.height, pixels.width, pixels.resize).get_concrete_function()
    finish(text_of(b""), tf.zeros([8, 8, 3], tf.uint8))  # As in `_graph`.

    def way(data: bytes) -> np.ndarray | None:
        found = at_an_eighth(data)
        if found is None:
            return None
        picture, start = found
        return np.asarray(finish(text_of(data[:start]), tf.constant(picture)))

    return way


def _demand_agreement(at_an_eighth: Callable[[bytes], tuple[np.ndarray, int] | None], halved: bool) -> None:
    """Raise where the pixels are not TensorFlow's, of a picture with as many or half as many samples of chroma."""
    import tensorflow as tf

    (picture,) = probes(1, 203, 330).astype(np.uint8)
    file = tf.io.encode_jpeg(picture, quality=90, chroma_downsampling=halved)
    found = at_an_eighth(file.numpy())
    wanted = tf.io.decode_jpeg(file, channels=3, ratio=8, dct_method="INTEGER_ACCURATE")
    if found is None or not np.array_equal(found[0], wanted):
        raise ArithmeticError(
            "images.jpeg_eighth gives other pixels than TensorFlow's libjpeg on this machine"
        )


def text_of(data: bytes) -> Any:
    """`data` as a scalar tensor. TensorFlow copies a bytes object by itself ten times as slowly: 4 ms for 3 MB."""
    import tensorflow as tf

    held = np.empty((), object)
    held[()] = data
    return tf.constant(held)


def first_line(message: str | None) -> str:
    """What a decoder's error begins with, for a person."""
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    return lines[0][:300] if lines else "the decoder gave no reason"
