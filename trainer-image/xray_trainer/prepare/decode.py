"""One PNG or JPEG file in, one small grey square out.

The bytes are foreign: what they may cost is read from their first header before a decoder sees them. What nearly every
radiograph is, 8-bit grey, goes to the Rust crate png by kornia-rs, which is the fastest that was measured
(docs/performance.md); all else, and what that finds wrong, to Pillow.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Callable, Mapping, Optional, Tuple

import kornia_rs
import numpy as np
from PIL import Image, PngImagePlugin

from xray_trainer.prepare.jpeg import JPEG_SIGNATURE, read_frame

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_IMAGE_PIXELS = 32 << 20
"""32 megapixels: the largest detectors give about 20. Pillow's own limit would let 815 MB through."""
MAX_TEXT_BYTES = 1 << 20
"""Of a compressed text or colour profile, unpacked, and of all of an image: none of them is used."""
GREY_8_BIT = b"\x08\x00"
"""Bit depth and colour type in the first header. Source: PNG specification, section 11.2.1."""
PACKED = (b"zTXt", b"iTXt", b"iCCP")
"""Chunks that unpack to more than they are, which Pillow bounds and kornia-rs passes over."""
GREY_BYTES_PER_PIXEL = 2
BYTES_PER_PIXEL = 8
"""What Pillow and we hold of an image at most while it is decoded: 1 of 8-bit grey, 5 of colours, 6 of 16-bit grey, 8 of a
progressive JPEG, whose coefficients are kept to the last scan."""
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
MAX_SCANS = 64
"""Of a JPEG file. Progressive ones have about 10, and each costs as much as the image has pixels."""

OTHER_FORMATS = (
    (0, PNG_SIGNATURE, "PNG"),
    (0, JPEG_SIGNATURE, "JPEG"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (128, b"DICM", "DICOM"),
)
"""Place and content of the bytes by which other formats of X-rays are known."""


class UnreadableImageError(Exception):
    """The file is no image that can be used. The message holds neither its name nor its content."""


@dataclass(frozen=True)
class DecodedImage:
    """`pixels`: stored_size² bytes of 8-bit grey, row by row. `mode`: Pillow's name of the source's pixel format."""

    pixels: bytes
    mode: str


def limit_pillow() -> None:
    """Make Pillow refuse decompression bombs in this process instead of warning of them."""
    Image.MAX_IMAGE_PIXELS = MAX_IMAGE_PIXELS
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT_BYTES
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def memory_to_decode(data: bytes) -> int:
    """Bytes that the file and its decoding take at most, by its first header. What is refused unread costs itself."""
    width, height = _size_of(data)
    pixels = width * height
    if not pixels or pixels > MAX_IMAGE_PIXELS:
        return len(data)
    if data.startswith(JPEG_SIGNATURE):
        return len(data) + pixels * BYTES_PER_PIXEL
    depth, colour = data[24:26].ljust(2, b"\xff")
    return len(data) + pixels * (GREY_BYTES_PER_PIXEL if depth <= 8 and colour == 0 else BYTES_PER_PIXEL)


def _size_of(data: bytes) -> Tuple[int, int]:
    """Width and height; 0 where the file doesn't begin as a PNG or JPEG has to."""
    frame = read_frame(data)
    if frame is not None:
        return frame.width, frame.height
    if not data.startswith(PNG_SIGNATURE) or data[12:16] != b"IHDR":
        return 0, 0
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def decode_png(data: bytes, stored_size: int) -> DecodedImage:
    """Decode a PNG, turn it to 8-bit grey and scale it to stored_size x stored_size.

    Sixteen-bit images keep their upper eight bits, transparency is dropped, colours are weighted as ITU-R 601 does.
    An image that is not square is squeezed, not cropped: the edge of a lung may be the finding.

    Raises: UnreadableImageError.
    """
    if not data.startswith(PNG_SIGNATURE):
        raise UnreadableImageError(f"not a PNG file{_other_format(data)}")
    grey = _decode_grey(data)
    if grey is not None:
        return DecodedImage(_scale(grey, stored_size).tobytes(), "L")
    return _decode_by_pillow(data, "PNG", stored_size)


def decode_jpeg(data: bytes, stored_size: int) -> DecodedImage:
    """The same for a JPEG of 8 bits; of colours, its luma is taken. There is no checksum in a JPEG: of damage in the middle
    nobody can know.

    Raises: UnreadableImageError.
    """
    frame = read_frame(data)
    if frame is None:
        raise UnreadableImageError(f"not a JPEG file of 8 bits{_other_format(data)}")
    if frame.components not in (1, 3):
        raise UnreadableImageError(f"a JPEG file of {frame.components} channels")
    if frame.scans > MAX_SCANS:
        raise UnreadableImageError(f"a JPEG file of more than {MAX_SCANS} scans")
    return _decode_by_pillow(data, "JPEG", stored_size)


DECODERS: Mapping[str, Callable[[bytes, int], DecodedImage]] = {
    ".png": decode_png,
    ".jpg": decode_jpeg,
    ".jpeg": decode_jpeg,
}
"""Ending of an image's name, in lower case -> what decodes it."""


def _decode_by_pillow(data: bytes, kind: str, stored_size: int) -> DecodedImage:
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            if image.size != _size_of(data):
                raise UnreadableImageError(f"a {kind} file that tells two sizes")
            mode = image.mode
            image.draft("L", image.size)  # libjpeg then gives luma alone
            image.load()
            return DecodedImage(_scale(_to_grey(image), stored_size).tobytes(), mode)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(f"more than {MAX_IMAGE_PIXELS} pixels") from error
    # Pillow signals damaged files by all of these; the decoder itself holds no state of ours
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise UnreadableImageError(f"damaged {kind} of {len(data)} bytes") from error


def _decode_grey(data: bytes) -> Optional[Image.Image]:
    """An image of 8-bit grey; None for others, and for what Pillow has to say what is wrong with."""
    width, height = _size_of(data)
    if data[24:26] != GREY_8_BIT or not 0 < width * height <= MAX_IMAGE_PIXELS or any(each in data for each in PACKED):
        return None
    try:
        pixels = kornia_rs.io.decode_image_png_u8(data, (height, width), "mono")  # (height, width, 1)
    except Exception:  # it has no error of its own; nothing is lost, for Pillow decodes the same bytes next
        return None
    return Image.fromarray(pixels[:, :, 0])


def _other_format(data: bytes) -> str:
    return next((f" but {name}" for place, magic, name in OTHER_FORMATS if data.startswith(magic, place)), "")


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode in SIXTEEN_BIT_MODES:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
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
