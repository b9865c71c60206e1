"""Curves of a run as PNG, drawn from the rows of metrics.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Tuple

import matplotlib

matplotlib.use("Agg")  # before pyplot: there is no screen

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

Row = Mapping[str, Optional[float]]

BLUE, ORANGE, GREY = "#1f5fa8", "#d9772b", "#8a8f98"
DOTS_PER_INCH = 150
SIZE_INCHES = (7.2, 4.2)


def write_loss_curve(path: Path, rows: Sequence[Row], floor: float) -> None:
    """Training and validation loss over the steps, above the line of a model that sees no pixel.

    Args:
        floor: binary cross-entropy of always predicting the prevalences, see metrics.loss_floor.
    """
    figure, axes = plt.subplots(figsize=SIZE_INCHES, layout="constrained")
    axes.plot(*_series(rows, "loss"), color=BLUE, linewidth=1.4, label="training")
    axes.plot(
        *_series(rows, "validation_loss"), color=ORANGE, marker="o", markersize=4, linewidth=1.4, label="validation"
    )
    axes.axhline(floor, color=GREY, linestyle="--", linewidth=1, label=f"no pixel seen, held-out ({floor:.4f})")
    _finish(axes, "Loss", "binary cross-entropy (nats)")
    axes.legend(frameon=False)
    _save(path)
    plt.close(figure)


def write_learning_rate_curve(path: Path, rows: Sequence[Row]) -> None:
    """Learning rate over the steps."""
    figure, axes = plt.subplots(figsize=SIZE_INCHES, layout="constrained")
    axes.plot(*_series(rows, "learning_rate"), color=BLUE, linewidth=1.6)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
    axes.set_ylim(bottom=0)
    _finish(axes, "Learning rate", "learning rate")
    _save(path)
    plt.close(figure)


def _series(rows: Sequence[Row], name: str) -> Tuple[List[float], List[float]]:
    """Steps and values of the rows that hold `name`."""
    points = [
        (step, value)
        for step, value in ((row["step"], row.get(name)) for row in rows)
        if step is not None and value is not None
    ]
    return [step for step, _ in points], [value for _, value in points]


def _finish(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel("optimisation step")
    axes.set_ylabel(unit)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _save(path: Path) -> None:
    """Write under a temporary name, then rename."""
    temporary = path.with_name(f".{path.stem}.tmp.png")
    plt.savefig(temporary, dpi=DOTS_PER_INCH)
    temporary.replace(path)
