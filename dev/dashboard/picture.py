"""The dashboard's panels as pictures for the documentation: `python -m dev.dashboard.picture FOLDER`.

A real Prometheus answers every panel's query over the scenario's eight hours; matplotlib draws the answers. The
operator's own row is left out, for its figures would be those of the machine that draws.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import yaml
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from dev.chart.manifests import template
from dev.cluster.tools import PROMETHEUS_PACKAGES, need_packages, search_path
from dev.dashboard.history import History, Series, recorded
from dev.dashboard.panels import MONEY, OVERVIEW, PHASES, RUNS, Panel, Row, filled
from dev.dashboard.scenario import HOURS, SCRAPED_EVERY, Cluster, begin

BEGIN = begin()
END = BEGIN + HOURS * 3600
PICTURES = {"dashboard-money.png": (OVERVIEW, MONEY), "dashboard-runs.png": (RUNS, PHASES)}
INK, FAINT, GRID, PAPER = "#1f2430", "#6b7280", "#e5e7eb", "#ffffff"
COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#9c755f", "#76b7b2", "#edc948")
STATES = {
    "Queued": "#c9ced6",
    "Preparing": "#edc948",
    "Compiling": "#b07aa1",
    "Training": "#4e79a7",
    "Evaluating": "#76b7b2",
    "Succeeded": "#59a14f",
    "Failed": "#e15759",
}
SEVERITIES = {"critical": "#e15759", "warning": "#f28e2b"}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "figure.facecolor": PAPER,
}


class Palette:
    """One colour for each name, the same in every panel."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, name: str) -> str:
        return self._known.setdefault(name, STATES.get(name) or COLOURS[len(self.drawn()) % len(COLOURS)])

    def drawn(self) -> dict[str, str]:
        """Colours of all but states."""
        return {name: colour for name, colour in self._known.items() if name not in STATES}

    def runs(self) -> dict[str, str]:
        """Colours of what is called namespace/name, which one legend explains for all panels."""
        return {name: colour for name, colour in sorted(self._known.items()) if "/" in name}


def main(folder: Path) -> int:
    need_packages(PROMETHEUS_PACKAGES)
    programs = Path(shutil.which("promtool", path=search_path()) or "").parent
    plt.rcParams.update(STYLE)
    with (
        tempfile.TemporaryDirectory() as temporary,
        recorded(Cluster().samples(), Path(temporary), programs) as history,
    ):
        for name, rows in PICTURES.items():
            draw(history, rows, folder / name)
    return 0


def draw(history: History, rows: tuple[Row, ...], path: Path) -> None:
    """The rows' panels below each other, as Grafana places them."""
    lines = [line for row in rows for line in lines_of(row)]
    figure = plt.figure(figsize=(17, 3.1 * len(lines)), layout="constrained")
    palette = Palette()
    for part, line in zip(figure.subfigures(len(lines), 1, squeeze=False)[:, 0], lines, strict=True):
        axes = part.subplots(1, len(line), width_ratios=[panel.width for panel in line], squeeze=False)[0]
        for each, panel in zip(axes, line, strict=True):
            draw_panel(each, panel, history, palette)
    if runs := palette.runs():
        keys = [Line2D([], [], color=colour, linewidth=3) for colour in runs.values()]
        figure.legend(keys, runs, loc="outside upper right", ncols=len(runs), frameon=False, fontsize=9.5)
    figure.savefig(path, dpi=80, pil_kwargs={"optimize": True})
    plt.close(figure)


def lines_of(row: Row) -> list[list[Panel]]:
    """The panels that stand beside each other, 24 wide."""
    lines: list[list[Panel]] = [[]]
    for panel in row.panels:
        if sum(each.width for each in lines[-1]) + panel.width > 24:
            lines.append([])
        lines[-1].append(panel)
    return lines


def draw_panel(axes: Axes, panel: Panel, history: History, palette: Palette) -> None:
    axes.set_title(panel.title, loc="left", fontsize=10.5, fontweight="bold", pad=8)
    if panel.kind == "table":
        draw_alerts(axes, history)
    elif panel.kind == "bars":
        draw_bars(axes, panel, history)
    else:
        draw_over_time(axes, panel, history, palette)


def draw_over_time(axes: Axes, panel: Panel, history: History, palette: Palette) -> None:
    answers = {
        legend(query.legend, series.labels): series
        for query in panel.queries
        for series in history.between(filled(query.promql, f"{HOURS}h"), BEGIN, END, SCRAPED_EVERY)
    }
    if panel.kind == "stack":
        stack(axes, answers, palette)
    else:
        for name, series in answers.items():
            hours, values = curve(series)
            axes.plot(hours, values, color=palette.of(name.split(" ")[0]), linewidth=1.6, label=name)
    as_time(axes)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: with_unit(value, panel.unit)))
    if panel.title.endswith("per second"):
        axes.set_ylim(bottom=0)
    if panel.unit == "percentunit":
        axes.set_ylim(0, 1.03)
    elif panel.unit == "s":
        axes.yaxis.set_major_locator(MultipleLocator(round_step(axes.get_ylim()[1])))
    elif all(value.is_integer() for series in answers.values() for _, value in series.points):
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if any("/" not in name for name in answers):
        explain(axes, panel)


