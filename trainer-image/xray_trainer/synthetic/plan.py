"""Who is X-rayed, how often and with which findings: decided first, so that rendering can be shared out."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Iterator, List, Tuple

import numpy as np

from xray_trainer.findings import NIH_FINDINGS

HEALTHY_SHARE = 0.25
"""Images without a finding. NIH has 54 %; fewer leave more positives in a small set."""
MAX_FINDINGS = 4
REPEATED_SHARE = 0.3
"""Follow-up films that show the same findings as the film before."""
MEAN_FILMS = 3.0
"""Films per patient; NIH has 3.64."""
MAX_FILMS = 12
MALE_SHARE = 0.56
PA_SHARE = 0.6
"""The other films are AP, taken from the front with a portable tube."""
AGE_YEARS = (46.6, 16.6)
"""Mean and standard deviation. These three are ChestX-ray14's, of its 112,120 images."""
AGE_LIMITS = (1, 95)


@dataclass(frozen=True)
class Patient:
    """One body. `seed` decides over its anatomy."""

    number: int
    seed: int
    age_years: int
    sex: str


@dataclass(frozen=True)
class Film:
    """One image to render. `seed` decides over position, exposure, noise and the exact shape of the findings."""

    patient: Patient
    follow_up: int
    view: str
    findings: Tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        return f"{self.patient.number:08d}_{self.follow_up:03d}.png"


def make_plan(images: int, seed: int) -> List[Film]:
    """The films of a data set, patient by patient, the same for the same arguments.

    Findings are dealt like cards, so that each is equally frequent whatever the number of images.
    """
    rng = np.random.default_rng([seed, images])
    deck = _deal(rng)
    films: List[Film] = []
    for number in itertools.count(1):
        if len(films) == images:
            break
        patient = _make_patient(number, rng)
        count = min(MAX_FILMS, int(rng.geometric(1 / MEAN_FILMS)), images - len(films))
        films += _films_of(patient, count, deck, rng)
    return films


def _make_patient(number: int, rng: np.random.Generator) -> Patient:
    age = int(np.clip(rng.normal(*AGE_YEARS), *AGE_LIMITS))
    return Patient(number, int(rng.integers(2**31)), age, "M" if rng.random() < MALE_SHARE else "F")


def _films_of(patient: Patient, count: int, deck: Iterator[str], rng: np.random.Generator) -> List[Film]:
    films: List[Film] = []
    for follow_up in range(count):
        repeated = films and rng.random() < REPEATED_SHARE
        findings = films[-1].findings if repeated else _draw_findings(deck, rng)
        view = "PA" if rng.random() < PA_SHARE else "AP"
        films.append(Film(patient, follow_up, view, findings, int(rng.integers(2**31))))
    return films


def _draw_findings(deck: Iterator[str], rng: np.random.Generator) -> Tuple[str, ...]:
    if rng.random() < HEALTHY_SHARE:
        return ()
    count = int(rng.integers(1, MAX_FINDINGS + 1))
    return tuple(sorted({next(deck) for _ in range(count)}))


def _deal(rng: np.random.Generator) -> Iterator[str]:
    while True:
        yield from (NIH_FINDINGS[index] for index in rng.permutation(len(NIH_FINDINGS)))
