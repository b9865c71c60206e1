"""Which images the page shows, and how they get into it: as data URIs, in order to need no file beside it."""

from __future__ import annotations

import base64
import io
from typing import List

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FILMS = 9
"""The article's three rows of three."""
FILMS_WITH_FINDING = 6
"""Of them, if there are so many: most held-out images have none, and would show little."""
SAMPLES = 6
MOST_PIXELS = 320
"""Side of an image in the page; larger ones are scaled."""
JPEG_QUALITY = 88
COLD, WARM = np.array([64, 40, 140]), np.array([255, 190, 60])
"""Colours of an attention map, from where it begins to show to where it is most."""
MOST_OPAQUE = 170
"""Of 255: the film stays visible below."""


def choose_films(labels: NDArray[np.int8], seed: int) -> List[int]:
    """Up to FILMS images, drawn at random and in order: FILMS_WITH_FINDING of those with a finding, the rest of the others.

    Args:
        labels: (n_images, n_findings), 0 or 1.
    """
    random = np.random.default_rng(seed)
    having = labels.any(axis=1)
    drawn = {flag: random.permutation(np.flatnonzero(having == flag)).tolist() for flag in (True, False)}
    healthy = min(FILMS - FILMS_WITH_FINDING, len(drawn[False]))
    chosen = drawn[True][: FILMS - healthy]
    return sorted([*chosen, *drawn[False][: FILMS - len(chosen)]])


def choose_samples(images: int, seed: int) -> List[int]:
    """Up to SAMPLES of so many images, drawn at random, in order."""
    return sorted(np.random.default_rng(seed).permutation(images)[:SAMPLES].tolist())


def film_uri(grey: NDArray[np.uint8]) -> str:
    """A radiograph as a data URI.

    Args:
        grey: (side, side).
    """
    image = Image.fromarray(grey)
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=JPEG_QUALITY)
    return _uri("image/jpeg", file.getvalue())


def map_uri(attention: NDArray[np.float32]) -> str:
    """An attention map as a data URI, to lie on the radiograph: the more attention, the warmer and the less transparent.
    It has a pixel for each patch; the browser smooths it.

    Args:
        attention: (patches, patches) in [0, 1].
    """
    share = attention[..., None]
    pixels = np.concatenate([COLD + share * (WARM - COLD), share**2 * MOST_OPAQUE], axis=-1).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return _uri("image/png", file.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
