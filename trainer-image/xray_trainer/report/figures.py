"""A plot as a PNG file, and as SVG for the page, whose colours follow the reader's choice of light or dark.

Figures are made without pyplot: there is no screen, and nothing that has to be closed.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import AbstractSet, Any, Callable, Dict, Mapping, Tuple
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

BLUE, ORANGE, GREY, INK = "#1f5fa8", "#c2611f", "#767d87", "#26323f"
VARIABLES: Mapping[str, str] = {BLUE: "--blue", ORANGE: "--orange", GREY: "--grey", INK: "--ink"}
"""Colour of a plot -> variable of style.css that takes its place in the page."""
DOTS_PER_INCH = 160
STYLE: Any = {
    "font.size": 8.5,
    "legend.fontsize": 8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": GREY,
    "grid.linewidth": 0.5,
    "text.parse_math": False,  # a finding's name may hold dollar signs
    "svg.fonttype": "none",  # text stays text: it can be read aloud, and chosen
}
SVG = "http://www.w3.org/2000/svg"
HREF = "{http://www.w3.org/1999/xlink}href"
REFERENCE = re.compile(r"#(\w+)")
FONT = re.compile(r"font: [^;]*?([0-9.]+)px [^;]*")
DROPPED = frozenset((f"{{{SVG}}}metadata", f"{{{SVG}}}style"))
"""Of what matplotlib writes: its style would hold for the whole page."""

ElementTree.register_namespace("", SVG)


@dataclass(frozen=True)
class Plot:
    """Something to look at."""

    name: str
    """Of its file, without the ending; unique on the page."""
    inches: Tuple[float, float]
    """Narrow: on a phone it is shown as large as this."""
    draw: Callable[[Figure], None]
    description: str
    """What somebody is told who doesn't see it."""
    constrained: bool = True
    """Whether matplotlib finds the margins; otherwise `draw` has its own."""


def write_png(plot: Plot, folder: Path) -> None:
    """Write `{name}.png`, under a temporary name first."""
    temporary = folder / f".{plot.name}.tmp.png"
    with matplotlib.rc_context(STYLE):
        _drawn(plot).savefig(temporary, dpi=DOTS_PER_INCH, facecolor="white")
    temporary.replace(folder / f"{plot.name}.png")


def make_svg(plot: Plot) -> str:
    """An `<svg>` element for the page: its texts are text, its colours are the page's, its ids are its own."""
    file = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": plot.name}):
        _drawn(plot).savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(file.getvalue())
    _adopt(root, plot.name)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib.update({"role": "img", "aria-label": plot.description})
    return ElementTree.tostring(root, encoding="unicode")


def _drawn(plot: Plot) -> Figure:
    figure = Figure(figsize=plot.inches, layout="constrained" if plot.constrained else None)
    plot.draw(figure)
    return figure


def _adopt(root: ElementTree.Element, prefix: str) -> None:
    """Drop what the page doesn't need of matplotlib's drawing, and make the rest part of it."""
    for parent in root.iter():
        for child in [child for child in parent if child.tag in DROPPED]:
            parent.remove(child)
    referred = {
        found for element in root.iter() for value in element.attrib.values() for found in REFERENCE.findall(value)
    }
    for element in root.iter():
        element.attrib.update(_attributes(element.attrib, referred, prefix))
        if element.attrib.get("id") == "":
            del element.attrib["id"]
        element.attrib.pop(HREF, None)


def _attributes(given: Mapping[str, str], referred: AbstractSet[str], prefix: str) -> Dict[str, str]:
    """The attributes that change."""
    changed: Dict[str, str] = {}
    if "id" in given:
        changed["id"] = f"{prefix}-{given['id']}" if given["id"] in referred else ""
    if HREF in given:
        changed["href"] = f"#{prefix}-{given[HREF][1:]}"
    if "clip-path" in given:
        changed["clip-path"] = given["clip-path"].replace("#", f"#{prefix}-")
    if "style" in given:
        changed["style"] = _themed(given["style"])
    return changed


def _themed(style: str) -> str:
    for colour, variable in VARIABLES.items():
        style = style.replace(colour, f"var({variable})")
    return FONT.sub(r"font-size: \1px", style)
