"""The pixel format of a PNG file, from its first 26 bytes."""

from __future__ import annotations

import struct
from typing import Optional

from xray_trainer.prepare.decode import PNG_SIGNATURE

GREY = 0
MODES = {2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
"""Colour type -> Pillow's name; grey has one for each depth. Source: PNG specification, third edition, 11.2.1."""


def png_mode(data: bytes) -> Optional[str]:
    """Pillow's name of a PNG file's pixel format, with the bits of each channel where they aren't 8; None for other
    files."""
    if not data.startswith(PNG_SIGNATURE) or len(data) < 26 or data[12:16] != b"IHDR":
        return None
    bits, colour = struct.unpack_from("BB", data, 24)
    if colour == GREY:
        return {1: "1", 16: "I;16"}.get(bits, "L")
    mode = MODES.get(colour)
    return f"{mode};16" if mode is not None and bits == 16 else mode
