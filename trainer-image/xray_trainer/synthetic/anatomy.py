"""The healthy body: outline, lungs, ribs, spine, heart, diaphragm, collar bones."""

# numpy types arithmetic on arrays as Any
# mypy: disable-error-code="no-any-return"
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xray_trainer.synthetic.canvas import Canvas, Field, band, ellipse, inside
from xray_trainer.synthetic.plan import Patient

LEFT, RIGHT = 1, -1
"""The patient's sides as signs of x: the patient's left is on the image's right."""


@dataclass(frozen=True)
class Anatomy:
    """Sizes of one body, in units of the film's half side."""

    thorax_width: float
    thorax_top: float
    thorax_bottom: float
    diaphragm: float
    """Height of the patient's left dome."""
    dome: float
    """How far the diaphragm falls from the dome's top to the chest wall."""
    heart_size: float
    heart_turn: float
    rib_spacing: float
    rib_phase: float
    rib_slope: float
    bone: float
    """Strength of bones: less in old age."""
    spine_width: float
    tissue: float
    """Thickness of fat and muscle."""
    clavicle_slope: float
    breasts: float
    lung_air: float
    """How much darker than tissue the lungs are."""
    stomach_bubble: float


def make_anatomy(patient: Patient) -> Anatomy:
    """The body of a patient: the same on all its films."""
    rng = np.random.default_rng(patient.seed)
    child = min(1.0, patient.age_years / 16)
    return Anatomy(
        thorax_width=rng.normal(0.74, 0.03),
        thorax_top=-0.83 + rng.normal(0, 0.025),
        thorax_bottom=0.86 + rng.normal(0, 0.03),
        diaphragm=0.50 + rng.normal(0, 0.035),
        dome=rng.normal(0.20, 0.02),
        heart_size=rng.normal(1.0, 0.05),
        heart_turn=rng.normal(0.55, 0.08),
        rib_spacing=rng.normal(0.163, 0.008) * (0.8 + 0.2 * child),
        rib_phase=rng.uniform(0, 1),
        rib_slope=rng.normal(0.16, 0.03),
        bone=rng.normal(1.0, 0.12) * (1.0 - 0.003 * max(0, patient.age_years - 50)),
        spine_width=rng.normal(0.088, 0.006),
        tissue=rng.normal(0.53, 0.025),
        clavicle_slope=rng.normal(0.16, 0.035),
        breasts=rng.uniform(0.03, 0.08) if patient.sex == "F" and patient.age_years > 14 else 0.0,
        lung_air=rng.normal(0.40, 0.02),
        stomach_bubble=rng.uniform(0.0, 0.2),
    )


@dataclass(frozen=True)
class Body:
    """A drawn body and the regions in which findings are planted."""

    attenuation: Field
    thorax: Field
    """Positive inside the rib cage: about the distance to its wall."""
    lungs: Field
    """1 in the lungs as seen beside heart and diaphragm, else 0."""
    below_diaphragm: Field


