"""The findings as planted shapes, each with a place, a size and a texture of its own.

Cardiomegaly and emphysema change the body before it is drawn, the others are drawn onto it. Shapes are caricatures
of what a radiologist looks for, large enough to be seen on an image of 64 pixels.
"""

# numpy types arithmetic on arrays as Any
# mypy: disable-error-code="no-any-return"
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable, FrozenSet, Mapping

import numpy as np

from xray_trainer.synthetic.anatomy import LEFT, RIGHT, Anatomy, Body
from xray_trainer.synthetic.canvas import Canvas, Field, band, ellipse, inside


@dataclass(frozen=True)
class Scene:
    """A drawn body, ready for findings; `rng` decides over their exact place, size and texture."""

    canvas: Canvas
    anatomy: Anatomy
    body: Body
    rng: np.random.Generator


def change_anatomy(anatomy: Anatomy, findings: FrozenSet[str], rng: np.random.Generator) -> Anatomy:
    """The body with the findings that change its organs."""
    if "Cardiomegaly" in findings:
        anatomy = replace(anatomy, heart_size=anatomy.heart_size * rng.uniform(1.28, 1.42))
    if "Emphysema" in findings:
        # too much air: darker lungs that press the diaphragm flat and low
        air, low = rng.uniform(0.04, 0.06), rng.uniform(0.09, 0.12)
        anatomy = replace(anatomy, lung_air=anatomy.lung_air + air, diaphragm=anatomy.diaphragm + low, dome=0.07)
    return anatomy


def draw_lesions(scene: Scene, findings: FrozenSet[str]) -> Field:
    """(n, n) attenuation that the findings add to, or take from, a drawn body."""
    total = np.zeros_like(scene.body.attenuation)
    for finding in sorted(findings):
        if finding in _DRAWN:
            total += _DRAWN[finding](scene)
    return total


def _side(rng: np.random.Generator) -> int:
    return LEFT if rng.random() < 0.5 else RIGHT


def _lobe(scene: Scene, x: float, y: float, width: float, height: float) -> Field:
    """A soft region of the lung around a point."""
    return scene.body.lungs * ellipse(scene.canvas, x, y, width, height, 0.07)


def _atelectasis(scene: Scene) -> Field:
    """Collapsed slices of lung: dense flat plates above the patient's left diaphragm."""
    tilt, y = scene.rng.normal(-0.15, 0.04), scene.anatomy.diaphragm - scene.rng.uniform(0.14, 0.18)
    across = (scene.canvas.x - 0.45) * tilt
    plates = band(scene.canvas.y - y - across, 0.030, 0.012) + band(
        scene.canvas.y - y - 0.095 - 0.6 * across, 0.026, 0.012
    )
    return 0.32 * scene.body.lungs * plates * inside(0.30 - np.abs(scene.canvas.x - 0.47), 0.05)


def _consolidation(scene: Scene) -> Field:
    """Lung filled with fluid: a dense patch with a straight lower edge in the patient's right middle zone."""
    x, y = -scene.rng.uniform(0.38, 0.46), scene.rng.uniform(-0.02, 0.06)
    patch = _lobe(scene, x, y, 0.24, 0.15) * inside(y + 0.09 - scene.canvas.y, 0.015)
    return 0.30 * patch * (1 - 0.25 * inside(scene.canvas.noise(0.05, scene.rng) - 0.8, 0.3))


def _edema(scene: Scene) -> Field:
    """Fluid around both lung roots: the bat's wings."""
    wings = ellipse(Canvas(np.abs(scene.canvas.x), scene.canvas.y), 0.25, 0.0, 0.23, 0.34, 0.16)
    return scene.rng.uniform(0.15, 0.20) * scene.body.lungs * wings * (1 + 0.25 * scene.canvas.noise(0.07, scene.rng))


def _effusion(scene: Scene) -> Field:
    """Fluid at the bottom of the chest: the sharp angle at the wall is filled, its surface rises to the wall."""
    side = _side(scene.rng)
    level = scene.anatomy.diaphragm - scene.rng.uniform(0.10, 0.20)
    towards_wall = np.clip(side * scene.canvas.x / scene.anatomy.thorax_width, 0, 1.1)
    fluid = inside(scene.canvas.y - level + 0.20 * (towards_wall**3 - 0.5), 0.025) * inside(
        side * scene.canvas.x - 0.16, 0.04
    )
    return 0.36 * scene.body.lungs * fluid


