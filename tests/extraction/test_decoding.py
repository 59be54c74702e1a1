"""Files to pixels in extraction: the shorter way gives the graph's bits, and is taken where it is there."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bottleneck.errors import Rejected
from bottleneck.extraction import decoding
from bottleneck.schema import Pixels
from tests.images.pictures import decoded, encoded, photo

pytestmark = pytest.mark.keras

HEIGHT, WIDTH = 20, 31
LARGE = photo(8 * 41, 8 * 52 + 3)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(LARGE, "JPEG", quality=92, exif=exif)


def decoder_of(resize: str = "stretch") -> decoding.Decoder:
    return decoding.Decoder(Pixels(height=HEIGHT, width=WIDTH, resize=resize))


def by_graph_alone(decoder: decoding.Decoder, data: bytes) -> np.ndarray:
    return np.asarray(decoder._graph.result()(decoding.text_of(data)))


def shorter_alone(decoder: decoding.Decoder, data: bytes, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What the decoder gives where the graph must not be asked."""

    def refuse(data: Any) -> Any:
        raise AssertionError("by the graph")

    decoder(data)
    decoder.ready()
    with monkeypatch.context() as patch:
        patch.setattr(decoder._graph, "result", lambda: refuse)
        return decoder(data)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_the_shorter_way_gives_the_bits_of_the_graph(resize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoder_of(resize)
    for orientation in range(1, 9):
        data = turned(orientation)
        found = shorter_alone(decoder, data, monkeypatch)
        assert (found.shape, found.dtype) == ((HEIGHT, WIDTH, 3), np.float32)
        np.testing.assert_array_equal(found, by_graph_alone(decoder, data))
        np.testing.assert_array_equal(found, decoded(data, HEIGHT, WIDTH, resize))


def test_nothing_is_set_up_for_files_that_it_is_not_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_shorter", lambda pixels: pytest.fail("set up"))
    decoder = decoder_of()
    # One row fewer than eight times the longer side of the target; and as large, but no JPEG.
    for data in (encoded(LARGE[: 8 * WIDTH - 1], "JPEG"), encoded(LARGE, "PNG")):
        np.testing.assert_array_equal(decoder(data), by_graph_alone(decoder, data))
        decoder.ready()


def test_a_file_that_it_cannot_read_goes_to_the_graph() -> None:
    decoder = decoder_of()
    for data in (encoded(LARGE, "JPEG", progressive=True), encoded(LARGE[..., 0], "JPEG")):
        decoder(data)
        decoder.ready()
        np.testing.assert_array_equal(decoder(data), by_graph_alone(decoder, data))
    cut = turned(1)[:-900]
    with pytest.raises(Rejected) as caught:
        decoder(cut)
    assert caught.value.stage == "decode"


def with_other_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    from bottleneck.images import jpeg_eighth

    real = jpeg_eighth.at_an_eighth
    monkeypatch.setattr(jpeg_eighth, "at_an_eighth", lambda data: (real(data)[0] ^ 1, real(data)[1]))


def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    # With other pixels that nobody would notice, so that these show where it is used all the same.
    with_other_pixels(monkeypatch)
    monkeypatch.setattr(decoding, "_demand_agreement", lambda *_: None)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numba" else real(name))


@pytest.mark.parametrize(("lack", "said"), [(without_numba, ""), (with_other_pixels, "other pixels")])
def test_where_it_is_not_there_or_gives_other_pixels_the_graph_decodes(
    lack: Callable[[pytest.MonkeyPatch], None],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lack(monkeypatch)
    decoder = decoder_of()
    for _ in range(2):
        np.testing.assert_array_equal(decoder(turned(6)), by_graph_alone(decoder, turned(6)))
        decoder.ready()
    assert said in caplog.text


def test_a_numba_that_does_not_work_is_told_of_and_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "bottleneck.images.jpeg_eighth", None)
    monkeypatch.delattr("bottleneck.images.jpeg_eighth", raising=False)
    decoder = decoder_of()
    for _ in range(2):
        np.testing.assert_array_equal(decoder(turned(1)), by_graph_alone(decoder, turned(1)))
        decoder.ready()
    assert "the long way" in caplog.text