def explain(axes: Axes, panel: Panel) -> None:
    """Names of what is no run, where no line crosses them."""
    style: dict[str, Any] = {"fontsize": 7.5, "edgecolor": "none", "labelcolor": INK}
    if panel.kind == "stack":
        axes.legend(loc="best", framealpha=0.8, **style)
    else:
        axes.set_ylim(top=1.2 * axes.get_ylim()[1])
        axes.legend(loc="upper left", ncols=3, frameon=False, **style)


def curve(series: Series) -> tuple[list[float], list[float]]:
    """Hours and values, cut where the series was not there."""
    hours: list[float] = []
    values: list[float] = []
    for when, value in series.points:
        hour = (when - BEGIN) / 3600
        if hours and hour - hours[-1] > 1.5 * SCRAPED_EVERY / 3600:
            hours.append(hour)
            values.append(float("nan"))
        hours.append(hour)
        values.append(value)
    return hours, values


def stack(axes: Axes, answers: dict[str, Series], palette: Palette) -> None:
    times = [BEGIN + second for second in range(0, HOURS * 3600 + 1, SCRAPED_EVERY)]
    ordered = sorted(answers, key=[*STATES, *answers].index)
    heights = [[dict(answers[name].points).get(when, 0) for when in times] for name in ordered]
    hours = [(when - BEGIN) / 3600 for when in times]
    axes.stackplot(
        hours, *heights, labels=ordered, colors=[palette.of(name) for name in ordered], step="post", linewidth=0
    )


def draw_bars(axes: Axes, panel: Panel, history: History) -> None:
    (query,) = panel.queries
    answers = history.at(filled(query.promql, f"{HOURS}h"), END)
    named = [(legend(query.legend, each.labels), each.points[0][1]) for each in answers]
    shown = sorted(named, key=lambda pair: (pair[1], pair[0]))
    drawn = axes.barh([name for name, _ in shown], [value for _, value in shown], color=COLOURS[0], height=0.6)
    written = [with_unit(value, panel.unit, exact=True) for _, value in shown]
    axes.bar_label(drawn, written, padding=4, fontsize=8.5, color=INK)
    axes.margins(x=0.22)
    axes.set_ylim(min(-0.6, len(shown) - 4.4), len(shown) - 0.4)  # few bars are no thicker than many
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: with_unit(value, panel.unit)))
    if panel.unit == "s":
        axes.xaxis.set_major_locator(MultipleLocator(round_step(axes.get_xlim()[1])))


def draw_alerts(axes: Axes, history: History) -> None:
    """When each alert would have fired: where its expression had an answer for as long as its `for` asks."""
    found: dict[str, list[tuple[float, float]]] = {}
    colours: dict[str, str] = {}
    for rule in alerts():
        for who, bars in firing(rule, history):
            name = f"{rule['alert']}  {who}"
            found[name] = found.get(name, []) + bars
            colours[name] = SEVERITIES[rule["labels"]["severity"]]
    for place, (name, bars) in enumerate(found.items()):
        axes.broken_barh(bars, (place - 0.3, 0.6), color=colours[name])
    axes.set_yticks(range(len(found)), list(found), color=INK, fontsize=8.5)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    as_time(axes)


def alerts() -> list[dict[str, Any]]:
    """The chart's rules with their usual thresholds; those of the operator itself are left out as its row is."""
    shown = template(
        "--show-only", "templates/prometheusrule.yaml", values="metrics: {prometheusRule: {enabled: true}}"
    )
    groups = {group["name"]: group["rules"] for group in yaml.safe_load(shown)["spec"]["groups"]}
    recorded_as = {rule["record"]: f"({rule['expr']})" for rule in groups["xray-training-records"]}
    return [
        rule | {"expr": re.sub(r"\w+:\w+:\w+", lambda name: recorded_as[name[0]], rule["expr"])}
        for rule in groups["xray-training-runs"]
    ]


def firing(rule: dict[str, Any], history: History) -> list[tuple[str, list[tuple[float, float]]]]:
    """Who, and (begin, length) in hours."""
    needs = seconds(rule.get("for", "0s"))
    found = []
    for series in history.between(rule["expr"], BEGIN, END, SCRAPED_EVERY):
        bars = [(begin + needs, end - begin - needs) for begin, end in stretches(series) if end - begin >= needs]
        if bars:
            words = [series.labels.get(label, "") for label in ("namespace", "name", "flavor")]
            found.append(
                ("/".join(filter(None, words)), [((begin - BEGIN) / 3600, long / 3600) for begin, long in bars])
            )
    return found


def stretches(series: Series) -> list[tuple[float, float]]:
    """Begin and end of each time without a gap."""
    found: list[tuple[float, float]] = []
    for when, _ in series.points:
        if found and when - found[-1][1] <= SCRAPED_EVERY:
            found[-1] = (found[-1][0], when)
        else:
            found.append((when, when))
    return [(start, end + SCRAPED_EVERY) for start, end in found]


def seconds(duration: str) -> float:
    """Of 10m or 3600s."""
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def legend(pattern: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), pattern)


def as_time(axes: Axes) -> None:
    axes.set_xlim(0, HOURS)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda hour, _: f"{hour:.0f} h"))


def round_step(top: float) -> float:
    """Seconds between two ticks, so that there are at most eight up to the top."""
    return next(step for step in (60, 300, 600, 1200, 1800, 3600, 7200, 36000) if top / step <= 8)


def with_unit(value: float, unit: str, exact: bool = False) -> str:
    if unit == "percentunit":
        return f"{value:.0%}"
    if unit == "s":
        return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.3g} h"
    return f"{value:.2f}" if exact else f"{value:g}"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
