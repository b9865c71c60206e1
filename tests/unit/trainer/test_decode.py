"""Every pixel format gives the same grey square; what is no PNG gives a reason without its name."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.unit.trainer.build import make_png
from xray_trainer.prepare import decode
from xray_trainer.prepare.decode import UnreadableImageError, decode_jpeg, decode_png, limit_pillow, memory_to_decode


@pytest.fixture(autouse=True)
def _limits() -> None:
    limit_pillow()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "I;16"])
def test_all_modes_give_the_same_grey(mode: str) -> None:
    expected = np.frombuffer(decode_png(make_png(3), 20).pixels, np.uint8).astype(int)
    decoded = decode_png(make_png(3, mode=mode), 20)
    assert np.abs(np.frombuffer(decoded.pixels, np.uint8).astype(int) - expected).max() <= 1
    assert decoded.mode == mode


def test_a_bilevel_image_is_read() -> None:
    assert len(decode_png(make_png(mode="1"), 20).pixels) == 400


def test_shrinking_takes_the_mean_of_the_area() -> None:
    pixels = np.frombuffer(decode_png(make_png(1, side=40), 20).pixels, np.uint8)
    source = np.asarray(Image.open(io.BytesIO(make_png(1, side=40)))).astype(float)
    assert np.abs(pixels.reshape(20, 20) - source.reshape(20, 2, 20, 2).mean((1, 3))).max() <= 0.51


@pytest.mark.parametrize("side", [10, 20, 33, 50])
def test_every_size_comes_out_as_stored_size(side: int) -> None:
    assert len(decode_png(make_png(side=side), 20).pixels) == 400


@pytest.mark.parametrize("row_filter", range(5))
def test_both_decoders_see_the_same_grey(row_filter: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _filtered_png(np.random.default_rng(row_filter).integers(0, 256, (48, 41), dtype=np.uint8), row_filter)
    fast = decode_png(data, 20)
    monkeypatch.setattr(decode, "_decode_grey", lambda _: None)
    assert decode_png(data, 20) == fast


def test_grey_radiographs_take_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", None)
    assert decode_png(make_png(), 20).mode == "L"


def test_what_only_pillow_can_read_is_read() -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(make_png(5))).save(file, format="PNG", pnginfo=_text_with_a_wrong_checksum())
    data = file.getvalue().replace(b"REPLACED", b"replaced")
    assert decode_png(data, 20).pixels == decode_png(make_png(5), 20).pixels


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"<!DOCTYPE html>", "^not a PNG file$"),
        (b"", "not a PNG"),
        (make_png()[:-60], "damaged PNG"),
        (make_png()[:40], "damaged PNG"),
        (make_png()[:100] + bytes(50) + make_png()[150:], "damaged PNG"),
    ],
)
def test_what_can_t_be_read_is_told(data: bytes, expected: str) -> None:
    with pytest.raises(UnreadableImageError, match=expected):
        decode_png(data, 20)


def test_a_jpeg_named_png_is_refused() -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(make_png())).save(file, format="JPEG")
    with pytest.raises(UnreadableImageError, match=r"^not a PNG file but JPEG$"):
        decode_png(file.getvalue(), 20)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_gives_the_grey_that_png_gives(mode: str, progressive: bool) -> None:
    data, smooth = _jpeg(mode, progressive=progressive)
    decoded = decode_jpeg(data, 20)
    expected = np.frombuffer(decode_png(smooth, 20).pixels, np.uint8).astype(int)
    assert np.abs(np.frombuffer(decoded.pixels, np.uint8).astype(int) - expected).max() <= 2
    assert decoded.mode == mode


def test_colours_of_a_jpeg_become_their_luma() -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (255, 0, 0)).save(file, format="JPEG")
    assert set(decode_jpeg(file.getvalue(), 20).pixels) == {76}  # 0.299 of 255, ITU-R 601


def test_what_stands_before_a_jpeg_s_frame_is_passed_over() -> None:
    data, _ = _jpeg("L", comment=b"c" * 60_000)
    assert len(decode_jpeg(data[:2] + b"\xff\xff\xff" + data[3:], 20).pixels) == 400


def test_a_jpeg_is_counted_with_its_coefficients() -> None:
    data, _ = _jpeg("L")
    assert memory_to_decode(data) == len(data) + 40 * 40 * 8


def _jpeg(mode: str, **options: object) -> tuple[bytes, bytes]:
    """A smooth image as JPEG, and the same as PNG."""
    grey = np.add.outer(np.arange(40), np.arange(40)).astype(np.uint8) * 3
    jpeg, png = io.BytesIO(), io.BytesIO()
    Image.fromarray(grey).convert(mode).save(jpeg, format="JPEG", quality=95, **options)
    Image.fromarray(grey).save(png, format="PNG")
    return jpeg.getvalue(), png.getvalue()


def test_a_decompression_bomb_is_refused_before_it_is_unpacked() -> None:
    header = (60000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    bomb = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(100)))
    with pytest.raises(UnreadableImageError, match="more than 33554432 pixels"):
        decode_png(bomb + _chunk(b"IEND", b""), 20)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def _filtered_png(grey: NDArray[np.uint8], row_filter: int) -> bytes:
    """A PNG whose rows all have one filter, whatever its decoder makes of it. Source: PNG specification, section 9."""
    rows = b"".join(bytes([row_filter]) + row.tobytes() for row in grey)
    header = grey.shape[1].to_bytes(4, "big") + grey.shape[0].to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    parts = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def _text_with_a_wrong_checksum() -> PngInfo:
    text = PngInfo()
    text.add_text("Comment", "REPLACED")
    return text
