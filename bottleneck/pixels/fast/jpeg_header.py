"""Read how a baseline JPEG file codes its picture.

Only files as cameras and telephones write them: 8 bits, luma and two chroma planes, one scan. Anything odd gives None,
and is left to libjpeg.
"""

from __future__ import annotations

from typing import NamedTuple

#: Sampling of luma against chroma, across and down: 4:4:4, 4:2:2 and 4:2:0.
_SAMPLINGS = ((1, 1), (2, 1), (2, 2))

#: Baseline and extended; other processes, and arithmetic coding, are not read here.
_FRAMES = (0xC0, 0xC1)
#: All 64 coefficients in all their bits.
_ALL_AT_ONCE = b"\0\x3f\0"
_HUFFMAN, _SCAN, _QUANTISATION, _RESTART, _ADOBE = 0xC4, 0xDA, 0xDB, 0xDD, 0xEE
#: Of cameras and programs, and comments.
_REMARKS = frozenset((*range(0xE0, 0xF0), 0xFE))
#: Adobe's word for luma and chroma; the other ones are RGB and inks.
_YCC = 1
_RGB_NAMES = b"RGB"


class Code(NamedTuple):
    """A Huffman code."""

    #: Of codes with 1 to 16 bits.
    counts: bytes
    #: In the order of their codes.
    symbols: bytes

    def is_sound(self) -> bool:
        """Whether every symbol has a code, so no read passes the end."""
        code = 0
        for length, count in enumerate(self.counts, 1):
            code += count
            # No code is all ones.
            if count and code >= 1 << length:
                return False
            code <<= 1
        return 0 < len(self.symbols) == sum(self.counts) <= 256 and len(self.counts) == 16


class Scan(NamedTuple):
    """What a file says before the data of its picture."""

    #: Pixels, as stored.
    width: int
    height: int
    #: Luma blocks for each chroma block.
    across: int
    down: int
    #: 64 steps for each plane, in zigzag order.
    quantisation: tuple[bytes, ...]
    #: For each plane.
    dc: tuple[Code, ...]
    ac: tuple[Code, ...]
    #: Groups of blocks between two restart markers; 0 where there are none.
    restart: int
    #: Where the data begin in the file.
    start: int


def scan_of(data: bytes) -> Scan | None:
    """Read the one scan of a baseline JPEG file; None for others.

    Parameters
    ----------
    data : bytes
        The whole file.

    Examples
    --------
    >>> scan_of(b"GIF89a") is None
    True
    """
    frame: bytes | None = None
    restart = 0
    quantisation: dict[int, bytes] = {}
    codes: dict[int, Code] = {}
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if length < 2 or len(body) != length - 2:
            return None
        at += 2 + length
        if marker == _SCAN:
            return _scan(frame, body, quantisation, codes, restart, at) if frame is not None else None
        if marker == _QUANTISATION:
            sound = bool(steps := _steps_of(body))
            quantisation |= steps
        elif marker == _HUFFMAN:
            sound = bool(more := _codes_of(body))
            codes |= more
        elif marker == _RESTART:
            sound = len(body) == 2
            restart = int.from_bytes(body, "big")
        elif marker in _FRAMES:
            sound = frame is None
            frame = body
        else:
            sound = marker in _REMARKS and (marker != _ADOBE or _is_ycc(body))
        if not sound:
            return None
    return None


def _is_ycc(body: bytes) -> bool:
    # True for segments of others too: without Adobe's word the file is taken for YCC.
    return body[:5] != b"Adobe" or body[11:12] == bytes([_YCC])


def _steps_of(body: bytes) -> dict[int, bytes]:
    """Read quantisation tables by number; none where one is unsound."""
    # Unsound: cut off, of 16 bits, or with steps of zero.
    if len(body) % 65:
        return {}
    tables = {body[i]: body[i + 1 : i + 65] for i in range(0, len(body), 65)}
    return tables if max(tables, default=0) < 4 and all(map(all, tables.values())) else {}


def _codes_of(body: bytes) -> dict[int, Code]:
    """Read codes by number (AC: 16 on); none if one is unsound."""
    codes = {}
    while body:
        end = 17 + sum(body[1:17])
        code = Code(body[1:17], body[17:end])
        if body[0] & 15 > 3 or body[0] >> 4 > 1 or not code.is_sound():
            return {}
        # A DC symbol is a number of digits.
        if body[0] < 16 and max(code.symbols) > 15:
            return {}
        codes[body[0]] = code
        body = body[end:]
    return codes


def _scan(
    frame: bytes,
    body: bytes,
    quantisation: dict[int, bytes],
    codes: dict[int, Code],
    restart: int,
    start: int,
) -> Scan | None:
    """Join frame and scan header; None for an unusual kind."""
    # Eight bits, and three planes in the frame's order in one scan.
    if len(frame) != 15 or frame[0] != 8 or frame[5] != 3 or len(body) != 10 or body[0] != 3:
        return None
    names, sampling, steps = frame[6::3], frame[7::3], frame[8::3]
    across, down = divmod(sampling[0], 16)
    if names == _RGB_NAMES or len(set(names)) < 3 or body[1:7:2] != names:
        return None
    if (across, down) not in _SAMPLINGS or sampling[1:] != b"\x11\x11":
        return None
    tables = body[2:7:2]
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    if not height or not width or body[7:] != _ALL_AT_ONCE:
        return None
    try:
        dc, ac = tuple(codes[one >> 4] for one in tables), tuple(codes[16 + (one & 15)] for one in tables)
        return Scan(
            width, height, across, down, tuple(quantisation[one] for one in steps), dc, ac, restart, start
        )
    except KeyError:
        return None
