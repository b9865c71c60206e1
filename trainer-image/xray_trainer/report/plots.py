"""Which plots a report has, with their sizes and what they are for somebody who doesn't see them."""

from __future__ import annotations

import math
from typing import Any, Callable, List, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray_trainer.report.drawing import (
    PANEL_AXES,
    Finding,
    Row,
    by_auroc,
    draw_auroc,
    draw_finding,
    draw_labels,
    draw_learning_rate,
    draw_loss,
    shown_name,
)
from xray_trainer.report.figures import Plot

CURVE = (4.6, 3.0)
PANEL = (3.8, 1.85)
"""Inches, both."""
LINE, BESIDE_LINES = 0.25, 1.15
"""Inches of a plot's height for each finding, and for what stands above and below."""
SHEET_COLUMNS = 2


def _make_curves(rows: Sequence[Row], floor: float) -> List[Plot]:
    """Loss and learning rate over the steps, see drawing.py."""
    return [
        Plot(
            "loss",
            CURVE,
            _on_axes(lambda axes: draw_loss(axes, rows, floor)),
            "Curves of the loss on training and validation images over the steps of training.",
        ),
        Plot(
            "learning_rate",
            CURVE,
            _on_axes(lambda axes: draw_learning_rate(axes, rows)),
            "Curve of the learning rate over the steps of training.",
        ),
    ]


def make_plots(contents: Mapping[str, Any]) -> List[Plot]:
    """Those of the whole run. Args: contents: the document of contents.make_contents."""
    evaluation, parts = contents["evaluation"], contents["data"]["parts"]
    height = BESIDE_LINES + LINE * len(evaluation["findings"])
    return [
        *_make_curves(contents["curves"]["rows"], contents["curves"]["loss_floor"]),
        Plot(
            "auroc",
            (CURVE[0], height + LINE),
            _on_axes(lambda axes: draw_auroc(axes, evaluation)),
            "AUROC of each finding with its interval, and what is reached without a pixel. The table has the numbers.",
        ),
        Plot(
            "labels",
            (CURVE[0], height),
            _on_axes(lambda axes: draw_labels(axes, parts)),
            "How often each finding occurs among training and held-out images. The table has the numbers.",
        ),
    ]


def make_panels(findings: Sequence[Finding]) -> List[Plot]:
    """ROC curve and reliability of each finding that could be measured, the best first."""
    return [
        Plot(
            f"finding-{place}",
            PANEL,
            _drawing(finding),
            f"ROC curve and reliability of {finding['name']}.",
            constrained=False,
        )
        for place, finding in enumerate(measured(findings))
    ]


def make_sheet(findings: Sequence[Finding]) -> Plot:
    """All panels on one sheet, for a file."""
    drawn = measured(findings)
    rows = max(1, math.ceil(len(drawn) / SHEET_COLUMNS))

    def draw(sheet: Figure) -> None:
        places = sheet.subfigures(rows, SHEET_COLUMNS, squeeze=False).flat
        for place, finding in zip(places, drawn):
            draw_finding(place, finding)
            place.text(PANEL_AXES[0][0], 0.92, shown_name(finding["name"]), fontweight="bold")

    size = (SHEET_COLUMNS * PANEL[0], rows * PANEL[1])
    return Plot("roc_reliability", size, draw, "ROC curves and reliability of all findings.", constrained=False)


def measured(findings: Sequence[Finding]) -> List[Finding]:
    """Those with an AUROC, the best first."""
    return [finding for finding in by_auroc(findings) if finding["auroc"] is not None]


def _drawing(finding: Finding) -> Callable[[Figure], None]:
    return lambda figure: draw_finding(figure, finding)


def _on_axes(draw: Callable[[Axes], None]) -> Callable[[Figure], None]:
    return lambda figure: draw(figure.add_subplot())
