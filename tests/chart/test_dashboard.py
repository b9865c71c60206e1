"""The dashboard that the chart brings: its file is whole, and Prometheus understands every query of it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.chart.manifests import template
from dev.dashboard.panels import ROWS, filled
from tests.chart.test_alerts import rules
from tests.contract.test_metrics_docs import documented

ENABLED = "metrics: {dashboard: {enabled: true}}"


def dashboard() -> dict[str, Any]:
    """What Grafana's sidecar reads."""
    document = yaml.safe_load(template("--show-only", "templates/dashboard.yaml", values=ENABLED))
    assert document["metadata"]["labels"]["grafana_dashboard"] == "1"
    return dict(json.loads(document["data"]["xray-training.json"]))


def queries() -> list[str]:
    """As Grafana sends them when all namespaces and flavors are shown."""
    return [filled(target["expr"]) for panel in dashboard()["panels"] for target in panel.get("targets", [])]


def test_the_chart_brings_every_panel() -> None:
    shown = [panel["title"] for panel in dashboard()["panels"] if panel["type"] != "row"]
    assert shown == [panel.title for row in ROWS for panel in row.panels]
    assert len(queries()) == sum(len(panel.queries) for row in ROWS for panel in row.panels)


def test_no_two_panels_have_a_number_or_a_place_in_common() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells
        assert all(x < 24 for x, _ in cells)
        taken |= cells


def test_prometheus_parses_every_query(prometheus_programs: Path, tmp_path: Path) -> None:
    assert not [query for query in queries() if "$" in query]
    path = tmp_path / "queries.yaml"
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries())]
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    command = [prometheus_programs / "promtool", "check", "rules", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


DOCUMENTED = {metric.name: metric.kind for source in ("operator", "trainer") for metric in documented(source)}
RECORDED = {rule["record"] for rule in rules("record")}


def is_known(name: str) -> bool:
    """Whether the rules make it or docs/metrics.md has it, whose table is compared with what operator and trainer expose."""
    of_histogram = re.fullmatch(r"(\w+)_(bucket|sum|count)", name)
    if of_histogram and DOCUMENTED.get(of_histogram[1]) == "histogram":
        return True
    return name in RECORDED or DOCUMENTED.get(name) in ("gauge", "counter") or name in ("ALERTS",)


@pytest.mark.parametrize("query", [*queries(), *(rule["expr"] for kind in ("alert", "record") for rule in rules(kind))])
def test_every_metric_in_the_dashboard_and_the_rules_exists(query: str) -> None:
    without_texts = re.sub(r'"[^"]*"', "", query)
    names = re.findall(r"[a-zA-Z_][\w:]*:[\w:]+|\b(?:xray|process)_\w+|\bALERTS\b", without_texts)
    assert names
    assert [name for name in names if not is_known(name)] == []
