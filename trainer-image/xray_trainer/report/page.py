"""The page: the document and the pictures through page.html, every name escaped, nothing that is fetched from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from xray_trainer.report.contents import headline
from xray_trainer.report.drawing import by_auroc

NOTHING = "–"
LEAST_FINDINGS_SHOWN = 3
"""Of a held-out film: what is there or was predicted, and at least so many."""


@dataclass(frozen=True)
class Pictures:
    """What the page shows beside its numbers."""

    plots: Mapping[str, str]
    """Name -> `<svg>` element."""
    films: Sequence[str]
    """Data URIs, in the document's order."""
    attention: Optional[Sequence[str]]
    """The same; None if there are no maps."""
    samples: Sequence[str]


def render(contents: Mapping[str, Any], pictures: Pictures) -> str:
    """The whole page as one text."""
    environment = Environment(
        loader=FileSystemLoader(str(Path(__file__).parent)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, percent=percent, count=count, interval=interval, duration=duration, words=words
    )
    return environment.get_template("page.html").render(
        report=contents,
        evaluation=contents["evaluation"],
        headline=headline(contents),
        findings=by_auroc(contents["evaluation"]["findings"]),
        notes=gather_notes(contents["evaluation"]["findings"]),
        plots={name: Markup(svg) for name, svg in pictures.plots.items()},
        films=[
            {**film, "shown": worth_showing(film["findings"]), "image": image}
            for film, image in zip(contents["films"], pictures.films)
        ],
        attention=pictures.attention,
        samples=[{**sample, "image": image} for sample, image in zip(contents["samples"], pictures.samples)],
    )


def worth_showing(findings: Sequence[Mapping[str, Any]]) -> List[Dict[str, Any]]:
    """Of a film's findings those that are there or were predicted, and the likeliest others; the likeliest first.

    Each with `mark`: found, missed, false alarm, no threshold (then nothing was decided), or nothing.
    """
    ordered = sorted(findings, key=lambda finding: finding["score"], reverse=True)
    shown = [finding for finding in ordered if finding["real"] or finding["predicted"]]
    others = [finding for finding in ordered if finding not in shown]
    shown += others[: max(0, LEAST_FINDINGS_SHOWN - len(shown))]
    return [{**finding, "mark": _mark(finding)} for finding in ordered if finding in shown]


def gather_notes(findings: Sequence[Mapping[str, Any]]) -> Dict[str, List[str]]:
    """What can't be measured of findings that could be measured otherwise -> their names."""
    notes: Dict[str, List[str]] = {}
    for finding in findings:
        if finding["note"] and finding["auroc"] is not None:
            notes.setdefault(finding["note"], []).append(finding["name"])
    return notes


def _mark(finding: Mapping[str, Any]) -> str:
    if finding["predicted"] is None:
        return "no threshold"
    if finding["real"]:
        return "found" if finding["predicted"] else "missed"
    return "false alarm" if finding["predicted"] else ""


def number(value: Optional[float], decimals: int = 3) -> str:
    return NOTHING if value is None else f"{value:.{decimals}f}"


def percent(share: Optional[float], decimals: int = 1) -> str:
    return NOTHING if share is None else f"{100 * share:.{decimals}f} %"


def count(value: Optional[int]) -> str:
    return NOTHING if value is None else f"{value:,}"


def interval(ends: Optional[Sequence[float]], decimals: int = 3) -> str:
    return NOTHING if ends is None else f"{ends[0]:.{decimals}f} to {ends[1]:.{decimals}f}"


def duration(seconds: float) -> str:
    """`1 h 02 min`, `3 min 05 s`, `11 s`."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {left:02d} s" if minutes else f"{left} s"


def words(name: str) -> str:
    """`Pleural_Thickening` as people write it."""
    return name.replace("_", " ")
