"""A picture that another hand decoded ends as the decoder's own: turned, cut or padded, at the target's extent."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.images.pictures import decoded, encoded, photo

pytestmark = pytest.mark.keras

H, W = 21, 34


def turned(orientation: int) -> bytes:
    """A JPEG file that is to be shown so."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Of an extent at which the contract reads it whole, however it is turned.
    return encoded(photo(33, 40), "JPEG", exif=exif)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_it_gives_the_decoders_own_pixels_whichever_way_it_lies(resize: str) -> None:
    import tensorflow as tf

    from bottleneck.images.jpeg_finish import finisher, turning

    finish, turn = finisher(H, W, resize), turning()
    found = {}
    for orientation in range(1, 9):
        file = turned(orientation)
        assert int(turn(file)) == orientation
        picture = tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE")
        found[orientation] = finish(file, picture).numpy()
        np.testing.assert_array_equal(found[orientation], decoded(file, H, W, resize))
    assert len({pixels.tobytes() for pixels in found.values()}) == 8, "all eight ways differ"
