"""What is said of a JPEG file before its data, and of which files nothing is said."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from bottleneck.pixels.fast.jpeg_header import Code, scan_of
from tests.pixels.pictures import encoded, photo

#: Pillow's names of subsampling, and luma blocks across and down for one of chroma.
SUBSAMPLINGS = [("4:4:4", 1, 1), ("4:2:2", 2, 1), ("4:2:0", 2, 2)]


@pytest.mark.parametrize(("subsampling", "across", "down"), SUBSAMPLINGS)
def test_the_usual_file(subsampling: str, across: int, down: int) -> None:
    data = encoded(photo(50, 90), "JPEG", quality=85, subsampling=subsampling, restart_marker_blocks=3)
    scan = scan_of(data)
    assert scan is not None
    assert (scan.width, scan.height, scan.across, scan.down, scan.restart) == (90, 50, across, down, 3)
    tables = Image.open(io.BytesIO(data)).quantization
    # Pillow's are by rows, the file's in zigzag order: the first, second and last coefficient stand where they are.
    for ours, theirs in zip(scan.quantisation, (tables[0], tables[1], tables[1]), strict=True):
        assert (ours[0], ours[1], ours[63]) == (theirs[0], theirs[1], theirs[63])
    assert all(code.is_sound() for code in (*scan.dc, *scan.ac))
    assert scan.dc[1:] == scan.dc[1:2] * 2 and scan.dc[0] != scan.dc[1]
    assert data.rfind(b"\xff\xda", 0, scan.start) > 0


def adobe(transform: int) -> bytes:
    return b"\xff\xee" + struct.pack(">H", 14) + b"Adobe" + bytes([0, 100, 0, 0, 0, 0, transform])


def test_what_other_programs_write_before_the_data_changes_nothing() -> None:
    data = encoded(photo(50, 90), "JPEG")
    plain = scan_of(data)
    more = scan_of(data[:2] + b"\xff\xfe\0\x04hi" + adobe(1) + data[2:])
    assert plain is not None and more is not None
    assert more[:-1] == plain[:-1] and more.start > plain.start


UNUSUAL = {
    "another format": lambda data: encoded(photo(), "PNG"),
    "nothing": lambda data: b"",
    "progressive": lambda data: encoded(photo(), "JPEG", progressive=True),
    "grey": lambda data: encoded(photo()[..., 0], "JPEG"),
    "inks": lambda data: encoded(Image.fromarray(photo()).convert("CMYK"), "JPEG"),
    "4:1:1": lambda data: replaced(data, b"\xff\xc0", 11, b"\x41"),
    "RGB, by Adobe's word": lambda data: data[:2] + adobe(0) + data[2:],
    "RGB, by the planes' names": lambda data: encoded(photo(), "JPEG", keep_rgb=True),
    "twelve bits": lambda data: replaced(data, b"\xff\xc0", 4, b"\x0c"),
    "arithmetic coding": lambda data: data.replace(b"\xff\xc0", b"\xff\xc9", 1),
    "lossless": lambda data: data.replace(b"\xff\xc0", b"\xff\xc3", 1),
    "no height yet": lambda data: replaced(data, b"\xff\xc0", 5, b"\0\0"),
    "two frames": lambda data: data.replace(b"\xff\xc0", b"\xff\xc0\0\x02\xff\xc0", 1),
    "no quantisation": lambda data: data.replace(b"\xff\xdb", b"\xff\xfe"),
    "quantisation in 16 bits": lambda data: replaced(data, b"\xff\xdb", 4, b"\x10"),
    "a marker that is not known": lambda data: data.replace(b"\xff\xe0", b"\xff\x02", 1),
    "steps of nothing": lambda data: replaced(data, b"\xff\xdb", 9, b"\0"),
    "no codes": lambda data: data.replace(b"\xff\xc4", b"\xff\xfe"),
    "more codes than there are": lambda data: replaced(data, b"\xff\xc4", 5, b"\x03"),
    "a segment of no length": lambda data: data[:2] + b"\xff\xfe\0\0" + data[2:],
    "a segment past the end": lambda data: data[:2] + b"\xff\xfe\xff\xff" + data[2:],
    "cut off before the data": lambda data: data[: data.index(b"\xff\xda") + 6],
    "filling between segments": lambda data: data[:2] + b"\xff\xff\xfe\0\x02" + data[2:],
}


def replaced(data: bytes, marker: bytes, behind: int, value: bytes) -> bytes:
    at = data.index(marker) + behind
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize("name", UNUSUAL)
def test_of_an_unusual_file_nothing_is_said(name: str) -> None:
    usual = encoded(photo(), "JPEG")
    assert scan_of(usual) is not None
    assert scan_of(UNUSUAL[name](usual)) is None


def test_any_cut_before_the_data_is_seen() -> None:
    data = encoded(photo(), "JPEG")
    scan = scan_of(data)
    assert scan is not None
    assert all(scan_of(data[:end]) is None for end in range(scan.start))


def test_codes_that_are_too_many_or_too_few_for_their_symbols() -> None:
    whole = [0, 2, *([0] * 14)]
    assert Code(bytes(whole), b"ab").is_sound()
    assert not Code(bytes(whole), b"a").is_sound()
    assert not Code(bytes([3, *whole[1:]]), b"abcde").is_sound()
    assert not Code(bytes([0, 0, *([0] * 14)]), b"").is_sound()
    # No code is all ones: of one bit there is one.
    assert not Code(bytes([2, *([0] * 15)]), b"ab").is_sound()
    assert Code(bytes([1, 1, 1, *([0] * 13)]), np.arange(3, dtype=np.uint8).tobytes()).is_sound()
