"""Coordinates and shapes that body and findings are drawn with.

A film is the square [-1, 1] x [-1, 1]; x grows to the image's right, which is the patient's left as on every film, and
y grows downwards. Values are attenuation: 0 is air (black), 1 dense bone (white). A side is -1 or +1, the sign of x.
"""

# numpy types arithmetic on arrays as Any
# mypy: disable-error-code="no-any-return"
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[Any]
"""Values per pixel, float32 or wider."""


@dataclass(frozen=True)
class Canvas:
    """Pixel centres of a film: `x` (1, n) and `y` (n, 1), or both (n, n) once the film is turned."""

    x: Field
    y: Field

    def noise(self, cell: float, rng: np.random.Generator) -> Field:
        """(n, n) smooth noise of about unit variance whose blobs are about `cell` wide."""
        side = len(self.y)
        cells = max(2, round(2 / cell))
        coarse = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
        return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)) * np.float32(1.4)


def make_canvas(side: int, turn: float, shift_x: float, shift_y: float, zoom: float) -> Canvas:
    """A canvas whose body is turned by `turn` radians, shifted and enlarged."""
    axis = ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    cosine, sine = np.float32(np.cos(turn) / zoom), np.float32(np.sin(turn) / zoom)
    return Canvas(cosine * (x - shift_x) + sine * (y - shift_y), cosine * (y - shift_y) - sine * (x - shift_x))


def inside(distance: Field, softness: float) -> Field:
    """1 where `distance` is positive, 0 where negative, smooth over +-softness."""
    t = np.clip(distance * np.float32(0.5 / softness) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def ellipse(
    canvas: Canvas, x: float, y: float, width: float, height: float, softness: float, turn: float = 0.0
) -> Field:
    """A filled ellipse by its half-axes; `softness` is the width of its edge."""
    cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    dx, dy = canvas.x - np.float32(x), canvas.y - np.float32(y)
    u, v = (cosine * dx + sine * dy) / np.float32(width), (cosine * dy - sine * dx) / np.float32(height)
    return inside((1 - np.sqrt(u * u + v * v)) * np.float32(min(width, height)), softness)


def band(distance: Field, half_width: float, softness: float) -> Field:
    """1 where |distance| is below `half_width`, with soft edges."""
    return inside(np.float32(half_width) - np.abs(distance), softness)
