"""How each plot is drawn, on axes that it is given: plots.py tells which there are, figures.py makes files of them."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from xray_trainer.report.figures import BLUE, GREY, ORANGE

Row = Mapping[str, Optional[float]]
Finding = Mapping[str, Any]

NAME_CHARACTERS = 22
"""Longer names of findings are cut: they would leave no room for the plot."""
PANEL_AXES = ((0.14, 0.2, 0.33, 0.68), (0.645, 0.2, 0.33, 0.68))
"""Left, bottom, width and height of both plots of a finding, in shares of its panel."""
AXIS_ENDS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Of the scores: most findings are rare, and theirs are low."""
MOST_DOT_AREA = 40.0
"""In points, of the bin with the most images."""


def draw_loss(axes: Axes, rows: Sequence[Row], floor: float) -> None:
    """Training and validation loss over the steps, above the line of a guess that sees no pixel.

    Args:
        floor: binary cross-entropy of always predicting the prevalences, on the held-out images.
    """
    axes.plot(*_series(rows, "loss"), color=BLUE, linewidth=1.2, label="training")
    validation = _series(rows, "validation_loss")
    axes.plot(*validation, color=ORANGE, marker="o", markersize=3.5, linewidth=1.2, label="validation")
    axes.axhline(floor, color=GREY, linestyle="--", linewidth=1, label=f"no pixel seen ({floor:.4f})")
    _over_steps(axes, "binary cross-entropy (nats)")
    axes.legend(frameon=False)


def draw_learning_rate(axes: Axes, rows: Sequence[Row]) -> None:
    """Learning rate over the steps."""
    axes.plot(*_series(rows, "learning_rate"), color=BLUE, linewidth=1.4)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
    axes.set_ylim(bottom=0)
    _over_steps(axes, "learning rate")


def _series(rows: Sequence[Row], name: str) -> Tuple[List[float], List[float]]:
    """Steps and values of the rows that hold `name`."""
    points = [
        (step, value)
        for step, value in ((row["step"], row.get(name)) for row in rows)
        if step is not None and value is not None
    ]
    return [step for step, _ in points], [value for _, value in points]


def _over_steps(axes: Axes, unit: str) -> None:
    axes.set_xlabel("optimisation step")
    axes.set_ylabel(unit)
    axes.grid(alpha=0.25)


def draw_auroc(axes: Axes, evaluation: Mapping[str, Any]) -> None:
    """A forest plot: the macro figure and each finding with its interval, the best first, and what was reached without a
    pixel as marks. Findings that could not be measured keep their line, without a mark."""
    macro = {**evaluation["macro"], "name": "Mean of the findings", "floors": evaluation["floors"]}
    lines: List[Finding] = [macro, *by_auroc(evaluation["findings"])]
    for place, line in enumerate(lines):
        _draw_interval(axes, place, line, "D" if line is macro else "o")
    _mark_floors(axes, lines, "metadata_auroc", "|", "guessed from age, sex and view")
    _mark_floors(axes, lines, "memory_auroc", "x", "guessed from the patient's other films")
    axes.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    axes.axhline(0.5, color=GREY, linewidth=0.5)
    axes.set_yticks(range(len(lines)), [shown_name(line["name"]) for line in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlim(left=min(0.45, axes.get_xlim()[0]), right=1.005)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("AUROC with 95 % interval; 0.5 is chance")
    axes.grid(axis="x", alpha=0.25)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.4, -0.12), ncols=1, handletextpad=0.3)


def by_auroc(findings: Sequence[Finding]) -> List[Finding]:
    """The best first, those that could not be measured last."""
    return sorted(findings, key=lambda finding: -1.0 if finding["auroc"] is None else finding["auroc"], reverse=True)


def _draw_interval(axes: Axes, place: int, line: Finding, marker: str) -> None:
    if line["auroc"] is None:
        return
    if line["auroc_interval"] is not None:
        axes.plot(line["auroc_interval"], [place, place], color=BLUE, linewidth=1.6, solid_capstyle="butt")
    axes.plot([line["auroc"]], [place], color=BLUE, marker=marker, markersize=5, linestyle="none")


def _mark_floors(axes: Axes, lines: Sequence[Finding], floor: str, marker: str, label: str) -> None:
    known = [(line["floors"][floor], place) for place, line in enumerate(lines) if line["floors"][floor] is not None]
    if any(value != 0.5 for value, _ in known):  # where no patient is on both sides, memory is worth a coin
        values, places = zip(*known)
        axes.plot(
            values,
            places,
            color=ORANGE,
            marker=marker,
            markersize=6,
            markeredgewidth=1.4,
            linestyle="none",
            label=label,
        )


def shown_name(name: str) -> str:
    """A finding's name as it is drawn: SVG can't hold control characters."""
    printable = "".join(character if character.isprintable() else "\ufffd" for character in name)
    cut = len(printable) > NAME_CHARACTERS
    return (printable[: NAME_CHARACTERS - 1] + "…" if cut else printable).replace("_", " ")


def draw_finding(panel: FigureBase, finding: Finding) -> None:
    """ROC curve and reliability of one finding, side by side."""
    roc, reliability = (panel.add_axes(place) for place in PANEL_AXES)
    _draw_roc(roc, finding["roc"])
    _draw_reliability(reliability, finding["reliability"])


def _draw_roc(axes: Axes, points: Sequence[Tuple[float, float]]) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    axes.plot([x for x, _ in points], [y for _, y in points], color=BLUE, linewidth=1.3)
    _square(axes, 1.0, "false alarms", "found")


def _draw_reliability(axes: Axes, bins: Sequence[Mapping[str, Any]]) -> None:
    """A dot for each bin with images, as large as the share of all images that is in it."""
    filled = [one for one in bins if one["images"] and one["mean_score"] is not None]
    scores, shares = [one["mean_score"] for one in filled], [one["share_positive"] for one in filled]
    most, images = max([0.0, *scores, *shares]), max([1, *(one["images"] for one in filled)])
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    areas = [max(4.0, MOST_DOT_AREA * one["images"] / images) for one in filled]
    axes.scatter(scores, shares, s=areas, color=ORANGE, linewidths=0)
    _square(axes, next(end for end in AXIS_ENDS if end >= most), "mean score", "share with it")


def _square(axes: Axes, most: float, x: str, y: str) -> None:
    """Both axes from 0 to the same end."""
    room = 0.03 * most
    axes.set_xlim(-room, most + room)
    axes.set_ylim(-room, most + room)
    ticks = [0, most / 2, most]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel(x, labelpad=1)
    axes.set_ylabel(y, labelpad=1)


def draw_labels(axes: Axes, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """How often each finding occurs, in percent of the training and of the held-out images, the most frequent first."""
    shares = {part: _shares(parts[part]) for part in ("train", "test")}
    names = sorted(shares["train"], key=lambda name: shares["train"][name], reverse=True)
    for shift, (part, colour, label) in ((-0.2, ("train", BLUE, "training")), (0.2, ("test", ORANGE, "held-out"))):
        places = [place + shift for place in range(len(names))]
        axes.barh(places, [shares[part][name] for name in names], height=0.36, color=colour, label=label)
    axes.set_yticks(range(len(names)), [shown_name(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("% of the part's images")
    axes.grid(axis="x", alpha=0.25)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _shares(part: Mapping[str, Any]) -> Dict[str, float]:
    return {name: 100 * count / max(1, part["images"]) for name, count in part["positives"].items()}
