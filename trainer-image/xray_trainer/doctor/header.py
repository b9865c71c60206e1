"""The pixel format of an image, from its first header."""

from __future__ import annotations

import struct
from typing import Optional

from xray_trainer.prepare.decode import PNG_SIGNATURE
from xray_trainer.prepare.jpeg import read_frame

GREY = 0
MODES = {2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
"""Colour type -> Pillow's name; grey has one for each depth. Source: PNG specification, third edition, 11.2.1."""
JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
"""Components -> Pillow's name."""


def image_mode(ending: str, data: bytes) -> Optional[str]:
    """Pillow's name of an image's pixel format; None for what is no image of the kind that its name ends in."""
    if ending == ".png":
        return _png_mode(data)
    frame = read_frame(data)
    return JPEG_MODES.get(frame.components) if frame is not None else None


def _png_mode(data: bytes) -> Optional[str]:
    """Pillow's name of a PNG file's pixel format, with the bits of each channel where they aren't 8; None for other
    files."""
    if not data.startswith(PNG_SIGNATURE) or len(data) < 26 or data[12:16] != b"IHDR":
        return None
    bits, colour = struct.unpack_from("BB", data, 24)
    if colour == GREY:
        return {1: "1", 16: "I;16"}.get(bits, "L")
    mode = MODES.get(colour)
    return f"{mode};16" if mode is not None and bits == 16 else mode
