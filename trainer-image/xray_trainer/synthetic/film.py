"""From body to PNG: position, exposure, noise, the marker that the technician burns in."""

# numpy types arithmetic on arrays as Any
# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import io
import zlib
from functools import lru_cache
from typing import Tuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from xray_trainer.synthetic.anatomy import draw_body, make_anatomy
from xray_trainer.synthetic.canvas import Field, make_canvas
from xray_trainer.synthetic.lesions import Scene, change_anatomy, draw_lesions
from xray_trainer.synthetic.plan import Film

DRAWN_SIDE = 320
"""Side at which bodies are drawn; larger films are scaled up, for bodies are smooth and noise is added after."""
NOISE_SIDE = 1600
GRAIN = (0.7, 1.1)
"""Least and greatest standard deviation of the noise in grey values. It decides over the size of the file: at 1024 x 1024
pixels about 375 kB, as the original's 42 GB of 112,120 images."""
PNG_SETTINGS = {"compress_level": 1, "compress_type": zlib.Z_RLE}
"""Grain doesn't repeat: looking for repetitions would cost half of the rendering time and save little."""


def render_png(film: Film, size: int) -> bytes:
    """The film as an 8-bit grey PNG of size x size pixels; the same bytes for the same film."""
    rng = np.random.default_rng(film.seed)
    exposed = _expose(_attenuation(film, min(size, DRAWN_SIDE), rng), rng)
    grey = np.asarray(Image.fromarray(exposed).resize((size, size), Image.Resampling.BICUBIC))
    grey = grey + _grain(size, rng)
    image = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    _burn_in_marker(image, film.view, rng)
    file = io.BytesIO()
    image.save(file, format="PNG", **PNG_SETTINGS)
    return file.getvalue()


def _attenuation(film: Film, side: int, rng: np.random.Generator) -> Field:
    findings = frozenset(film.findings)
    # numbers of their own: the same film without a finding differs by nothing else
    lesion_rng = np.random.default_rng([film.seed, 1])
    anatomy = change_anatomy(make_anatomy(film.patient), findings, lesion_rng)
    near = 1.05 if film.view == "AP" else 1.0  # the heart is nearer to the tube: a larger shadow
    canvas = make_canvas(
        side,
        turn=rng.normal(0, 0.02),
        shift_x=rng.normal(0, 0.025),
        shift_y=rng.normal(0.02, 0.025),
        zoom=rng.normal(1.0, 0.02) * near,
    )
    body = draw_body(canvas, anatomy, rng)
    return body.attenuation + draw_lesions(Scene(canvas, anatomy, body, lesion_rng), findings)


def _expose(attenuation: Field, rng: np.random.Generator) -> Field:
    """Grey values in 0..255. Exposure differs more between films than findings change an image's mean or contrast."""
    side = len(attenuation)
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    uneven = 1 + rng.normal(0, 0.03) * ramp[None, :] + rng.normal(0, 0.03) * ramp[:, None]
    gamma, gain, base = rng.uniform(0.75, 1.55), rng.uniform(0.75, 1.10), rng.uniform(4, 40)
    film = np.clip(attenuation * 1.22, 0, 1.3) ** np.float32(gamma)
    return (base + 225 * gain * film * uneven).astype(np.float32)


@lru_cache(maxsize=1)
def _noise_sheet() -> Field:
    """Film grain to cut pieces from, made once per process: a million fresh random numbers cost as much as a body."""
    return np.random.default_rng(0).standard_normal((NOISE_SIDE, NOISE_SIDE), dtype=np.float32)


def _grain(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    top, left = rng.integers(0, NOISE_SIDE - min(size, NOISE_SIDE // 2), 2)
    rows, columns = (np.arange(size) + top) % NOISE_SIDE, (np.arange(size) + left) % NOISE_SIDE
    return _noise_sheet()[rows[:, None], columns[None, :]] * np.float32(rng.uniform(*GRAIN))


def _burn_in_marker(image: Image.Image, view: str, rng: np.random.Generator) -> None:
    """L in the image's upper right corner: the patient's left. Portable films (AP) carry a second line."""
    place, size = _marker_place(image.width, rng)
    draw = ImageDraw.Draw(image)
    draw.text(place, "L", fill=245, font=_font(size))
    if view == "AP":
        draw.text((place[0] - size, place[1] + 1.2 * size), "PORTABLE", fill=225, font=_font(max(6, size // 3)))


def _marker_place(side: int, rng: np.random.Generator) -> Tuple[Tuple[float, float], int]:
    return (side * rng.uniform(0.89, 0.92), side * rng.uniform(0.03, 0.07)), max(8, round(side * 0.05))


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