def draw_body(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Body:
    """The healthy film of a body, before exposure."""
    x, y = canvas.x, canvas.y
    thorax = _thorax_distance(canvas, anatomy)
    diaphragm = diaphragm_height(canvas, anatomy)
    below = inside(y - diaphragm, 0.012)
    heart = _heart(canvas, anatomy)
    aorta = ellipse(canvas, 0.085, -0.27, 0.095, 0.12, 0.02)
    beside_middle = inside(np.abs(x) - _mediastinum(y), 0.025) * (1 - aorta)
    lungs = inside(thorax, 0.015) * (1 - below) * (1 - heart) * beside_middle
    outline = _outline(canvas, anatomy)
    attenuation = anatomy.tissue * outline
    attenuation += 0.10 * below * outline + 0.10 * heart * (1 - below)
    attenuation -= lungs * (anatomy.lung_air - _vessels(canvas, rng))
    attenuation += outline * _bones(canvas, anatomy, thorax, np.maximum(below, heart))
    attenuation += _soft_parts(canvas, anatomy)
    return Body(np.maximum(attenuation, 0), thorax, lungs, below)


def diaphragm_height(canvas: Canvas, anatomy: Anatomy) -> Field:
    """y of the diaphragm: two domes, the patient's right one higher for the liver below it."""
    u = (np.abs(canvas.x) - 0.34) / 0.38
    u = np.where(u < 0, 0.35 * u, u)  # almost flat towards the heart, which rests on it
    right_is_higher = 0.06 * inside(-canvas.x, 0.08)
    return anatomy.diaphragm - right_is_higher + anatomy.dome * u * u


def _thorax_distance(canvas: Canvas, anatomy: Anatomy) -> Field:
    middle = (anatomy.thorax_top + anatomy.thorax_bottom) / 2
    height = (anatomy.thorax_bottom - anatomy.thorax_top) / 2
    v = np.clip((canvas.y - middle) / height, -1, 1)
    # narrow at the top, widest below the middle
    width = anatomy.thorax_width * np.sqrt(1 - np.abs(v) ** 2.6) * (0.95 + 0.07 * v)
    return width - np.abs(canvas.x)


def _mediastinum(y: Field) -> Field:
    return 0.125 + 0.035 * np.exp(-(((y + 0.05) / 0.2) ** 2))


def _heart(canvas: Canvas, anatomy: Anatomy) -> Field:
    size = anatomy.heart_size
    ventricle = ellipse(canvas, 0.13 * size, 0.33, 0.37 * size, 0.235 * size, 0.022, turn=anatomy.heart_turn)
    atrium = ellipse(canvas, -0.055, 0.27, 0.155 * size, 0.24 * size, 0.022)
    trunk = ellipse(canvas, 0.06, -0.02, 0.13, 0.24, 0.03)
    return np.maximum(np.maximum(ventricle, atrium), trunk)


def _outline(canvas: Canvas, anatomy: Anatomy) -> Field:
    """Neck, shoulders and trunk against air."""
    fat = (anatomy.tissue - 0.53) * 1.5
    corners = np.array([-1.4, -0.98, -0.86, -0.70, -0.45, 0.0, 0.6, 1.4], dtype=np.float32)
    widths = np.array([0.20, 0.22, 0.42, 0.93, 1.02, 0.89, 0.90, 0.93], dtype=np.float32) + fat
    width = np.interp(canvas.y, corners, widths).astype(np.float32)
    # thinner towards the skin, so that the outline fades as on film
    return inside(width - np.abs(canvas.x), 0.05)


def _vessels(canvas: Canvas, rng: np.random.Generator) -> Field:
    """Blood vessels: ridges of noise that fan out from the roots of the lungs."""
    dx, dy = np.abs(canvas.x) - 0.17, canvas.y - 0.02
    distance = np.sqrt(dx * dx + dy * dy)
    ridges = np.exp(-np.abs(canvas.noise(0.10, rng)) * 5) * 0.9 + np.exp(-np.abs(canvas.noise(0.055, rng)) * 4) * 0.5
    root = np.exp(-((distance / 0.13) ** 2))
    return 0.16 * root + ridges * 0.15 * np.exp(-distance / 0.34)


def _bones(canvas: Canvas, anatomy: Anatomy, thorax: Field, dense: Field) -> Field:
    x, y = canvas.x, canvas.y
    across = np.abs(x) / anatomy.thorax_width
    cage = inside(thorax + 0.035, 0.03) * inside(anatomy.thorax_bottom - 0.02 - y, 0.1) * inside(across - 0.1, 0.05)
    behind = (y - anatomy.rib_slope * across * across * 1.6 + 0.10 * across) / anatomy.rib_spacing + anatomy.rib_phase
    front = (y + 0.42 * across) / (1.05 * anatomy.rib_spacing) + anatomy.rib_phase
    front_seen = inside(across - 0.42, 0.12) * inside(0.35 - y, 0.15)
    ribs = 0.105 * _rib_profile(behind) + 0.055 * front_seen * _rib_profile(front)
    # cage seen edge-on: the wall is denser where the rays run along it
    wall = 0.08 * band(thorax - 0.005, 0.025, 0.03) * inside(0.75 - y, 0.1) * inside(y + 0.62, 0.12)
    spine = 0.13 * band(x, anatomy.spine_width, 0.02) * (0.85 + 0.15 * np.cos(y * 48))
    return anatomy.bone * (cage * ribs * (1 - 0.65 * dense) + wall + spine + _shoulders(canvas, anatomy))


def _rib_profile(phase: Field) -> Field:
    """A rib across: a band with denser edges, once per unit of phase."""
    distance = np.abs(phase - np.floor(phase) - 0.5)
    return band(distance, 0.23, 0.06) * (0.75 + 1.6 * distance)


def _shoulders(canvas: Canvas, anatomy: Anatomy) -> Field:
    x, y = np.abs(canvas.x), canvas.y
    line = -0.535 - anatomy.clavicle_slope * (x - 0.08) + 0.028 * np.sin((x - 0.08) * 7)
    clavicles = band(y - line, 0.024, 0.014) * inside(x - 0.09, 0.02) * inside(0.80 - x, 0.03)
    shoulder = Canvas(x, y)
    arms = ellipse(shoulder, 0.94, -0.60, 0.13, 0.15, 0.02)
    blades = band(x - 0.80 + 0.10 * (y + 0.2), 0.012, 0.012) * inside(0.06 - np.abs(y + 0.28) + 0.2, 0.05)
    return 0.19 * clavicles + 0.14 * arms + 0.05 * blades


def _soft_parts(canvas: Canvas, anatomy: Anatomy) -> Field:
    """Windpipe and stomach bubble (air), breasts."""
    x, y = canvas.x, canvas.y
    windpipe = band(x + 0.01, 0.036, 0.02) * inside(-0.17 - y, 0.08) * inside(y + 1.1, 0.1)
    left_half = inside(x, 0.05)
    bubble = ellipse(canvas, 0.36, anatomy.diaphragm + 0.14, 0.15, 0.07, 0.03)
    breasts = ellipse(Canvas(np.abs(x), y), 0.40, 0.42, 0.33, 0.28, 0.06)
    return anatomy.breasts * breasts - 0.13 * windpipe - anatomy.stomach_bubble * bubble * left_half
