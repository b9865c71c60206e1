"""The splits that a run may ask for, and the article's: sizes, positives and the patients that parts have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, List, Literal, Mapping, Optional

import numpy as np
from numpy.typing import NDArray

from xray_trainer.config import Split
from xray_trainer.evaluation.floors import Floors, measure_floors
from xray_trainer.evaluation.table import Table
from xray_trainer.prepare.labels import LabelRow
from xray_trainer.prepare.official import OfficialLists
from xray_trainer.prepare.split import PARTS, Unit, assign_units, split_images

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
"""The resource's defaults."""
ARTICLE_SHARES = {"train": 0.95, "test": 0.05}
"""A random twentieth of the images, as in the tutorial whose figures are often quoted."""
ARTICLE_REPEATS = 5
"""A twentieth of ChestX-ray14 has about eleven images with Hernia: the floors of a single one say little."""

Rows = Mapping[str, LabelRow]
Parts = NDArray[np.int64]
"""(n,) index into PARTS of each image."""


@dataclass(frozen=True)
class PartFacts:
    images: int
    patients: int
    positives: Dict[str, int]


@dataclass(frozen=True)
class SplitFacts:
    """One split of the data set."""

    name: str
    parts: Dict[str, PartFacts]
    patients_in_several_parts: int
    leaked_images: int
    """Outside the training part, with their patient inside it."""


@dataclass(frozen=True)
class Plan:
    """A split before it is made."""

    name: str
    divide: Callable[[Rows, int], Dict[str, str]]
    """Rows and seed -> image -> part."""
    repeats: int = 1
    """Seeds over which the floors are averaged."""


def make_plans(lists: Optional[OfficialLists]) -> List[Plan]:
    """Patient, Official if its lists are there, and Image as the article has it."""
    by_patient = Plan("Patient", lambda rows, seed: split_images(rows, _settings("Patient", seed)))
    official = Plan("Official", lambda rows, seed: split_images(rows, _settings("Official", seed), lists))
    article = Plan("Image", _split_as_the_article, ARTICLE_REPEATS)
    return [by_patient, *([official] if lists is not None else []), article]


def _settings(by: Literal["Patient", "Official"], seed: int) -> Split:
    return Split(by=by, seed=seed, **SHARES)


def _split_as_the_article(rows: Rows, seed: int) -> Dict[str, str]:
    return assign_units(dict.fromkeys(rows, Unit(1)), ARTICLE_SHARES, seed, "image")


def divide(plan: Plan, rows: Rows, seed: int) -> Parts:
    """The part of each image. Raises: DataError if it can't be done."""
    part_of = plan.divide(rows, seed)
    index = {part: place for place, part in enumerate(PARTS)}
    return np.array([index[part_of[image]] for image in rows], dtype=np.int64)


def describe_split(name: str, table: Table, parts: Parts) -> SplitFacts:
    """Counts of a split."""
    met = np.zeros((table.patient_count, len(PARTS)), dtype=np.bool_)
    met[table.patients, parts] = True
    train = PARTS.index("train")
    return SplitFacts(
        name=name,
        parts={part: _describe_part(table, parts == place, met[:, place]) for place, part in enumerate(PARTS)},
        patients_in_several_parts=int((met.sum(axis=1) > 1).sum()),
        leaked_images=int((met[table.patients, train] & (parts != train)).sum()),
    )


def _describe_part(table: Table, inside: NDArray[np.bool_], met: NDArray[np.bool_]) -> PartFacts:
    positives = table.labels[inside].sum(axis=0, dtype=np.int64)
    return PartFacts(int(inside.sum()), int(met.sum()), dict(zip(table.findings, positives.tolist())))


def measure_split(table: Table, parts: Parts) -> Floors:
    """The floors on its test part."""
    return measure_floors(table, parts == PARTS.index("train"), parts == PARTS.index("test"))
