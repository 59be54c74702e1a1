"""Read the header of an image file before any decoder does.

A decoder believes the header: 60 bytes that promise 100,000 x 100,000 pixels cost it gigabytes. So plain Python reads
the extent first, and refuses too large an image.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from bottleneck.errors import Rejected
from bottleneck.pixels.damage import is_frame, refuse_flaws

MAX_PIXELS = 64_000_000

#: Formats of the pixel contract, and others that are images but not of it, by the start of the file.
_SIGNATURES: tuple[tuple[str, int, tuple[bytes, ...]], ...] = (
    ("JPEG", 0, (b"\xff\xd8\xff",)),
    ("PNG", 0, (b"\x89PNG\r\n\x1a\n",)),
    ("GIF", 0, (b"GIF87a", b"GIF89a")),
    ("WebP", 8, (b"WEBP",)),
    ("TIFF", 0, (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ("AVIF", 4, (b"ftypavif", b"ftypavis")),
    ("HEIC", 4, (b"ftypheic", b"ftypheix", b"ftypheim", b"ftypheis", b"ftyphevc", b"ftypmif1", b"ftypmsf1")),
    ("camera raw", 4, (b"ftypcrx ",)),
    ("camera raw", 0, (b"FUJIFILMCCD-RAW", b"IIRO", b"IIU\0")),
    ("JPEG XL", 0, (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
    ("JPEG 2000", 0, (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")),
    ("JPEG XR", 0, (b"II\xbc\x01",)),
    ("Photoshop", 0, (b"8BPS",)),
    ("icon", 0, (b"\0\0\1\0", b"\0\0\2\0")),
    ("OpenEXR", 0, (b"\x76\x2f\x31\x01",)),
    ("Radiance HDR", 0, (b"#?RADIANCE", b"#?RGBE")),
    ("DICOM", 128, (b"DICM",)),
    ("FITS", 0, (b"SIMPLE  =",)),
    ("DirectDraw surface", 0, (b"DDS ",)),
    ("GIMP", 0, (b"gimp xcf",)),
    ("QOI", 0, (b"qoif",)),
    ("FLIF", 0, (b"FLIF",)),
    ("BPG", 0, (b"BPG\xfb",)),
    ("DjVu", 0, (b"AT&TFORM",)),
    ("Sun raster", 0, (b"\x59\xa6\x6a\x95",)),
    ("MNG", 0, (b"\x8aMNG\r\n\x1a\n",)),
)
_NETPBM = re.compile(rb"P[1-7][ \t\r\n#]")
_SVG = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE svg[^>]*>\s*)?<svg[\s>]", re.S | re.I)

#: Other files that lie among images, by their start in lower case.
_OTHER_FILES = (
    *((b"<?xml", "XML"), (b"%pdf", "a PDF"), (b"%!ps", "PostScript"), (b"pk\x03\x04", "a zip archive")),
    *(
        (b"\x1f\x8b", "gzip data"),
        (b"version https://git-lfs", "a Git LFS pointer"),
        (b"riff", "a RIFF file"),
    ),
    *((b"{", "JSON"), (b"\x89hdf", "HDF5")),
)

SUPPORTED = ("JPEG", "PNG", "GIF", "BMP", "WebP")

#: Suffixes, in lower case and with the dot, that make a file image-like whatever it holds.
# fmt: off
IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff",
    ".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".jxr", ".psd", ".ico", ".cur", ".exr",
    ".hdr", ".dcm", ".dds", ".xcf", ".qoi", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".cr2", ".cr3",
    ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf",
))
# fmt: on


class ImageHeader(NamedTuple):
    """Format and stored extent of an image (before EXIF orientation)."""

    format: str
    width: int
    height: int


def format_of(head: bytes) -> str | None:
    """Name the image format of a file by its first 256 bytes.

    Examples
    --------
    >>> format_of(b"GIF89a"), format_of(b"II*\\0"), format_of(b"hello")
    ('GIF', 'TIFF', None)
    """
    for name, at, starts in _SIGNATURES:
        if head.startswith(starts, at) and (name != "WebP" or head.startswith(b"RIFF")):
            return name
    # Two letters begin many a text; the header's own size and a zero reserved word do not.
    if head[:2] == b"BM" and len(head) >= 18 and _little(head, 14, 4) in (12, 16, 40, 52, 56, 64, 108, 124):
        return "BMP"
    if _NETPBM.match(head):
        return "Netpbm"
    return "SVG" if _SVG.match(head) else None


def looks_like_image(head: bytes) -> bool:
    """Whether `head` (256 bytes suffice) begins any known image format.

    Wider than what can be decoded: a TIFF is image-like, and `check_header` then refuses it by name.

    Examples
    --------
    >>> looks_like_image(b"\\x89PNG\\r\\n\\x1a\\n"), looks_like_image(b"label,path")
    (True, False)
    """
    return format_of(head) is not None


def inspect_header(data: bytes) -> ImageHeader:
    """Read format, width and height from the header.

    Parameters
    ----------
    data : bytes
        The whole file (the extent may stand anywhere in a JPEG).

    Returns
    -------
    ImageHeader
        For a GIF the canvas with the first frame, which may be larger than its screen and takes as much memory.

    Raises
    ------
    Rejected
        Stage ``header``: empty, not an image, not of a supported format, or a header that ends too early.

    Examples
    --------
    >>> inspect_header(b"GIF89a" + bytes([5, 0, 3, 0, 0, 0, 0]) + b"," + bytes([0, 0, 0, 0, 5, 0, 3, 0, 0]))
    ImageHeader(format='GIF', width=5, height=3)
    """
    if not data:
        raise Rejected("header", "empty file")
    name = format_of(data[:1024])
    if name is None:
        raise Rejected("header", f"not an image: {_looks(data[:1024])}")
    if name not in SUPPORTED:
        raise Rejected("header", f"{name} is not supported; convert it to one of {', '.join(SUPPORTED)}")
    reader = {"JPEG": _jpeg, "PNG": _png, "GIF": _gif, "BMP": _bmp, "WebP": _webp}[name]
    try:
        width, height = reader(data)
    except IndexError:
        raise Rejected("header", f"{name} is cut off in its header ({len(data)} bytes)") from None
    return ImageHeader(name, width, height)


def pixel_limit(max_pixels: int = MAX_PIXELS) -> str:
    """Describe the limit of `check_header`, for as long as it holds.

    Examples
    --------
    >>> pixel_limit(100)
    'at most 100 pixels'
    """
    return f"at most {max_pixels:,} pixels"


def check_header(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Refuse what no decoder should see.

    Parameters
    ----------
    data : bytes
        The whole file.
    max_pixels : int
        Largest width times height.

    Returns
    -------
    ImageHeader

    Raises
    ------
    Rejected
        As `inspect_header` and `refuse_flaws`; no pixels at all; or too many, with ``retry=True``, because the limit
        may change and the bytes do not.

    Examples
    --------
    >>> check_header(b"<html></html>")
    Traceback (most recent call last):
    bottleneck.errors.Rejected: header: not an image: a web page
    """
    header = inspect_header(data)
    if header.width < 1 or header.height < 1:
        raise Rejected("header", f"{header.format} of {header.width} x {header.height} pixels")
    if header.width * header.height > max_pixels:
        raise Rejected(
            "header",
            f"{header.format} of {header.width} x {header.height} pixels; at most {max_pixels:,} are decoded",
            retry=True,
            circumstances=pixel_limit(max_pixels),
        )
    refuse_flaws(header.format, data)
    return header


