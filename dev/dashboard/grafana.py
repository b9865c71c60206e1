"""The dashboard as Grafana's file. Written into the chart by `make generate`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dev.dashboard.panels import ROWS, Panel, Row

HEIGHT = 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
KINDS = {"lines": "timeseries", "stack": "timeseries", "bars": "bargauge", "table": "table"}
OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "bargauge": {"orientation": "horizontal", "displayMode": "basic", "reduceOptions": {"calcs": ["lastNotNull"]}},
    "table": {"showHeader": True},
}


def render() -> str:
    document = {
        "uid": "xray-training",
        "title": "X-ray training",
        "description": "XRayTrainingJobs: what runs, what it costs, how far it is, and how the operator is.",
        "tags": ["xray-operator"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_source(), *(_variable(name) for name in ("namespace", "flavor"))]},
        "panels": list(_panels()),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}


def _variable(label: str) -> dict[str, Any]:
    """A choice among the values of a label; all of them at first."""
    query = f"label_values(xray_training_jobs, {label})"
    return {
        "name": label,
        "label": label.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": label},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panels() -> Iterator[dict[str, Any]]:
    """Rows below each other, the panels of a row beside each other in as many lines as they need."""
    y, number = 0, 1
    for row in ROWS:
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "panels": []} | _place(0, y, 24, 1)
        y, number = y + 1, number + 1
        for panel, x, line in _places(row):
            yield {"id": number} | _panel(panel) | _place(x, y + line * HEIGHT, panel.width, HEIGHT)
            number += 1
        y += (line + 1) * HEIGHT


def _places(row: Row) -> Iterator[tuple[Panel, int, int]]:
    """Each panel with the column and the line in which it begins."""
    x, line = 0, 0
    for panel in row.panels:
        if x + panel.width > 24:
            x, line = 0, line + 1
        yield panel, x, line
        x += panel.width


def _place(x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _panel(panel: Panel) -> dict[str, Any]:
    kind = KINDS[panel.kind]
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.unit == "percentunit":
        defaults |= {"min": 0, "max": 1}
    if kind == "timeseries":
        stacked = {"mode": "normal" if panel.kind == "stack" else "none"}
        defaults["custom"] = {"fillOpacity": 60 if panel.kind == "stack" else 0, "lineWidth": 2, "stacking": stacked}
    return {
        "type": kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "targets": list(_targets(panel)),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": OPTIONS[kind],
    }


def _targets(panel: Panel) -> Iterator[dict[str, Any]]:
    moment = panel.kind in ("bars", "table")
    for letter, query in zip("ABCDEF", panel.queries, strict=False):
        yield {
            "refId": letter,
            "datasource": SOURCE,
            "expr": query.promql,
            "legendFormat": query.legend,
            "instant": moment,
            "range": not moment,
            "format": "table" if panel.kind == "table" else "time_series",
        }
