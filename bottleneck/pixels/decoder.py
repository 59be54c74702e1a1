"""Decode files for extraction, by the contract's graph or a shorter way.

With Numba there are two shorter ways. `fast.jpeg_eighth` reads large JPEG files, of which the contract needs an eighth;
libjpeg reads all others. Then `fast.resize` turns the picture and brings it to the target's extent. A way is taken only
after it has given the graph's pixels for test pictures, on this machine, with these versions.
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


#: From a file and its header to pixels; None where this way does not apply.
Way = Callable[[bytes, header.ImageHeader], np.ndarray | None]

#: Files after which the import of Numba (half a second) pays off, at a millisecond a file.
_MANY = 256

_EXIF = b"Exif\0\0"


class Decoder:
    """Decodes files to pixels at one size; threads may share it.

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
        # At once, in another thread: tracing is Python's work, and the first forward pass, which comes next, is not.
        pool = ThreadPoolExecutor(1, thread_name_prefix="decoder")
        self._graph = pool.submit(_graph, pixels)
        # For either axis, since the file may be turned.
        self._large = 8 * max(pixels.height, pixels.width)
        finishing = functools.cache(lambda: _Finishing(pixels, self._graph.result()))
        self._eighth = _ShorterWay(lambda: _at_an_eighth(finishing()), 1, pool)
        self._usual = _ShorterWay(lambda: _by_libjpeg(pixels, finishing()), _MANY, pool)

    def ready(self, coming: int = 0) -> None:
        """Wait for all ways that past and `coming` files need."""
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
            return view_of(self._graph.result()(string_tensor(data))) if pixels is None else pixels
        except tf.errors.ResourceExhaustedError as error:
            raise Rejected("decode", "there was no memory to decode it in", retry=True) from error
        except tf.errors.OpError as error:
            raise Rejected("decode", reason_for(error.message, data)) from error


class _ShorterWay:
    """A shorter way, set up in `pool` once file number `worth` comes.

    It gives None until it is ready, and where it does not work.
    """

    def __init__(self, build: Callable[[], Way], worth: int, pool: ThreadPoolExecutor) -> None:
        self._build, self._worth, self._pool = build, worth, pool
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
            self._way = self._pool.submit(_way_or_none, self._build)

    def __call__(self, data: bytes, head: header.ImageHeader) -> np.ndarray | None:
        with self._counting:
            self._files += 1
            self._set_up_for(self._files)
        return self._way.result()(data, head) if self._way and self._way.done() else None


def _way_or_none(build: Callable[[], Way]) -> Way:
    """Build a way, or one that gives None where Numba fails."""
    if importlib.util.find_spec("numba") is None:
        return lambda data, head: None
    try:
        return build()
    except Exception:
        # Numba may lack a compiler's target or a folder for compiled code, or give other pixels than TensorFlow.
        logging.getLogger(__name__).warning("JPEG files are decoded the long way", exc_info=True)
        return lambda data, head: None


def _graph(pixels: Pixels) -> Callable[[Any], Any]:
    from bottleneck.pixels.contract.decode import decoder

    # A concrete function: to look for it among others costs a tenth of a decoding, under Python's lock.
    graph: Callable[[Any], Any] = decoder(pixels.height, pixels.width, pixels.resize).get_concrete_function()
    graph(string_tensor(_ONE_PIXEL))  # Set up once, or each decoding thread would do that at its first image.
    return graph


class _Finishing:
    """Turns and resizes the raw picture of a JPEG file (points 4-6).

    The first time on a machine this compiles for some seconds.
    """

    def __init__(self, pixels: Pixels, graph: Callable[[Any], Any]) -> None:
        from bottleneck.pixels.fast.resize import fitted, upright

        _demand_fit(fitted, pixels, graph)
        self._fitted, self._upright = fitted, upright
        self._read_orientation = orientation_graph().get_concrete_function()
        self._read_orientation(string_tensor(b""))  # As in `_graph`.
        self._pixels = pixels

    def orientation(self, head: bytes) -> int:
        """Read 1 to 8 from what stands before the data."""
        # Most files that are not turned have no EXIF.
        return int(self._read_orientation(string_tensor(head))) if _EXIF in head else 1

    def __call__(self, picture: np.ndarray, orientation: int) -> np.ndarray | None:
        turned = self._upright(picture, orientation)
        return self._fitted(turned, self._pixels.height, self._pixels.width, self._pixels.resize)