def _looks(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in start:
        return "a web page"
    for magic, name in _OTHER_FILES:
        if start.startswith(magic):
            return name
    if head[4:8] == b"ftyp":
        return "a video"
    if not head.strip(b"\0"):
        return "zeros"
    try:
        text = head.decode("utf-8") if len(head) < 1024 else head[:-4].decode("utf-8", "strict")
    except UnicodeDecodeError:
        return f"unknown bytes, beginning {head[:8].hex(' ')}"
    return "text" if text.isprintable() or not re.search(r"[\x00-\x08\x0e-\x1f]", text) else "unknown bytes"


def _little(data: bytes, at: int, length: int) -> int:
    if at + length > len(data):
        raise IndexError
    return int.from_bytes(data[at : at + length], "little")


def _big(data: bytes, at: int, length: int) -> int:
    if at + length > len(data):
        raise IndexError
    return int.from_bytes(data[at : at + length], "big")


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        # Filling and stray bytes before a marker are skipped, as libjpeg does.
        at = data.find(b"\xff", at)
        if at < 0:
            raise IndexError
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker in (0x00, 0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            continue
        if marker in (0xD9, 0xDA):
            raise Rejected("header", "JPEG without a frame before its data")
        if is_frame(marker):
            return _big(data, at + 5, 2), _big(data, at + 3, 2)
        at += max(2, _big(data, at, 2))


def _png(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR":
        raise Rejected("header", "PNG does not begin with its header chunk")
    return _big(data, 16, 4), _big(data, 20, 4)


def _bmp(data: bytes) -> tuple[int, int]:
    if _little(data, 14, 4) < 40:
        raise Rejected("header", "BMP with an OS/2 header is not supported; convert it to PNG")
    bits, packing = _little(data, 28, 2), _little(data, 30, 4)
    if bits not in (1, 4, 8, 24, 32) or packing not in (0, 3):
        raise Rejected(
            "header", f"BMP of {bits} bits, compression {packing} is not supported; convert it to PNG"
        )
    height = _little(data, 22, 4)
    return _little(data, 18, 4), height if height < 2**31 else 2**32 - height


def _gif(data: bytes) -> tuple[int, int]:
    def table(flags: int) -> int:
        return 3 << ((flags & 7) + 1) if flags & 0x80 else 0

    width, height = _little(data, 6, 2), _little(data, 8, 2)
    at = 13 + table(data[10])
    while data[at] == 0x21:
        at += 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    if data[at] != 0x2C:
        raise Rejected("header", "GIF without a frame")
    # The frame may be larger than the screen: 65535 x 10924 on a screen of 1 x 1 took 3.5 GB from 485 KB.
    left, top, wide, tall = (_little(data, at + 1 + 2 * i, 2) for i in range(4))
    if not wide or not tall:
        return 0, 0
    return max(width, left + wide), max(height, top + tall)


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8 ":
        return _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
    if kind == b"VP8L":
        bits = _little(data, 21, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        if data[20] & 2:
            # TensorFlow 2.21 writes past its buffer on these; the graph refuses them too.
            raise Rejected("header", "animated WebP is not supported; convert it to PNG, GIF or a still WebP")
        return _little(data, 24, 3) + 1, _little(data, 27, 3) + 1
    raise Rejected("header", f"WebP with an unknown first chunk {kind!r}")
