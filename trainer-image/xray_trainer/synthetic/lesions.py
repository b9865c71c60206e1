"""The findings as planted shapes, each with a place, a size and a texture of its own.

Cardiomegaly and emphysema change the body before it is drawn, the others are drawn onto it. Shapes are caricatures
of what a radiologist looks for, large enough to be seen on an image of 64 pixels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, FrozenSet, Mapping

import numpy as np

from xray_trainer.synthetic.anatomy import LEFT, RIGHT, Anatomy, Body
from xray_trainer.synthetic.canvas import Canvas, Field, band, ellipse, inside


def change_anatomy(anatomy: Anatomy, findings: FrozenSet[str], rng: np.random.Generator) -> Anatomy:
    """The body with the findings that change its organs."""
    if "Cardiomegaly" in findings:
        anatomy = replace(anatomy, heart_size=anatomy.heart_size * rng.uniform(1.28, 1.42))
    if "Emphysema" in findings:
        # too much air: darker lungs that press the diaphragm flat and low
        air, low = rng.uniform(0.04, 0.06), rng.uniform(0.09, 0.12)
        anatomy = replace(anatomy, lung_air=anatomy.lung_air + air, diaphragm=anatomy.diaphragm + low, dome=0.07)
    return anatomy


def draw_lesions(canvas: Canvas, anatomy: Anatomy, body: Body, findings: FrozenSet[str], rng: np.random.Generator) -> Field:
    """(n, n) attenuation that the findings add to, or take from, a drawn body."""
    total = np.zeros_like(body.attenuation)
    for finding in sorted(findings):
        if finding in _DRAWN:
            total += _DRAWN[finding](canvas, anatomy, body, rng)
    return total


def _side(rng: np.random.Generator) -> int:
    return LEFT if rng.random() < 0.5 else RIGHT


def _lobe(canvas: Canvas, body: Body, x: float, y: float, width: float, height: float) -> Field:
    """A soft region of the lung around a point."""
    return body.lungs * ellipse(canvas, x, y, width, height, 0.07)


def _atelectasis(canvas: Canvas, anatomy: Anatomy, body: Body, rng: np.random.Generator) -> Field:
    """Collapsed slices of lung: dense flat plates above the patient's left diaphragm."""
    tilt, y = rng.normal(-0.15, 0.06), anatomy.diaphragm - rng.uniform(0.13, 0.19)
    across = (canvas.x - 0.45) * tilt
    plates = band(canvas.y - y - across, 0.022, 0.012) + band(canvas.y - y - 0.085 - 0.6 * across, 0.018, 0.012)
    return 0.26 * body.lungs * plates * inside(0.30 - np.abs(canvas.x - 0.47), 0.05)


def _consolidation(canvas: Canvas, anatomy: Anatomy, body: Body, rng: np.random.Generator) -> Field:
    """Lung filled with fluid: a dense patch with a straight lower edge in the patient's right middle zone."""
    x, y = -rng.uniform(0.38, 0.46), rng.uniform(-0.02, 0.06)
    patch = _lobe(canvas, body, x, y, 0.24, 0.15) * inside(y + 0.09 - canvas.y, 0.015)
    return 0.30 * patch * (1 - 0.25 * inside(canvas.noise(0.05, rng) - 0.8, 0.3))


def _edema(canvas: Canvas, anatomy: Anatomy, body: Body, rng: np.random.Generator) -> Field:
    """Fluid around both lung roots: the bat's wings."""
    wings = ellipse(Canvas(np.abs(canvas.x), canvas.y), 0.25, 0.0, 0.23, 0.34, 0.16)
    return rng.uniform(0.15, 0.20) * body.lungs * wings * (1 + 0.25 * canvas.noise(0.07, rng))


def _effusion(canvas: Canvas, anatomy: Anatomy, body: Body, rng: np.random.Generator) -> Field:
    """Fluid at the bottom of the chest: the sharp angle at the wall is filled, its surface rises to the wall."""
    side = _side(rng)
    level = anatomy.diaphragm - rng.uniform(0.02, 0.12)
    towards_wall = np.clip(side * canvas.x / anatomy.thorax_width, 0, 1.1)
    fluid = inside(canvas.y - level + 0.20 * (towards_wall**3 - 0.5), 0.025) * inside(side * canvas.x - 0.16, 0.04)
    return 0.36 * body.lungs * fluid


def _fibrosis(canvas: Canvas, anatomy: Anatomy, body: Body, rng: np.random.Generator) -> Field:
    """Scars: a coarse net of lines in the outer parts of both lungs."""
    net = np.exp(-np.abs(canvas.noise(0.075, rng)) * 4) + np.exp(-np.abs(canvas.noise(0.06, rng)) * 4)
    outer = inside(np.abs(canvas.x) - 0.40, 0.10) * inside(canvas.y + 0.35, 0.2)
    return 0.17 * body.lungs * outer * (net - 0.1)


