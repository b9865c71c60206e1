"""What is said of images: as a table for a terminal, as JSON, as CSV."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Optional, TextIO

VERSION = 1
MARK = "*"
LEGEND = (
    f"{MARK} at or above the threshold, which was fixed on validation images. Research software, not a medical device: no "
    "substitute for a doctor."
)
COLUMNS = ("image", "finding", "score", "threshold", "marked")


@dataclass(frozen=True)
class Answer:
    """One finding of one image."""

    finding: str
    score: float
    threshold: Optional[float]
    """None where none was fixed: nothing is marked then."""

    @property
    def marked(self) -> Optional[bool]:
        return None if self.threshold is None else self.score >= self.threshold

    def as_json(self) -> Dict[str, Any]:
        return {"name": self.finding, "score": self.score, "threshold": self.threshold, "marked": self.marked}


@dataclass(frozen=True)
class Read:
    """An image that was answered for."""

    image: str
    answers: List[Answer]


@dataclass(frozen=True)
class Unread:
    """One that could not be."""

    image: str
    problem: str


def table(read: Read) -> str:
    """A heading and a line for each finding, the highest score first."""
    width = max(len(answer.finding) for answer in read.answers)
    head = f"  {'finding':<{width}}  score  threshold"
    return "\n".join([read.image, head, *(_line(answer, width) for answer in _ranked(read.answers))]) + "\n"


def _ranked(answers: Iterable[Answer]) -> List[Answer]:
    return sorted(answers, key=lambda answer: -answer.score)


def _line(answer: Answer, width: int) -> str:
    threshold = "-" if answer.threshold is None else f"{answer.threshold:.3f}"
    mark = f"  {MARK}" if answer.marked else ""
    return f"  {answer.finding:<{width}}  {answer.score:.3f}  {threshold:>9}{mark}"


def document(model: str, read: Iterable[Read], unread: Iterable[Unread]) -> Dict[str, Any]:
    """The shape of the JSON file; findings in the model's order."""
    return {
        "version": VERSION,
        "model": model,
        "images": [{"image": each.image, "findings": [answer.as_json() for answer in each.answers]} for each in read],
        "unreadable": [{"image": each.image, "problem": each.problem} for each in unread],
    }


def write_csv(file: TextIO, read: Iterable[Read]) -> None:
    """A line for each image and finding; what is not known is empty."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in read:
        for answer in each.answers:
            marked = "" if answer.marked is None else int(answer.marked)
            writer.writerow([each.image, answer.finding, f"{answer.score:.6f}", _known(answer.threshold), marked])


def _known(value: Optional[float]) -> str:
    return "" if value is None else f"{value:.6f}"
