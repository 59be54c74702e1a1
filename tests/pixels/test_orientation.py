"""How a JPEG file is turned is read as the pixel contract reads it."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.pixels.pictures import encoded, photo

pytestmark = pytest.mark.keras


def test_each_of_the_eight_ways_and_none_is_told() -> None:
    from bottleneck.pixels.decoder import orientation_graph

    turn = orientation_graph()
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = encoded(photo(33, 40), "JPEG", exif=exif)
        assert int(turn(file)) == orientation
        # What stands before the data is enough.
        assert int(turn(file[: file.index(b"\xff\xda")])) == orientation
    assert int(turn(encoded(photo(33, 40), "JPEG"))) == 1
    assert int(turn(b"")) == 1
