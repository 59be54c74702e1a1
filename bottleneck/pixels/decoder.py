"""From the bytes of a file to pixels, as extraction does it: the contract's graph, and shorter ways to the same bits.

Where Numba is installed there are two. Large JPEG files, of which the contract wants an eighth, are read by
`images.jpeg_eighth`; of all others libjpeg makes the picture. Then `images.fitting` turns it and brings it to the
target's extent. Each is taken only after it has given the graph's own pixels of pictures made here, on this machine,
with these versions.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from bottleneck.errors import Rejected
from bottleneck.pixels import header
from bottleneck.pixels.probes import probes
from bottleneck.pixels.reasons import reason_for
from bottleneck.schema import Pixels

#: A PNG of one black pixel.
_ONE_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


#: From a file and its header to pixels; None where this is not to be had.
Way = Callable[[bytes, header.ImageHeader], np.ndarray | None]

#: Files after which to import Numba, half a second of work, is soon made good by a millisecond a file.
_MANY = 256

_EXIF = b"Exif\0\0"


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
        # Of either axis, so that it does not matter here how the file is turned.
        self._large = 8 * max(pixels.height, pixels.width)
        finishing = functools.cache(lambda: _Finishing(pixels, self._graph.result()))
        self._eighth = _Shorter(lambda: _at_an_eighth(finishing()), 1, aside)
        self._usual = _Shorter(lambda: _by_libjpeg(pixels, finishing()), _MANY, aside)

    def ready(self, coming: int = 0) -> None:
        """Wait until all is set up that the files until now call for, and would with so many `coming` ones."""
        self._graph.result()
        self._eighth.ready(coming)
        self._usual.ready(coming)

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

        head = header.check_header(data)
        pixels = None
        if head.format == "JPEG":
            is_large = min(head.width, head.height) >= self._large
            pixels = (self._eighth if is_large else self._usual)(data, head)
        try:
            return held_by(self._graph.result()(text_of(data))) if pixels is None else pixels
        except tf.errors.ResourceExhaustedError as error:
            raise Rejected("decode", "there was no memory to decode it in", retry=True) from error
        except tf.errors.OpError as error:
            raise Rejected("decode", reason_for(error.message, data)) from error


class _Shorter:
    """A shorter way, set up `aside` when the file comes that makes it `worth` it, counted from 1.

    Until it is there, and where there is none, None.
    """

    def __init__(self, make: Callable[[], Way], worth: int, aside: ThreadPoolExecutor) -> None:
        self._make, self._worth, self._aside = make, worth, aside
        self._counting = threading.Lock()
        self._files = 0
        self._way: Future[Way] | None = None

    def ready(self, coming: int) -> None:
        with self._counting:
            if self._files:
                self._set_up_for(self._files + coming)
        if self._way is not None:
            self._way.result()

    def _set_up_for(self, files: int) -> None:
        if self._way is None and files >= self._worth:
            self._way = self._aside.submit(_there, self._make)

    def __call__(self, data: bytes, head: header.ImageHeader) -> np.ndarray | None:
        with self._counting:
            self._files += 1
            self._set_up_for(self._files)
        return self._way.result()(data, head) if self._way and self._way.done() else None


def _there(make: Callable[[], Way]) -> Way:
    """What `make` gives; a way that gives nothing where Numba is not there, or does not do as it should."""
    if importlib.util.find_spec("numba") is None:
        return lambda data, head: None
    try:
        return make()
    except Exception:
        # Whatever Numba may not find here: a compiler's target, a folder for what it compiled; or TensorFlow's pixels.
        logging.getLogger(__name__).warning("JPEG files are decoded the long way", exc_info=True)
        return lambda data, head: None


def _graph(pixels: Pixels) -> Callable[[Any], Any]:
    """Set up by one image, or each decoding thread would do that for itself at its first."""
    from bottleneck.pixels.contract.decode import decoder

    # The one graph there is: to look for it among others costs a tenth of a decoding, under Python's lock.
    made: Callable[[Any], Any] = decoder(pixels.height, pixels.width, pixels.resize).get_concrete_function()
    made(text_of(_ONE_PIXEL))
    return made


class _Finishing:
    """From the picture of a JPEG file as it lies in the file to pixels: points 4 to 6 of the contract.

    The first time on a machine this compiles for some seconds.
    """

    def __init__(self, pixels: Pixels, graph: Callable[[Any], Any]) -> None:
        from bottleneck.pixels.fast.orientation import turning
        from bottleneck.pixels.fast.resize import fitted, upright

        _demand_fit(fitted, pixels, graph)
        self._fitted, self._upright = fitted, upright
        self._turn = turning().get_concrete_function()
        self._turn(text_of(b""))  # As in `_graph`.
        self._pixels = pixels

    def orientation(self, head: bytes) -> int:
        """1 to 8, from the file at least up to its data."""
        # Most files that are turned in no way say nothing of it.
        return int(self._turn(text_of(head))) if _EXIF in head else 1

    def __call__(self, picture: np.ndarray, orientation: int) -> np.ndarray | None:
        """(height, width, 3) float32 from (rows, columns, 3) uint8; None where this is not to be had."""
        turned = self._upright(picture, orientation)
        return self._fitted(turned, self._pixels.height, self._pixels.width, self._pixels.resize)


def _at_an_eighth(finish: _Finishing) -> Way:
    """From a JPEG file of which the contract wants an eighth. Compiles as `_Finishing` does."""
    from bottleneck.pixels.fast.jpeg_eighth import at_an_eighth

    for halved in (True, False):
        _demand_agreement(at_an_eighth, halved)

    def way(data: bytes, _: header.ImageHeader) -> np.ndarray | None:
        found = at_an_eighth(data)
        if found is None:
            return None
        picture, start = found
        return finish(picture, finish.orientation(data[:start]))

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


def _by_libjpeg(pixels: Pixels, finish: _Finishing) -> Way:
    """From a JPEG file of any other extent."""
    import tensorflow as tf

    def way(data: bytes, head: header.ImageHeader) -> np.ndarray | None:
        orientation = finish.orientation(data)
        ratio = _ratio(head, pixels, orientation)
        try:
            picture = held_by(
                tf.io.decode_jpeg(text_of(data), channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")
            )
        except tf.errors.OpError:
            return None  # The graph finds it too, and has its own words.
        if picture.shape[:2] != (-(-head.height // ratio), -(-head.width // ratio)):
            return None  # Of a file that says two things libjpeg's is the one that counts.
        return finish(picture, orientation)

    return way


def _demand_fit(
    fitted: Callable[[np.ndarray, int, int, str], np.ndarray | None],
    pixels: Pixels,
    graph: Callable[[Any], Any],
) -> None:
    """Raise where the pixels are not the graph's: enlarged on one axis; of boxes on one; on both, with a rest."""
    import tensorflow as tf

    height, width = pixels.height, pixels.width
    for rows, columns in (
        (height // 2 + 1, width + 1),
        (height + 1, 2 * width + 1),
        (2 * height + 1, 3 * width + 2),
    ):
        (picture,) = probes(1, rows, columns).astype(np.uint8)
        found = fitted(picture, height, width, pixels.resize)
        if found is None or not np.array_equal(found, graph(tf.io.encode_png(picture))):
            raise ArithmeticError("images.fitting gives other pixels than TensorFlow on this machine")


def _ratio(head: header.ImageHeader, pixels: Pixels, orientation: int) -> int:
    """The DCT ratio of the contract, as `images.formats.jpeg_image` has it."""
    rows, columns = (head.width, head.height) if orientation > 4 else (head.height, head.width)
    tall, wide = rows // pixels.height, columns // pixels.width
    room = max(tall, wide) if pixels.resize == "pad" else min(tall, wide)
    return max(ratio for ratio in (1, 2, 4, 8) if ratio <= max(room, 1))


def text_of(data: bytes) -> Any:
    """`data` as a scalar tensor. TensorFlow copies a bytes object by itself ten times as slowly: 4 ms for 3 MB."""
    import tensorflow as tf

    held = np.empty((), object)
    held[()] = data
    return tf.constant(held)


def held_by(tensor: Any) -> np.ndarray:
    """The numbers of `tensor` where they lie, read-only; ``tensor.numpy()`` copies them, into memory that is fresh.

    Of a picture of 299 x 299 that took a quarter of the time of decoding it.
    """
    return np.asarray(memoryview(tensor))


def first_line(message: str | None) -> str:
    """What a decoder's error begins with, for a person."""
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    return lines[0][:300] if lines else "the decoder gave no reason"
