"""What a JPEG file says of itself before anything of it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

JPEG_SIGNATURE = b"\xff\xd8\xff"
START_OF_SCAN = b"\xff\xda"
"""Compressed data never hold these bytes; what an embedded thumbnail has of them is counted too."""
FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive, Huffman coded: what libjpeg-turbo decodes at 8 bits and others may write."""
OTHER_FRAMES = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
MAX_SEGMENTS = 1000
"""Before the frame; there are rarely more than ten."""
WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


@dataclass(frozen=True)
class Frame:
    """The header of the image. Source: ITU-T T.81, B.2.2."""

    width: int
    height: int
    components: int
    """1 of grey, 3 of colours."""
    scans: int
    """At most so many: each may go over all pixels, whatever its own size."""


def read_frame(data: bytes) -> Optional[Frame]:
    """The first frame's header; None for what is no JPEG of 8 bits, lossless and arithmetically coded ones among it."""
    if not data.startswith(JPEG_SIGNATURE):
        return None
    place = 2
    for _ in range(MAX_SEGMENTS):
        if data[place : place + 1] != b"\xff" or place + 10 > len(data):
            return None
        marker = data[place + 1]
        if marker in FRAMES:
            return _parse(data, place + 4) if data[place + 4] == 8 else None
        if marker in OTHER_FRAMES or marker == START_OF_SCAN[1]:
            return None
        place += 1 if marker == 0xFF else 2 if marker in WITHOUT_LENGTH else _after_segment(data, place)
    return None


def _after_segment(data: bytes, place: int) -> int:
    return 2 + max(2, int.from_bytes(data[place + 2 : place + 4], "big"))


def _parse(data: bytes, place: int) -> Frame:
    height, width = (int.from_bytes(data[place + at : place + at + 2], "big") for at in (1, 3))
    return Frame(width, height, data[place + 5], data.count(START_OF_SCAN))