def _hernia(canvas: Canvas, anatomy: Anatomy, body: Body, rng: np.random.Generator) -> Field:
    """Stomach in the chest: a ring behind the heart with a bubble of air over a level of fluid."""
    x, y, size = rng.uniform(-0.02, 0.06), anatomy.diaphragm - rng.uniform(0.16, 0.20), rng.uniform(0.13, 0.16)
    whole = ellipse(canvas, x, y, size, size, 0.012)
    hollow = ellipse(canvas, x, y, size - 0.03, size - 0.03, 0.012)
    air = hollow * inside(y + 0.02 - canvas.y, 0.01)
    return 0.12 * (whole - hollow) + 0.06 * (hollow - air) - 0.30 * air


def _infiltration(canvas: Canvas, anatomy: Anatomy, body: Body, rng: np.random.Generator) -> Field:
    """Patchy clouds in the patient's left upper zone."""
    x, y = rng.uniform(0.36, 0.44), rng.uniform(-0.38, -0.28)
    clouds = inside(canvas.noise(0.09, rng) + 0.1, 0.5)
    return 0.24 * _lobe(canvas, body, x, y, 0.24, 0.26) * clouds


def _mass(canvas: Canvas, anatomy: Anatomy, body: Body, rng: np.random.Generator) -> Field:
    """A tumour of more than 3 cm: a large dense ball with a lobed edge."""
    side, size = _side(rng), rng.uniform(0.10, 0.135)
    x, y = side * rng.uniform(0.34, 0.46), rng.uniform(-0.08, 0.18)
    lobes = ellipse(canvas, x, y, size, size * rng.uniform(0.85, 1.0), 0.015)
    lobes = np.maximum(lobes, ellipse(canvas, x + 0.4 * size, y - 0.5 * size, 0.6 * size, 0.6 * size, 0.015))
    return 0.36 * lobes * (0.3 + 0.7 * body.lungs)


def _nodule(canvas: Canvas, anatomy: Anatomy, body: Body, rng: np.random.Generator) -> Field:
    """A round spot of 2 to 3 cm with a sharp edge, in an upper zone."""
    side, size = _side(rng), rng.uniform(0.048, 0.062)
    x, y = side * rng.uniform(0.30, 0.42), rng.uniform(-0.46, -0.32)
    return 0.40 * ellipse(canvas, x, y, size, size, 0.012)


def _pleural_thickening(canvas: Canvas, anatomy: Anatomy, body: Body, rng: np.random.Generator) -> Field:
    """A bright coat of uneven thickness on the chest wall of both sides."""
    thickness = rng.uniform(0.055, 0.075) + 0.012 * canvas.noise(0.15, rng)
    coat = inside(thickness - body.thorax, 0.012) * inside(body.thorax, 0.012)
    return 0.30 * coat * band(canvas.y - 0.05, 0.40, 0.12)


def _pneumonia(canvas: Canvas, anatomy: Anatomy, body: Body, rng: np.random.Generator) -> Field:
    """An inflamed lobe: a soft, mottled patch in the patient's right lower zone."""
    x, y = -rng.uniform(0.36, 0.46), anatomy.diaphragm - rng.uniform(0.14, 0.20)
    mottled = 0.85 + 0.25 * canvas.noise(0.06, rng)
    return 0.26 * _lobe(canvas, body, x, y, 0.25, 0.17) * mottled


def _pneumothorax(canvas: Canvas, anatomy: Anatomy, body: Body, rng: np.random.Generator) -> Field:
    """Air outside the lung: a black rim over the top and along the wall, bounded by the fine line of the pleura."""
    side, depth = _side(rng), rng.uniform(0.13, 0.19)
    from_top = canvas.y - anatomy.thorax_top
    edge = np.minimum(body.thorax, 0.75 * from_top) - depth * (1 - 0.45 * np.clip(from_top, 0, 2))
    here = body.lungs * inside(side * canvas.x, 0.02) * inside(0.45 - canvas.y, 0.08)
    return here * (0.10 * band(edge, 0.010, 0.008) - 0.17 * inside(-edge, 0.012))


_DRAWN: Mapping[str, Callable[[Canvas, Anatomy, Body, np.random.Generator], Field]] = {
    "Atelectasis": _atelectasis,
    "Consolidation": _consolidation,
    "Edema": _edema,
    "Effusion": _effusion,
    "Fibrosis": _fibrosis,
    "Hernia": _hernia,
    "Infiltration": _infiltration,
    "Mass": _mass,
    "Nodule": _nodule,
    "Pleural_Thickening": _pleural_thickening,
    "Pneumonia": _pneumonia,
    "Pneumothorax": _pneumothorax,
}
