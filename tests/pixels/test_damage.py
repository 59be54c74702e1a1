"""What a decoder would pass over is refused by name, and no sound file is. No TensorFlow here."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from bottleneck.errors import Rejected
from bottleneck.pixels.damage import LARGEST_SCANS, MOST_SCANS, refuse_flaws
from bottleneck.pixels.header import check_header
from bottleneck.pixels.reasons import reason_for
from tests.pixels.mutations import sound_files
from tests.pixels.pictures import encoded, photo


def chunk(name: bytes, body: bytes, right: bool = True) -> bytes:
    return (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) ^ (not right))
    )


def png_of(colour: int, depth: int, *chunks: bytes) -> bytes:
    """A picture of 16 x 16 in which IDAT stands for itself."""
    wide = 16 * depth * {0: 1, 2: 3, 3: 1}[colour] // 8
    data = chunk(b"IDAT", zlib.compress((b"\0" + bytes(range(wide))) * 16))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(data if one == b"IDAT" else one for one in chunks)


PALETTE, END = chunk(b"PLTE", bytes(range(48))), chunk(b"IEND", b"")
CLEAR = {0: b"\0\1", 2: b"\0\1\0\2\0\3", 3: b"\0\x80"}


@pytest.mark.parametrize(("colour", "depth"), [(0, 1), (0, 4), (0, 8), (2, 8), (3, 4), (3, 8)])
def test_a_transparency_chunk_that_libpng_ignores_is_refused_by_name(colour: int, depth: int) -> None:
    palette, body = [PALETTE] * (colour == 3), CLEAR[colour]
    clear = chunk(b"tRNS", body)
    check_header(png_of(colour, depth, *palette, clear, b"IDAT", END))
    check_header(png_of(colour, depth, *palette, b"IDAT", END))
    for parts, words in (
        ((*palette, b"IDAT", clear, END), "behind the picture's data"),
        ((*palette, b"IDAT", END, clear), "behind the picture's data"),
        ((*palette, clear, clear, b"IDAT", END), "two transparency chunks"),
        ((*palette, chunk(b"tRNS", body, right=False), b"IDAT", END), "checksum does not fit"),
        ((*palette, chunk(b"tRNS", b""), b"IDAT", END), "of 0 bytes where"),
        ((*palette, chunk(b"tRNS", bytes(40)), b"IDAT", END), "of 40 bytes where"),
        ((*palette, *[chunk(b"teXt", b"a")] * 16384, clear, b"IDAT", END), "chunks before"),
        *(((clear, PALETTE, b"IDAT", END), "before its palette") for _ in palette),
    ):
        with pytest.raises(Rejected, match=words) as caught:
            check_header(png_of(colour, depth, *parts))
        assert (caught.value.stage, caught.value.retry) == ("header", False)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA"])
def test_a_bmp_whose_pixels_begin_too_early_is_refused_by_name(mode: str) -> None:
    data = encoded(Image.fromarray(photo()).convert(mode), "BMP")
    right = int.from_bytes(data[10:14], "little")
    check_header(data)
    for start in {0, 7, 45, 53, right - 1}:
        with pytest.raises(
            Rejected, match=f"begin at byte {start:,}, within its header or palette of {right:,}"
        ):
            check_header(data[:10] + struct.pack("<I", start) + data[14:])
    # Room between palette and pixels is allowed.
    check_header(data[:10] + struct.pack("<I", right + 4) + data[14:right] + bytes(4) + data[right:])


def scans(picture: np.ndarray, count: int, **options: object) -> bytes:
    """A JPEG file whose last scan is there `count` times."""
    whole = encoded(picture, "JPEG", **options)[:-2]
    last = whole.rindex(b"\xff\xda")
    return whole + whole[last:] * (count - 1) + b"\xff\xd9"


def test_a_jpeg_of_more_scans_than_any_encoder_writes_is_refused() -> None:
    grey = photo(channels=1)[..., 0]
    check_header(encoded(photo(), "JPEG", progressive=True))
    check_header(scans(grey, MOST_SCANS - 10, progressive=True))
    with pytest.raises(Rejected, match=f"more than {MOST_SCANS} scans"):
        check_header(scans(grey, 2 * MOST_SCANS, progressive=True))
    # In a large picture each costs more: 8000 x 8000 pixels by its header.
    large = bytearray(scans(grey, LARGEST_SCANS + 1, progressive=True))
    at = large.index(b"\xff\xc2")
    large[at + 5 : at + 9] = struct.pack(">HH", 8000, 8000)
    with pytest.raises(Rejected, match=f"more than {LARGEST_SCANS} scans"):
        check_header(bytes(large))
    # libjpeg stops behind a scan of all components; what stands behind the end or in a comment is no scan.
    check_header(scans(photo(), 2 * MOST_SCANS))
    check_header(encoded(grey, "JPEG", progressive=True) + b"\xff\xda" * 2 * MOST_SCANS)
    check_header(encoded(grey, "JPEG", progressive=True, comment=b"\xff\xda" * 2 * MOST_SCANS))


def test_sound_files_pass_also_cut_anywhere_without_another_error() -> None:
    for name, data in sound_files().items():
        check_header(data)
        kind = {"jpeg": "JPEG", "webp": "WebP"}.get(name.split()[0], name.split()[0].upper())
        for end in range(0, len(data), 7):
            try:
                refuse_flaws(kind, data[:end])
            except Rejected:
                assert kind in ("BMP", "PNG")


@pytest.mark.parametrize(
    ("message", "data", "reason"),
    [
        ("Invalid JPEG data, size 9", encoded(photo(), "JPEG")[:-40], "JPEG is cut off: "),
        ("jpeg::Uncompress failed. Invalid JPEG data", encoded(photo(), "JPEG"), "JPEG data is damaged"),
        ("Invalid PNG data, size 9", encoded(photo(), "PNG")[:-40], "PNG is cut off or damaged: its IDAT chunk"),
        ("Invalid PNG data, size 9", encoded(photo(), "PNG")[:-12], "without its end"),
        ("Invalid PNG data, size 9", png_of(0, 8, chunk(b"IDAT", b"?", right=False)), "checksum of its IDAT"),
        ("Invalid PNG data, size 9", encoded(photo(), "PNG"), "PNG data is damaged"),
        ("Failed to decode WebP image.", encoded(photo(), "WebP")[:-40], "WebP is cut off: "),
        ("Failed to decode WebP image.", encoded(photo(), "WebP"), "WebP data is damaged"),
        ("Invalid GIF data (size 9), found color index", encoded(photo(), "GIF"), "GIF data is damaged: found color"),
        ("assertion failed: [BMP is cut off (bytes:] [9] [)]", encoded(photo(), "BMP"), "BMP is cut off"),
        ("something new", b"BM", "something new"),
        (None, b"", "the decoder gave no reason"),
    ],
)  # fmt: skip
def test_a_reason_is_one_plain_sentence(message: str | None, data: bytes, reason: str) -> None:
    around = f'Graph execution error:\n\nDetected at node X defined at\n  File "a", line 3, in b\n\n{message}\n\t [[X]]'
    found = reason_for(message and around, data)
    assert reason in found
    assert "\n" not in found
    assert "Graph" not in found
    assert len(found) < 120
