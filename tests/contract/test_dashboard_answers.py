"""A real Prometheus that has seen the operator's metrics answers the query of every panel about runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.dashboard.history import History, Series, recorded
from dev.dashboard.panels import OPERATOR, ROWS, Query, filled
from dev.dashboard.picture import BEGIN, END, alerts, firing
from dev.dashboard.scenario import HOURS, SCRAPED_EVERY, Cluster

pytestmark = pytest.mark.slow

QUERIES = [
    query
    for row in ROWS
    for panel in row.panels
    for query in panel.queries
    if row is not OPERATOR and panel.kind != "table"
]
"""Those of the operator itself are asked on a real one, in tests/e2e, and that of the alerts that fire in tests/integration."""


@pytest.fixture(scope="module")
def history(prometheus_programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with recorded(Cluster().samples(), tmp_path_factory.mktemp("prometheus"), prometheus_programs) as running:
        yield running


def ask(history: History, query: Query) -> list[Series]:
    return history.between(filled(query.promql, f"{HOURS}h"), BEGIN, END, SCRAPED_EVERY)


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.promql)
def test_a_query_has_answers_with_the_labels_of_its_legend(query: Query, history: History) -> None:
    answers = ask(history, query)
    assert answers
    wanted = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
    assert [series.labels for series in answers if not wanted <= set(series.labels)] == []


def test_what_goes_wrong_in_the_scenario_is_alerted_of_and_nothing_else(history: History) -> None:
    found = {(rule["alert"], who) for rule in alerts() for who, _ in firing(rule, history)}
    assert found == {
        ("XRayRunStalled", "radiology/vit-base"),
        ("XRayBudgetNearlySpent", "radiology/vit-nih"),
        ("XRayCheckpointTooOld", "cardiology/chexpert"),
        ("XRayPreparationFailing", "radiology/follow-up"),
        ("XRayPriceMissing", "lab-gpu"),
    }
