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
from bottleneck.pixels import decoder as decoding
from bottleneck.schema import Pixels
from tests.pixels.pictures import decoded, encoded, photo

pytestmark = pytest.mark.keras

HEIGHT, WIDTH = 20, 31
LARGE = photo(8 * 41, 8 * 52 + 3)
#: No eight times the longer side, so that libjpeg reads it, at a ratio that differs between kinds of resizing.
USUAL = photo(131, 202)


def turned(orientation: int, picture: np.ndarray = LARGE, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture, "JPEG", **{"quality": 92, "exif": exif, **options})


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second file on is soon enough, for what is worth it after many."""
    monkeypatch.setattr(decoding, "_MANY", 2)


def decoder_of(resize: str = "stretch") -> decoding.Decoder:
    return decoding.Decoder(Pixels(height=HEIGHT, width=WIDTH, resize=resize))


def by_graph_alone(decoder: decoding.Decoder, data: bytes) -> np.ndarray:
    return np.asarray(decoder._graph.result()(decoding.string_tensor(data)))


def shorter_alone(decoder: decoding.Decoder, data: bytes, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What the decoder gives where the graph must not be asked."""

    def refuse(data: Any) -> Any:
        raise AssertionError("by the graph")

    for _ in range(2):
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


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_so_does_the_one_for_files_of_usual_size(resize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoder_of(resize)
    grey, inked = USUAL[..., 0], Image.fromarray(USUAL).convert("CMYK")
    for data in (
        encoded(USUAL, "JPEG"),
        turned(1, USUAL),
        encoded(USUAL, "JPEG", progressive=True, subsampling="4:4:4"),
        encoded(grey, "JPEG"),
        encoded(inked, "JPEG"),
        # Reduced by 1, by 2, by 4, and enlarged.
        *(
            encoded(USUAL[:rows, :columns], "JPEG")
            for rows, columns in ((39, 61), (79, 130), (119, 202), (7, 9))
        ),
    ):
        found = shorter_alone(decoder, data, monkeypatch)
        np.testing.assert_array_equal(found, by_graph_alone(decoder, data))
        np.testing.assert_array_equal(found, decoded(data, HEIGHT, WIDTH, resize))


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_and_for_those_that_do_not_lie_upright(resize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoder_of(resize)
    # The second is read at another ratio when it is turned.
    for picture in (USUAL, USUAL[:79, :130]):
        for orientation in range(1, 9):
            data = turned(orientation, picture)
            found = shorter_alone(decoder, data, monkeypatch)
            np.testing.assert_array_equal(found, by_graph_alone(decoder, data))
            np.testing.assert_array_equal(found, decoded(data, HEIGHT, WIDTH, resize))


def test_a_damaged_file_is_told_of_in_the_same_words_before_and_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder = decoder_of()
    damaged = encoded(USUAL, "JPEG")[:-900]
    with pytest.raises(Rejected) as before:
        decoder(damaged)
    shorter_alone(decoder, encoded(USUAL, "JPEG"), monkeypatch)
    with pytest.raises(Rejected) as after:
        decoder(damaged)
    assert str(after.value) == str(before.value)


def test_a_file_that_says_two_extents_is_left_to_libjpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the header that is read here is not the one that libjpeg goes by."""
    from bottleneck.pixels import header

    data = encoded(USUAL, "JPEG")
    decoder = decoder_of()
    shorter_alone(decoder, data, monkeypatch)
    # By these the picture would be read at its full extent; libjpeg's call for a quarter.
    said = header.check_header(data)._replace(height=39, width=61)
    monkeypatch.setattr(header, "check_header", lambda data: said)
    np.testing.assert_array_equal(decoder(data), by_graph_alone(decoder, data))


def test_nothing_is_set_up_for_files_that_it_is_not_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_MANY", 3)
    monkeypatch.setattr(decoding, "_way_or_none", lambda make: pytest.fail("set up"))
    decoder = decoder_of()
    # One row fewer than eight times the longer side of the target; and as large, but no JPEG.
    for data in (encoded(LARGE[: 8 * WIDTH - 1], "JPEG"), *2 * [encoded(LARGE, "PNG")]):
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
    from bottleneck.pixels.fast import jpeg_eighth
    from bottleneck.pixels.fast import resize as fitting

    read, fit = jpeg_eighth.at_an_eighth, fitting.fitted
    monkeypatch.setattr(jpeg_eighth, "at_an_eighth", lambda data: (read(data)[0] ^ 1, read(data)[1]))
    monkeypatch.setattr(fitting, "fitted", lambda *given: fit(*given) + 1)


def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    # With other pixels that nobody would notice, so that these show where it is used all the same.
    with_other_pixels(monkeypatch)
    monkeypatch.setattr(decoding, "_demand_agreement", lambda *_: None)
    monkeypatch.setattr(decoding, "_demand_fit", lambda *_: None)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numba" else real(name))


@pytest.mark.parametrize("data", [turned(6), encoded(USUAL, "JPEG")], ids=["large", "usual"])
@pytest.mark.parametrize(("lack", "said"), [(without_numba, ""), (with_other_pixels, "other pixels")])
def test_where_it_is_not_there_or_gives_other_pixels_the_graph_decodes(
    lack: Callable[[pytest.MonkeyPatch], None],
    said: str,
    data: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lack(monkeypatch)
    decoder = decoder_of()
    for _ in range(3):
        np.testing.assert_array_equal(decoder(data), by_graph_alone(decoder, data))
        decoder.ready()
    assert said in caplog.text


@pytest.mark.parametrize(("module", "data"), [("jpeg_eighth", turned(1)), ("resize", encoded(USUAL, "JPEG"))])
def test_a_numba_that_does_not_work_is_told_of_and_costs_nothing(
    module: str, data: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, f"bottleneck.pixels.fast.{module}", None)
    monkeypatch.delattr(f"bottleneck.pixels.fast.{module}", raising=False)
    decoder = decoder_of()
    for _ in range(3):
        np.testing.assert_array_equal(decoder(data), by_graph_alone(decoder, data))
        decoder.ready()
    assert "the long way" in caplog.text


@pytest.mark.parametrize(("kind", "is_set_up"), [("JPEG", True), ("PNG", False)])
def test_what_files_to_come_would_call_for_is_set_up_before_them(kind: str, is_set_up: bool) -> None:
    decoder = decoding.Decoder(Pixels(height=32, width=32))
    decoder(encoded(USUAL, kind))
    decoder.ready(decoding._MANY - 2)
    assert decoder._usual._way is None
    decoder.ready(decoding._MANY - 1)
    assert (decoder._usual._way is not None) == is_set_up
