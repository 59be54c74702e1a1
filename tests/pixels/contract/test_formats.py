"""Files of every format against Pillow, which shares no code with the contract but libjpeg, libpng and libwebp."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from tests.pixels.pictures import H, W, decoded, encoded, graph, photo, pillow, png, refused

pytestmark = pytest.mark.keras


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_at_ratio_1_equals_pillow_bit_for_bit(mode: str, options: dict[str, object]) -> None:
    data = encoded(Image.fromarray(photo()).convert(mode), "JPEG", **options)
    assert np.array_equal(decoded(data), pillow(data))


@pytest.mark.fault(69)
def test_cmyk_jpeg_is_converted_as_pillow_does_to_within_one() -> None:
    data = encoded(Image.fromarray(photo(channels=4), "CMYK"), "JPEG", quality=95)
    assert np.abs(decoded(data) - pillow(data)).max() <= 1
    assert pillow(data).std() > 20


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "I;16"])
def test_opaque_png(mode: str) -> None:
    if mode == "I;16":
        values = np.arange(H * W, dtype=np.uint16).reshape(H, W) * 91
        expected = np.repeat(values[..., None] / 257, 3, axis=2)
        data = encoded(Image.fromarray(values), "PNG")
        assert np.abs(decoded(data) - expected).max() < 1e-4
        return
    data = encoded(Image.fromarray(photo()).convert(mode), "PNG")
    assert np.array_equal(decoded(data), pillow(data))


@pytest.mark.fault(69)
def test_png_of_16_bits_is_scaled_and_not_cut_or_saturated() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (H, W, 4), dtype=np.uint16)
    big = values.astype(">u2")
    plain = png(2, 16, big[..., :3].reshape(H, -1).view(np.uint8))
    assert np.abs(decoded(plain) - values[..., :3] / 257).max() < 1e-4
    alpha = values[..., 3:] / 65535
    clear = png(6, 16, big.reshape(H, -1).view(np.uint8))
    assert np.abs(decoded(clear) - (values[..., :3] / 257 * alpha + 255 * (1 - alpha))).max() < 1e-3


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("clear", [False, True])
def test_grey_png_of_few_bits_with_and_without_a_transparent_shade(depth: int, clear: bool) -> None:
    shades = np.random.default_rng(1).integers(0, 2**depth, (8, 16), dtype=np.uint8)
    bits = (shades[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    chunks = [(b"tRNS", b"\0\1")] if clear else []
    data = png(0, depth, np.packbits(bits.reshape(8, -1), axis=1), *chunks)
    expected = np.round(shades * (255 / (2**depth - 1)))
    if clear:
        expected = np.where(shades == 1, 255, expected)
    assert np.array_equal(decoded(data, 8, 16), np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.fault(69)
@pytest.mark.parametrize("depth", [2, 8])
def test_palette_png_with_transparency(depth: int) -> None:
    indices = np.random.default_rng(2).integers(0, 4, (8, 16), dtype=np.uint8)
    bits = (indices[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    palette = np.array([[255, 0, 0], [0, 200, 0], [0, 0, 100], [9, 9, 9]], np.float32)
    alpha = np.array([0, 51, 255, 255], np.float32)[:, None] / 255
    chunks = ((b"PLTE", palette.astype(np.uint8).tobytes()), (b"tRNS", b"\x00\x33"))
    data = png(3, depth, np.packbits(bits.reshape(8, -1), axis=1), *chunks)
    assert np.abs(decoded(data, 8, 16) - (palette * alpha + 255 * (1 - alpha))[indices]).max() < 1e-3


@pytest.mark.fault(69)
@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGBA"), ("PNG", "LA"), ("WebP", "RGBA")])
def test_alpha_lies_on_white(kind: str, mode: str) -> None:
    image = Image.fromarray(photo(channels=4), "RGBA").convert(mode)
    data = encoded(image, kind, **({"lossless": True, "exact": True} if kind == "WebP" else {}))
    values = np.asarray(image.convert("RGBA")).astype(np.float32)
    alpha = values[..., 3:] / 255
    assert np.abs(decoded(data) - (values[..., :3] * alpha + 255 * (1 - alpha))).max() < 1e-3


@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True}])
def test_webp(options: dict[str, object]) -> None:
    data = encoded(photo(), "WebP", **options)
    assert np.array_equal(decoded(data), pillow(data))


@pytest.mark.fault(69)
@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.fromarray(photo(seed=i)) for i in range(4)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    assert Image.open(io.BytesIO(data)).n_frames == 4
    assert np.array_equal(decoded(data), pillow(data))


@pytest.mark.fault(69)
def test_an_animated_webp_is_refused_before_the_decoder_sees_it() -> None:
    """TensorFlow 2.21 corrupts its heap on these: without the refusal this test takes the process with it."""
    frames = [Image.fromarray(photo(seed=i)) for i in range(4)]
    refused(
        encoded(frames[0], "WebP", save_all=True, append_images=frames[1:]), "animated WebP is not supported"
    )


def test_only_the_first_frame_of_a_gif_is_decoded() -> None:
    image = Image.fromarray(photo()).convert("P")
    whole = encoded(image, "GIF")
    # A second frame that no decoder could read, of a size that none could hold.
    bomb = whole[:-1] + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x0c\5abc"
    assert np.array_equal(decoded(bomb), pillow(whole))


@pytest.mark.parametrize("interlace", [0, 1])
def test_a_gif_frame_on_a_larger_canvas_with_a_transparent_colour(interlace: int) -> None:
    image = Image.fromarray(photo(10, 12)).quantize(16)
    data = bytearray(encoded(image, "GIF", transparency=3, interlace=interlace))
    at = data.index(b"," + struct.pack("<HHHH", 0, 0, 12, 10))
    data[at + 1 : at + 5] = struct.pack("<HH", 5, 4)
    data[6:10] = struct.pack("<HH", W, H)
    expected = np.full((H, W, 3), 255, np.float32)
    indices = np.asarray(image)
    colours = np.array(image.getpalette()[:48], np.float32).reshape(16, 3)
    expected[4:14, 5:17] = np.where((indices == 3)[..., None], 255, colours[indices])
    assert (indices == 3).any()
    assert np.array_equal(decoded(bytes(data)), expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA"])
def test_bmp(mode: str) -> None:
    image = Image.fromarray(photo()).convert(mode)
    data = encoded(image, "BMP")
    assert np.array_equal(decoded(data), pillow(data))


def test_bmp_of_16_colours_and_from_top_to_bottom() -> None:
    indices = np.random.default_rng(3).integers(0, 16, (6, 10), dtype=np.uint8)
    palette = np.random.default_rng(4).integers(0, 256, (16, 4), dtype=np.uint8)
    rows = np.pad(indices[:, ::2] << 4 | indices[:, 1::2], ((0, 0), (0, 3)))
    head = struct.pack("<IiiHHIIiiII", 40, 10, -6, 1, 4, 0, 0, 0, 0, 0, 0)
    data = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 40 + 64) + head + palette.tobytes() + rows.tobytes()
    assert np.array_equal(decoded(data, 6, 10), palette[indices][..., 2::-1])
    assert np.array_equal(decoded(data, 6, 10), pillow(data))


@pytest.mark.fault(65)
def test_what_is_refused_and_in_which_words() -> None:
    bmp = encoded(photo(), "BMP")
    for data in (b"", b"\xff", b"hello", b"<html>", encoded(photo(), "TIFF"), b"RIFF\0\0\0\0WAVEfmt "):
        refused(data, "not a JPEG, PNG, GIF, BMP or WebP image")
    refused(bmp[:30] + b"\1" + bmp[31:], "plain kind")
    refused(bmp[:28] + b"\x10" + bmp[29:], "plain kind")
    refused(bmp[:-1], "BMP is cut off")
    refused(bmp[:18] + b"\xff\xff\xff\x7f\xff\xff\xff\x7f" + bmp[26:], "BMP is cut off")
    refused(b"GIF89a\1\0\1\0\0\0\0;", "GIF without a frame")
    refused(b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2\x44\1\0;", "GIF without colours")


@pytest.mark.fault(66)
@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "GIF", "BMP", "WebP", "lossless", "alpha"])
def test_a_file_cut_anywhere_is_refused_and_never_half_grey(kind: str) -> None:
    options = {"progressive": {"progressive": True}, "lossless": {"lossless": True}}.get(kind, {})
    name = {"progressive": "JPEG", "lossless": "WebP", "alpha": "WebP"}.get(kind, kind)
    data = encoded(photo(channels=4 if kind == "alpha" else 3), name, **options)
    whole = decoded(data)
    import tensorflow as tf

    read = []
    for cut in sorted({*np.linspace(0, len(data) - 1, 50).astype(int), len(data) - 2, len(data) - 3}):
        try:
            pixels = graph()(data[:cut]).numpy()
        except tf.errors.InvalidArgumentError:
            continue
        read.append(int(cut))
        assert np.array_equal(pixels, whole), cut
    # The end mark alone may be missing without harm.
    assert all(cut >= len(data) - 12 for cut in read)


def test_sample_files_show_another_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    from bottleneck.pixels.samples import decoder_of

    real, mine = tf.io.decode_jpeg, decoder_of()
    assert decoder_of() == mine
    for other in ({"dct_method": "INTEGER_FAST"}, {"fancy_upscaling": False}):
        changed = lambda *args, other=other, **more: real(*args, **{**more, **other})  # noqa: E731 - as it is called
        monkeypatch.setattr(tf.io, "decode_jpeg", changed)
        assert decoder_of() != mine, other


def clear_png(depth: int, *chunks: tuple[bytes, bytes]) -> bytes:
    return png(0, depth, np.full((8, 2 * depth), 0x77, np.uint8), *chunks)


@pytest.mark.fault(65)
def test_the_graph_alone_refuses_what_libpng_would_ignore() -> None:
    """As far as a graph can see it: a wrong checksum is told by `images.flaws` alone."""
    clear = (b"tRNS", b"\0\1")
    assert decoded(clear_png(4, clear), 8, 16).mean() == 119
    for chunks in ([(b"tRNS", bytes(40))], [(b"tRNS", b"")], [(b"IDAT", b""), clear]):
        refused(clear_png(4, *chunks), "transparency chunk is out of place or of a wrong length")
    refused(clear_png(4) + b"\0\0\0\2tRNS\0\1" + bytes(4), "transparency chunk is out of place")


@pytest.mark.fault(65)
def test_the_graph_alone_refuses_a_bmp_whose_pixels_begin_too_early() -> None:
    for mode in ("RGB", "P", "1"):
        data = encoded(Image.fromarray(photo()).convert(mode), "BMP")
        for start in (0, 7, 45, int.from_bytes(data[10:14], "little") - 1):
            refused(data[:10] + struct.pack("<I", start) + data[14:], "BMP whose pixels begin within")


@pytest.mark.fault(65)
def test_bytes_behind_a_webp_do_not_complete_a_damaged_picture() -> None:
    data = encoded(photo(), "WebP", lossless=True)
    assert np.array_equal(decoded(data + bytes(99)), decoded(data))
    refused(data[:200] + data[190:], "Failed to decode WebP")


@pytest.mark.fault(65)
def test_a_damaged_file_is_refused_or_gives_its_own_picture_or_pillows() -> None:
    """A sample; what has no checksum (the data of JPEG, GIF, BMP and WebP) may give whatever Pillow finds in it too."""
    import tensorflow as tf

    from bottleneck.errors import Rejected
    from bottleneck.pixels.header import check_header
    from tests.pixels.mutations import COLUMNS, ROWS, by_pillow, mutants, sound_files

    read = graph(ROWS, COLUMNS)
    sound = {name: read(data).numpy() for name, data in sound_files().items()}
    seen = {"refused": 0, "sound": 0, "pillow": 0}
    for mutant in mutants(27, 1200):
        try:
            check_header(mutant.data)
            ours = read(mutant.data).numpy()
        except (Rejected, tf.errors.OpError):
            seen["refused"] += 1
            continue
        name = mutant.name.split(maxsplit=1)[1].rpartition(" ")[0]
        theirs = by_pillow(mutant.data)
        if np.abs(ours - sound[name]).mean() < 1:
            seen["sound"] += 1
        elif theirs is not None and (theirs.shape != ours.shape or np.abs(ours - theirs).mean() < 6):
            seen["pillow"] += 1
        else:
            # Pillow does not scale the clear shade of 2 and 4 bits, nor 16-bit samples.
            assert name.startswith(("gif", "png L1", "png L2", "png L4", "png 1")), mutant.name
    assert min(seen.values()) > 100, seen
