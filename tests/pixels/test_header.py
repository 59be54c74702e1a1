"""Headers are read right, and what no decoder should see is refused before one does. No TensorFlow here."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bottleneck.errors import Rejected
from bottleneck.pixels.header import IMAGE_SUFFIXES, check_header, format_of, inspect_header, looks_like_image


def encoded(kind: str, size: tuple[int, int] = (37, 21), mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 0).save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII5B", 13, b"IHDR", width, height, 8, 2, 0, 0, 0) + b"\0" * 4
    )


def gif(screen: tuple[int, int], frame: tuple[int, int, int, int], extensions: bytes = b"") -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + b"\0" * 6
    return head + extensions + b"," + struct.pack("<HHHHB", *frame, 0) + b"\2\2\x4c\1\0;"


def jpeg_header(width: int, height: int, before: bytes = b"") -> bytes:
    return b"\xff\xd8" + before + b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + b"\0" * 9


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "L", {"progressive": True}),
        ("JPEG", "RGB", {"exif": b"Exif\0\0" + b"x" * 5000}),
        ("PNG", "RGBA", {}),
        ("PNG", "1", {}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("BMP", "P", {}),
        ("WebP", "RGB", {}),
        ("WebP", "RGB", {"lossless": True}),
        ("WebP", "RGBA", {}),
        ("WebP", "RGB", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}),
    ],
)
@pytest.mark.parametrize("size", [(37, 21), (1, 1), (300, 2)])
def test_format_and_extent_are_what_pillow_reads(
    kind: str, mode: str, options: dict[str, object], size: tuple[int, int]
) -> None:
    data = encoded(kind, size, mode, **options)
    assert check_header(data) == (kind, *size) == (kind, *Image.open(io.BytesIO(data)).size)


def test_a_bmp_from_top_to_bottom_has_a_positive_height() -> None:
    data = bytearray(encoded("BMP"))
    data[22:26] = struct.pack("<i", -21)
    assert check_header(bytes(data))[1:] == (37, 21)


def test_filling_and_stray_bytes_before_a_jpeg_marker_are_skipped() -> None:
    assert inspect_header(jpeg_header(9, 7, b"\xff\xe2\0\4ab\xff\xff\xff\xd0xy"))[1:] == (9, 7)


def test_the_canvas_of_a_gif_holds_its_first_frame() -> None:
    assert inspect_header(gif((10, 10), (0, 0, 10, 10)))[1:] == (10, 10)
    assert inspect_header(gif((10, 20), (3, 4, 2, 2), b"!\xfe\3abc\1d\0!\xf9\4\0\0\0\0\0"))[1:] == (10, 20)
    assert inspect_header(gif((1, 1), (5, 6, 65000, 10000)))[1:] == (65005, 10006)


@pytest.mark.fault(67)
@pytest.mark.parametrize(
    "data",
    [
        png_header(100_000, 100_000),
        png_header(2**31, 2**31),
        jpeg_header(65_000, 65_000),
        gif((1, 1), (0, 0, 65535, 10924)) + b"\0" * 485_000,
        gif((65535, 65535), (0, 0, 1, 1)),
        b"BM" + b"\0" * 12 + struct.pack("<IiiHHI", 40, 60_000, -60_000, 1, 24, 0) + b"\0" * 20,
        b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\xff" * 2,
    ],
    ids=["png", "png-2^31", "jpeg", "gif-frame", "gif-screen", "bmp", "webp"],
)
def test_bombs_are_refused_for_now_and_cost_nothing(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Rejected, match="at most 64,000,000") as caught:
            check_header(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert caught.value.retry
    assert caught.value.stage == "header"


def test_the_limit_is_the_largest_that_passes() -> None:
    assert check_header(png_header(8000, 8000)).width == 8000
    with pytest.raises(Rejected):
        check_header(png_header(8000, 8001))
    assert check_header(png_header(8000, 8001), 8000 * 8001).height == 8001


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html>\n<html>404</html>", "a web page"),
        (b"\xef\xbb\xbf  <HTML>", "a web page"),
        (b"path,label\na.jpg,cat\n", "text"),
        (b'{"error": 404}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"\0" * 600, "zeros"),
        (b"\0\0\0\x18ftypmp42" + b"\0" * 20, "a video"),
        (b"\x01\x02\x03\xfe\xff", "beginning 01 02 03"),
        (b"BM is not always a bitmap", "text"),
        (b"II*\0" + b"\0" * 20, "TIFF is not supported"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 20, "HEIC is not supported"),
        (b"\0\0\0\x18ftypavif" + b"\0" * 20, "AVIF is not supported"),
        (b"8BPS\0\1" + b"\0" * 20, "Photoshop is not supported"),
        (b"\0\0\1\0\1\0" + b"\0" * 20, "icon is not supported"),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "SVG is not supported"),
        (png_header(0, 5), "0 x 5 pixels"),
        (jpeg_header(5, 0), "5 x 0 pixels"),
        (gif((4, 4), (0, 0, 0, 4)), "0 x 0 pixels"),
        (b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0, 0, 0) + b";", "without a frame"),
        (b"\xff\xd8\xff\xd9", "without a frame"),
        (b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\2" + b"\0" * 20, "animated WebP"),
        (encoded("BMP")[:14] + struct.pack("<I", 12) + b"\0" * 40, "OS/2"),
        (encoded("BMP")[:30] + struct.pack("<I", 1) + encoded("BMP")[34:], "compression 1"),
    ],
)
def test_a_refusal_says_what_the_file_is_and_is_final(data: bytes, words: str) -> None:
    with pytest.raises(Rejected) as caught:
        check_header(data)
    assert words in caught.value.reason
    assert not caught.value.retry


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WebP"])
def test_a_header_cut_anywhere_is_a_rejection_or_the_truth(kind: str) -> None:
    data = encoded(kind, mode="P" if kind == "GIF" else "RGB")
    outcomes = set()
    for cut in range(min(len(data), 900)):
        try:
            header = check_header(data[:cut])
        except Rejected:
            outcomes.add("rejected")
        else:
            assert header == (kind, 37, 21)
            outcomes.add("read")
    assert outcomes == {"rejected", "read"}


@given(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WebP"]), st.data())
@settings(max_examples=150)
def test_no_bytes_raise_anything_but_a_rejection(kind: str, data: st.DataObject) -> None:
    whole = bytearray(encoded(kind, mode="P" if kind == "GIF" else "RGB"))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, min(len(whole), 64) - 1))] = data.draw(st.integers(0, 255))
    try:
        header = check_header(bytes(whole))
    except Rejected:
        return
    assert header.width * header.height <= 64_000_000


def test_image_like_is_wider_than_what_can_be_decoded() -> None:
    for kind, mode in [("TIFF", "RGB"), ("ICO", "RGB"), ("PPM", "RGB"), ("DDS", "RGB"), ("AVIF", "RGB")]:
        data = encoded(kind, (16, 16), mode)
        assert looks_like_image(data[:256]), kind
        with pytest.raises(Rejected, match="is not supported"):
            check_header(data)
    assert not looks_like_image(b"")
    assert not looks_like_image(b"RIFF\0\0\0\0WAVEfmt ")
    assert not looks_like_image(b"PK\x03\x04")
    assert format_of(b"RIFF\0\0\0\0WEBPVP8 ") == "WebP"
    assert {".jpg", ".jpeg", ".png", ".tiff", ".heic"} <= IMAGE_SUFFIXES
    assert ".txt" not in IMAGE_SUFFIXES


def test_no_tensorflow() -> None:
    code = "import sys, bottleneck.pixels.header; sys.exit('tensorflow' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
