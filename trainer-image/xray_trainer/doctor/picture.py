"""How often each finding occurs, as SVG: text and rectangles, so that no drawing library is needed."""

from __future__ import annotations

from html import escape
from typing import Any, List, Mapping

WIDTH = 760
LABEL_WIDTH, NUMBER_WIDTH = 170, 130
ROW, BAR = 26, 16
TOP, BOTTOM = 48, 12
BLUE, GREY, INK = "#1f5fa8", "#8a8f98", "#222222"


def make_picture(document: Mapping[str, Any]) -> str:
    """A bar for each finding, the most frequent first; the last of the document's, `No Finding`, stands apart in grey."""
    *findings, none = document["findings"]
    ordered = [*sorted(findings, key=lambda finding: -int(finding["images"])), none]
    most = max(1, *(finding["images"] for finding in ordered))
    title = f"{document['images']:,} images of {document['patients']:,} patients"
    height = TOP + ROW * len(ordered) + BOTTOM
    body = [_text(12, 28, "start", title, "bold")]
    for place, finding in enumerate(ordered):
        body += _bar(TOP + ROW * place, finding, most, GREY if finding is none else BLUE)
    return "\n".join([_OPENING.format(width=WIDTH, height=height, title=title), *body, "</svg>"]) + "\n"


_OPENING = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    'font-family="sans-serif" font-size="13" role="img" aria-label="{title}">\n'
    '<rect width="{width}" height="{height}" fill="white"/>'
)


def _bar(top: int, finding: Mapping[str, Any], most: int, colour: str) -> List[str]:
    room = WIDTH - LABEL_WIDTH - NUMBER_WIDTH
    width = room * finding["images"] / most
    line = top + BAR - 3
    return [
        _text(LABEL_WIDTH - 8, line, "end", finding["name"]),
        f'<rect x="{LABEL_WIDTH}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>',
        _text(round(LABEL_WIDTH + width) + 6, line, "start", f"{finding['images']:,} ({finding['prevalence']:.1%})"),
    ]


def _text(x: int, y: int, anchor: str, text: str, weight: str = "normal") -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{INK}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>'
