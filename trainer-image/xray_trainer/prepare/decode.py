"""One PNG file in, one small grey square out."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_IMAGE_PIXELS = 32 << 20
"""32 megapixels: the largest detectors give about 20. Pillow's own limit would let 815 MB through."""
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


class UnreadableImageError(Exception):
    """The file is no PNG that can be used. The message holds neither its name nor its content beyond four bytes."""


@dataclass(frozen=True)
class DecodedImage:
    """`pixels`: stored_size² bytes of 8-bit grey, row by row. `mode`: Pillow's name of the source's pixel format."""

    pixels: bytes
    mode: str


def limit_pillow() -> None:
    """Make Pillow refuse decompression bombs in this process instead of warning of them."""
    Image.MAX_IMAGE_PIXELS = MAX_IMAGE_PIXELS
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode_png(data: bytes, stored_size: int) -> DecodedImage:
    """Decode a PNG, turn it to 8-bit grey and scale it to stored_size x stored_size.

    Sixteen-bit images keep their upper eight bits, transparency is dropped, colours are weighted as ITU-R 601 does.
    An image that is not square is squeezed, not cropped: the edge of a lung may be the finding.

    Raises: UnreadableImageError.
    """
    if not data.startswith(PNG_SIGNATURE):
        raise UnreadableImageError(f"not a PNG (first bytes {data[:4].hex(' ')})")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            mode = image.mode
            grey = _to_grey(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(f"more than {MAX_IMAGE_PIXELS} pixels") from error
    # Pillow signals damaged PNG files by all of these; the decoder itself holds no state of ours
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise UnreadableImageError(f"damaged PNG of {len(data)} bytes") from error
    return DecodedImage(_scale(grey, stored_size).tobytes(), mode)


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode in SIXTEEN_BIT_MODES:
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode == "LA":
        return image.getchannel("L")
    return image if image.mode == "L" else image.convert("L")


def _scale(grey: Image.Image, size: int) -> Image.Image:
    """Mean of the covered area when shrinking, which neither rings nor skips pixels; linear when growing."""
    if grey.size == (size, size):
        return grey
    factor = grey.width // size
    if grey.size == (factor * size, factor * size):
        return grey.reduce(factor)
    shrinks = grey.width >= size and grey.height >= size
    return grey.resize((size, size), Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
