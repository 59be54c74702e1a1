"""The EXIF orientation, wherever a file says it and whatever it says."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pixels.pictures import H, W, decoded, encoded, exif, photo, pillow, png, turned

pytestmark = pytest.mark.keras


@pytest.mark.fault(69)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_all_eight_orientations(kind: str, order: str) -> None:
    for orientation in range(1, 9):
        block = exif(orientation, order, before=orientation)
        data = encoded(photo(), kind, exif=b"Exif\0\0" + block)
        expected = turned(pillow(data), orientation)
        assert np.array_equal(decoded(data, *expected.shape[:2]), expected), orientation


def test_orientation_in_a_png_behind_its_pixels() -> None:
    pixels = photo()
    data = png(2, 8, pixels.reshape(H, -1), after=exif(6))
    assert np.array_equal(decoded(data, W, H), turned(pixels, 6))


def test_orientation_behind_other_segments_and_filling() -> None:
    data = encoded(photo(), "JPEG")
    segment = b"\xff\xff\xe1" + struct.pack(">H", len(exif(3)) + 8) + b"Exif\0\0" + exif(3)
    others = b"".join(b"\xff\xe2" + struct.pack(">H", 4) + b"ab" for _ in range(30))
    xmp = b"\xff\xe1" + struct.pack(">H", 31) + b"http://ns.adobe.com/xap/1.0/\0"
    assert np.array_equal(decoded(data[:2] + others + xmp + segment + data[2:]), turned(pillow(data), 3))


def with_exif(block: bytes) -> bytes:
    data = encoded(photo(), "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block + data[2:]


@pytest.mark.parametrize(
    "block",
    [
        exif(0),
        exif(9),
        exif(0xFFFF),
        exif(3, kind=2),
        b"",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"II*\0\0\0\0\0\1\0",
        b"XX" + exif(3)[2:],
        b"MM\0*" + exif(3)[4:],
        exif(3)[:-8],
    ],
)
def test_exif_that_makes_no_sense_is_orientation_1(block: bytes) -> None:
    data = with_exif(block)
    assert np.array_equal(decoded(data), pillow(encoded(photo(), "JPEG")))


@given(st.data())
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
def test_malformed_exif_is_never_an_error(data: st.DataObject) -> None:
    block = bytearray(exif(data.draw(st.integers(0, 9)), data.draw(st.sampled_from("<>")), before=2))
    for _ in range(data.draw(st.integers(0, 6))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.sampled_from([0, 1, 3, 8, 127, 255]))
    block = block[: data.draw(st.integers(0, len(block)))]
    pixels = decoded(with_exif(bytes(block)))
    assert abs(float(pixels.mean()) - float(photo().mean())) < 5