def _fibrosis(scene: Scene) -> Field:
    """Scars: a coarse net of lines in the outer parts of both lungs."""
    net = np.exp(-np.abs(scene.canvas.noise(0.075, scene.rng)) * 4) + np.exp(
        -np.abs(scene.canvas.noise(0.06, scene.rng)) * 4
    )
    outer = inside(np.abs(scene.canvas.x) - 0.40, 0.10) * inside(scene.canvas.y + 0.35, 0.2)
    return 0.20 * scene.body.lungs * outer * (net + 0.15)


def _hernia(scene: Scene) -> Field:
    """Stomach in the chest: a ring behind the heart with a bubble of air over a level of fluid."""
    x, y, size = (
        scene.rng.uniform(-0.02, 0.06),
        scene.anatomy.diaphragm - scene.rng.uniform(0.16, 0.20),
        scene.rng.uniform(0.13, 0.16),
    )
    whole = ellipse(scene.canvas, x, y, size, size, 0.012)
    hollow = ellipse(scene.canvas, x, y, size - 0.03, size - 0.03, 0.012)
    air = hollow * inside(y + 0.02 - scene.canvas.y, 0.01)
    return 0.12 * (whole - hollow) + 0.06 * (hollow - air) - 0.30 * air


def _infiltration(scene: Scene) -> Field:
    """Patchy clouds in the patient's left upper zone."""
    x, y = scene.rng.uniform(0.36, 0.44), scene.rng.uniform(-0.38, -0.28)
    clouds = inside(scene.canvas.noise(0.09, scene.rng) + 0.1, 0.5)
    return 0.24 * _lobe(scene, x, y, 0.24, 0.26) * clouds


def _mass(scene: Scene) -> Field:
    """A tumour of more than 3 cm: a large dense ball with a lobed edge, in the patient's left middle zone."""
    size = scene.rng.uniform(0.11, 0.14)
    x, y = scene.rng.uniform(0.38, 0.48), scene.rng.uniform(-0.05, 0.10)
    lobes = ellipse(scene.canvas, x, y, size, size * scene.rng.uniform(0.85, 1.0), 0.015)
    lobes = np.maximum(lobes, ellipse(scene.canvas, x + 0.4 * size, y - 0.5 * size, 0.6 * size, 0.6 * size, 0.015))
    return 0.36 * lobes * (0.3 + 0.7 * scene.body.lungs)


def _nodule(scene: Scene) -> Field:
    """A round spot of 2 to 3 cm with a sharp edge, in the patient's right upper zone."""
    size = scene.rng.uniform(0.060, 0.075)
    x, y = -scene.rng.uniform(0.32, 0.42), scene.rng.uniform(-0.44, -0.34)
    return 0.42 * ellipse(scene.canvas, x, y, size, size, 0.012)


def _pleural_thickening(scene: Scene) -> Field:
    """A bright coat of uneven thickness on the chest wall of both sides."""
    thickness = scene.rng.uniform(0.055, 0.075) + 0.012 * scene.canvas.noise(0.15, scene.rng)
    coat = inside(thickness - scene.body.thorax, 0.012) * inside(scene.body.thorax, 0.012)
    return 0.30 * coat * band(scene.canvas.y - 0.05, 0.40, 0.12)


def _pneumonia(scene: Scene) -> Field:
    """An inflamed lobe: a soft, mottled patch in the patient's right lower zone."""
    x, y = -scene.rng.uniform(0.36, 0.46), scene.anatomy.diaphragm - scene.rng.uniform(0.14, 0.20)
    mottled = 0.85 + 0.25 * scene.canvas.noise(0.06, scene.rng)
    return 0.26 * _lobe(scene, x, y, 0.25, 0.17) * mottled


def _pneumothorax(scene: Scene) -> Field:
    """Air outside the lung: a black rim over the top and along the wall, bounded by the fine line of the pleura."""
    side, depth = _side(scene.rng), scene.rng.uniform(0.16, 0.22)
    from_top = scene.canvas.y - scene.anatomy.thorax_top
    edge = np.minimum(scene.body.thorax, 0.75 * from_top) - depth * (1 - 0.45 * np.clip(from_top, 0, 2))
    here = scene.body.lungs * inside(side * scene.canvas.x, 0.02) * inside(0.45 - scene.canvas.y, 0.08)
    return here * (0.10 * band(edge, 0.010, 0.008) - 0.19 * inside(-edge, 0.012))


_DRAWN: Mapping[str, Callable[[Scene], Field]] = {
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