def orientation_graph() -> Any:
    """Build the function from a JPEG file to its EXIF orientation.

    Returns
    -------
    tf.function
        From a scalar string, the file at least up to its data, to () int32, 1 to 8: point 4 of the contract.

    Examples
    --------
    >>> int(orientation_graph()(b""))
    1
    """
    import tensorflow as tf

    from bottleneck.pixels.contract.fields import jpeg_exif, octets_of, orientation_of

    def orientation(head: Any) -> Any:
        with tf.device("/CPU:0"):
            raw, size = octets_of(head)
            return orientation_of(raw, size, jpeg_exif(raw, size))

    return tf.function(orientation, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def _at_an_eighth(finish: _Finishing) -> Way:
    from bottleneck.pixels.fast.jpeg_eighth import at_an_eighth

    for halved in (True, False):
        _demand_agreement(at_an_eighth, halved)

    def way(data: bytes, _: header.ImageHeader) -> np.ndarray | None:
        decoded = at_an_eighth(data)
        if decoded is None:
            return None
        picture, start = decoded
        return finish(picture, finish.orientation(data[:start]))

    return way


def _demand_agreement(at_an_eighth: Callable[[bytes], tuple[np.ndarray, int] | None], halved: bool) -> None:
    """Raise where pixels differ from TensorFlow's; chroma whole or `halved`."""
    import tensorflow as tf

    (picture,) = probes(1, 203, 330).astype(np.uint8)
    file = tf.io.encode_jpeg(picture, quality=90, chroma_downsampling=halved)
    decoded = at_an_eighth(file.numpy())
    wanted = tf.io.decode_jpeg(file, channels=3, ratio=8, dct_method="INTEGER_ACCURATE")
    if decoded is None or not np.array_equal(decoded[0], wanted):
        raise ArithmeticError(
            "pixels.fast.jpeg_eighth gives other pixels than TensorFlow's libjpeg on this machine"
        )


def _by_libjpeg(pixels: Pixels, finish: _Finishing) -> Way:
    import tensorflow as tf

    def way(data: bytes, head: header.ImageHeader) -> np.ndarray | None:
        orientation = finish.orientation(data)
        ratio = _ratio(head, pixels, orientation)
        try:
            picture = view_of(
                tf.io.decode_jpeg(string_tensor(data), channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")
            )
        except tf.errors.OpError:
            return None  # The graph finds it too, and words the error.
        if picture.shape[:2] != (-(-head.height // ratio), -(-head.width // ratio)):
            return None  # Where two headers differ, the one that libjpeg takes counts.
        return finish(picture, orientation)

    return way


def _demand_fit(
    fitted: Callable[[np.ndarray, int, int, str], np.ndarray | None],
    pixels: Pixels,
    graph: Callable[[Any], Any],
) -> None:
    """Raise where resized pixels differ from the graph's."""
    import tensorflow as tf

    height, width = pixels.height, pixels.width
    # Enlarged on one axis; of boxes on one axis; of boxes on both, with a rest.
    for rows, columns in (
        (height // 2 + 1, width + 1),
        (height + 1, 2 * width + 1),
        (2 * height + 1, 3 * width + 2),
    ):
        (picture,) = probes(1, rows, columns).astype(np.uint8)
        resized = fitted(picture, height, width, pixels.resize)
        if resized is None or not np.array_equal(resized, graph(tf.io.encode_png(picture))):
            raise ArithmeticError("pixels.fast.resize gives other pixels than TensorFlow on this machine")


def _ratio(head: header.ImageHeader, pixels: Pixels, orientation: int) -> int:
    # The DCT ratio of the contract, as `contract.formats.jpeg_image` has it.
    rows, columns = (head.width, head.height) if orientation > 4 else (head.height, head.width)
    tall, wide = rows // pixels.height, columns // pixels.width
    room = max(tall, wide) if pixels.resize == "pad" else min(tall, wide)
    return max(ratio for ratio in (1, 2, 4, 8) if ratio <= max(room, 1))


def string_tensor(data: bytes) -> Any:
    """Make a scalar tensor of `data`.

    Ten times as fast as from a bytes object, which takes TensorFlow 4 ms for 3 MB.
    """
    import tensorflow as tf

    scalar = np.empty((), object)
    scalar[()] = data
    return tf.constant(scalar)


def view_of(tensor: Any) -> np.ndarray:
    """View the numbers of `tensor` without a copy, read-only.

    ``tensor.numpy()`` copies into fresh memory: a quarter of the time to decode 299 x 299.
    """
    return np.asarray(memoryview(tensor))


def first_line(message: str | None) -> str:
    """Return the first line of a decoder's error, for a person."""
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    return lines[0][:300] if lines else "the decoder gave no reason"
