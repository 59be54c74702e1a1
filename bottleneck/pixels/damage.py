"""Find flaws that a decoder ignores or pays dearly for.

An ignored flaw gives another picture. A walk over the bytes, before any decoder has them, looks for the flaws that were
seen to matter. What libpng, libjpeg, libwebp and the pixel contract's readers notice is left to them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping

from bottleneck.errors import Rejected

#: libjpeg goes over the whole picture once for each scan. Encoders write about ten. Any file may have the first number,
#: a small one more, up to the second, while all passes cost no more: half a minute on a slow processor.
LARGEST_SCANS, MOST_SCANS = 100, 500
_MOST_PASSED = 100 * 64_000_000

#: Frames whose scans refine each other.
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)

#: As `fields` has it: the graph looks no further for a chunk.
_CHUNKS = 16384

#: tRNS by colour type: bytes of the one shade or colour that is clear; None: at most as many as the palette has.
_CLEAR: Mapping[int, int | None] = {0: 2, 2: 6, 3: None}


def refuse_flaws(kind: str, data: bytes) -> None:
    """Refuse a file for what its decoder would pass over.

    Parameters
    ----------
    kind : str
        The format, as `inspect_header` names it.
    data : bytes
        The whole file, whose header was read.

    Raises
    ------
    Rejected
        Stage ``header``: a PNG whose tRNS chunk libpng ignores; a BMP whose pixels begin within its header or
        palette; a JPEG of too many scans.

    Examples
    --------
    >>> refuse_flaws("GIF", b"GIF89a")
    """
    check = _BY_FORMAT.get(kind)
    if check is not None:
        check(data)


def _png(data: bytes) -> None:
    """Refuse a transparency chunk that libpng would silently ignore.

    It does where the chunk is out of place, damaged or of a wrong length. The picture then has no transparency; of
    fewer than 8 bits TensorFlow also fills its alpha with a wrong value, and it comes out nearly white.
    """
    colour, palette, clear = data[25:26], 0, 0
    expected = _CLEAR.get(colour[0] if colour else -1, 0)
    begun = False  # the picture's data
    for seen, (name, at, length) in enumerate(png_chunks(data)):
        if name == b"IDAT":
            begun = True
        elif name == b"PLTE":
            palette = length // 3
        elif name == b"tRNS" and expected != 0:
            clear += 1
            if begun:
                raise Rejected("header", "PNG with its transparency chunk behind the picture's data")
            if clear > 1:
                raise Rejected("header", "PNG with two transparency chunks")
            if seen >= _CHUNKS:
                raise Rejected("header", f"PNG with {seen:,} chunks before its transparency chunk")
            if expected is None and not palette:
                raise Rejected("header", "PNG with its transparency chunk before its palette")
            if length != expected and (expected is not None or not 1 <= length <= palette):
                wanted = f"{expected}" if expected else f"at most {palette}"
                raise Rejected(
                    "header", f"PNG with a transparency chunk of {length:,} bytes where {wanted} are right"
                )
            stored = int.from_bytes(data[at + length : at + length + 4], "big")
            if zlib.crc32(data[at - 4 : at + length]) != stored:
                raise Rejected("header", "PNG with a damaged transparency chunk (its checksum does not fit)")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, offset and length of PNG chunks.

    They may pass the end of the file.

    Examples
    --------
    >>> list(png_chunks(b"\\x89PNG\\r\\n\\x1a\\n" + bytes(3) + b"\\2IDATxy" + bytes(8) + b"IEND"))
    [(b'IDAT', 16, 2), (b'IEND', 30, 0)]
    """
    at = 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at + 8, length
        at += 12 + length


def _bmp(data: bytes) -> None:
    # Pixels that begin too early are bytes of the header or of the palette.
    start, header = int.from_bytes(data[10:14], "little"), int.from_bytes(data[14:18], "little")
    bits, packing = int.from_bytes(data[28:30], "little"), int.from_bytes(data[30:34], "little")
    used = int.from_bytes(data[46:50], "little")
    # Three masks stand behind the oldest header; later ones hold them.
    before = 14 + header + (12 if packing == 3 and header == 40 else 0)
    if bits <= 8:
        before += 4 * min(used or 1 << bits, 1 << bits)
    if start < before:
        raise Rejected(
            "header",
            f"BMP whose pixels begin at byte {start:,}, within its header or palette of {before:,} bytes",
        )


def is_frame(marker: int) -> bool:
    """Whether a JPEG marker starts a frame.

    Examples
    --------
    >>> is_frame(0xC2), is_frame(0xC4)
    (True, False)
    """
    return 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)


def _jpeg(data: bytes) -> None:
    scans, most, components, at = 0, MOST_SCANS, 0, 2
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 10 > len(data):
            return
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in (0x00, 0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            at += 2  # within a scan's data, or of no length
            continue
        if marker == 0xD9:
            return
        if is_frame(marker):
            components = 0 if marker in _PROGRESSIVE else data[at + 9]
            extent = int.from_bytes(data[at + 5 : at + 7], "big") * int.from_bytes(
                data[at + 7 : at + 9], "big"
            )
            most = max(LARGEST_SCANS, min(MOST_SCANS, _MOST_PASSED // max(extent, 1)))
        elif marker == 0xDA:
            scans += 1
            # A scan of all components is the only one, unless it is progressive; and few files have the mark often,
            # though it is also counted where it stands in a thumbnail or behind the picture.
            if scans == 1 and (data[at + 4] == components or data.count(b"\xff\xda", at) <= most):
                return
            if scans > most:
                raise Rejected(
                    "header",
                    f"JPEG of more than {most} scans, each of which costs a pass over the whole picture",
                )
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))


_BY_FORMAT: Mapping[str, Callable[[bytes], None]] = {"PNG": _png, "BMP": _bmp, "JPEG": _jpeg}
