"""A comparison as a picture: what each flavor takes and costs, and how both grow with the images. Called by compare.

matplotlib comes with the extra `pictures`: nothing else of the command line needs it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from xray_cli.comparison_tables import Comparison, source_of
from xray_cli.errors import CommandError
from xray_operator.core.comparison import HINT, HISTORY, MEASURED, Entry, PartSample, Row
from xray_operator.core.crossing import ALWAYS

COLOURS: Final = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#9c755f", "#76b7b2", "#e15759", "#edc948")
PREPARATION: Final = "#bab0ac"
POINTS: Final = 150
LINE: Final = 70
"""Characters above a panel."""
SOURCES: Final = {MEASURED: "runs of this comparison", HISTORY: "finished runs", HINT: "hints"}

Measure = Callable[[PartSample], Any]


def draw(comparison: Comparison, file: Path) -> None:
    """Write the picture. Raises: CommandError where it can't be written."""
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    rows = [entry.row(comparison.images) for entry in comparison.entries]
    currency = _currency(rows)
    panels: Any = figure.subplots(2, 2 if currency else 1, squeeze=False)
    _bars(panels[0][0], rows, lambda part: part.seconds, 60, "minutes")
    _shares(panels[1][0], comparison, lambda part: part.seconds, "time")
    if currency:
        _bars(panels[0][1], rows, lambda part: part.amount, 1, currency)
        _shares(panels[1][1], comparison, lambda part: part.amount, "money")
    figure.suptitle(title(comparison))
    try:
        figure.savefig(file, dpi=110, format="png", metadata={"Software": None})
    except OSError as error:
        raise CommandError(f'the path "{file}" cannot be written: {error.strerror}') from error


def title(comparison: Comparison) -> str:
    """vit-nih: 112,120 images, from finished runs and hints."""
    sources = " and ".join(told for source, told in SOURCES.items() if source in {e.source for e in comparison.entries})
    return f"{comparison.name}: {comparison.images:,} images, from {sources}"


def _currency(rows: Sequence[Row]) -> str | None:
    """Of all of them; None where amounts have none in common."""
    told = {row.currency for row in rows if row.preparation.amount and row.training.amount}
    return told.pop() if len(told) == 1 and all(row.preparation.amount for row in rows) else None


def _bars(panel: Any, rows: Sequence[Row], measure: Measure, unit: int, name: str) -> None:
    """Training on top of preparation; the whisker is the standard deviation of the repeats."""
    places = range(len(rows))
    prepares = [float(measure(row.preparation).mean) / unit for row in rows]
    trains = [float(measure(row.training).mean) / unit for row in rows]
    spreads = [float(measure(row.training).deviation or 0) / unit for row in rows]
    panel.bar(places, prepares, color=PREPARATION, label="preparation")
    panel.bar(places, trains, bottom=prepares, color=COLOURS[: len(rows)])
    if any(spreads):
        tops = [lower + upper for lower, upper in zip(prepares, trains, strict=True)]
        panel.errorbar(places, tops, yerr=spreads, fmt="none", ecolor="#333333", capsize=6)
    for place, total in enumerate(float(measure(row.total).mean) / unit for row in rows):
        above = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center"}
        panel.annotate(f"{total:.2f}", (place, total + spreads[place]), **above)
    panel.set_xticks(list(places), [f"{row.flavor}\n{source_of(row)}" for row in rows])
    panel.set_ylabel(name)
    panel.margins(y=0.3)
    panel.legend(loc="upper left", handles=[panel.containers[0][0]], labels=["preparation"], frameon=False)
    panel.spines[["top", "right"]].set_visible(False)


def _shares(panel: Any, comparison: Comparison, measure: Measure, of: str) -> None:
    """What a run takes, with its preparation, as a share of what it takes on the first flavor, over the images; where the
    bigger flavor begins to win for good is marked, and told above."""
    marks = marked(comparison, of)
    sizes = _sizes([*comparison.sizes, *(images for wins in marks.values() for images in wins.values())])
    first, *_ = values = [[_total(entry, images, measure) for images in sizes] for entry in comparison.entries]
    for entry, colour, each in zip(comparison.entries, COLOURS, values, strict=False):
        shares = [own / base if base else math.nan for own, base in zip(each, first, strict=True)]
        panel.plot(sizes, shares, color=colour, label=entry.flavor)
        for images in marks.get(entry.flavor, {}).values():
            panel.axvline(images, color=colour, linewidth=1, linestyle=":")
    panel.set_title("\n".join(map(_told, marks, marks.values())), loc="left", fontsize=8, color="#555555")
    panel.set(xscale="log", xlabel="images", ylabel=f"{of}, {comparison.entries[0].flavor} = 1")
    panel.margins(y=0.15)
    panel.grid(visible=True, which="major", color="#e5e5e5")
    panel.legend(loc="best", framealpha=1)


def marked(comparison: Comparison, of: str) -> dict[str, dict[str, int]]:
    """Bigger flavor -> smaller flavor -> from how many images on it wins; without those that always or never do.

    Args:
        of: time or money.
    """
    found: dict[str, dict[str, int]] = {}
    for each in comparison.crossings:
        if (images := getattr(each, of)) and images > ALWAYS:
            found.setdefault(each.bigger, {})[each.smaller] = images
    return found


def _told(bigger: str, wins: dict[str, int]) -> str:
    told = " and ".join(f"{smaller} from {images:,}" for smaller, images in wins.items())
    return textwrap.fill(f"{bigger} beats {told}", LINE)


def _total(entry: Entry, images: int, measure: Measure) -> float:
    return float(measure(entry.row(images).total).mean)


def _sizes(marked: Sequence[int]) -> list[int]:
    """Evenly on a logarithmic scale, from a tenth of the smallest to ten times the largest that matters."""
    least, most = max(1.0, min(marked) / 10), max(marked) * 10.0
    return sorted({round(least * (most / least) ** (point / (POINTS - 1))) for point in range(POINTS)})
