"""docs/metrics.md lists what operator and trainer expose, and Prometheus' own checker likes what they expose."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client import generate_latest

from tests.unit.operator.builders import make_job
from tests.unit.operator.test_job_metrics import PREPARING, QUEUED, TRAINING, UNPRICED
from tests.unit.operator.test_metrics import status_after
from xray_operator.budget_metrics import BudgetMetrics
from xray_operator.metrics import Metrics
from xray_trainer.progress import METRICS, Progress
from xray_trainer.progress_server import render_metrics

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
ROW = re.compile(
    r"^\| `(?P<name>\w+)` \| (?P<kind>\w+) \| (?P<labels>[\w, ]*?) ?\| .+ \| (?P<source>\w+) \|$", re.MULTILINE
)


class Exposed(NamedTuple):
    """A metric as a scrape shows it."""

    name: str
    kind: str
    labels: frozenset[str]


def operator_page() -> str:
    """/metrics of an operator that has seen everything once."""
    jobs = [make_job().status(status).raw() for status in (TRAINING, UNPRICED, PREPARING, QUEUED)]
    metrics = Metrics("1", lambda: jobs, lambda: 0)
    told = {"limit": "20", "currency": "USD", "left": "12.5"}
    place = {"metadata": {"namespace": "radiology", "name": "november"}}
    with_budget, month = place | {"status": {"budget": told}}, place | {"spec": {"limit": "90"}, "status": told}
    metrics.registry.register(BudgetMetrics(lambda: [with_budget], lambda: [month]))
    metrics.status_written(make_job().status(status_after(10)).build(), TRAINING)
    metrics.request_answered("get", "pods", "200")
    return generate_latest(metrics.registry).decode()


def trainer_page() -> str:
    """/metrics of a container that has told all that it can tell."""
    progress = Progress("Training")
    progress.advance(1, 4)
    progress.record(**dict.fromkeys(METRICS, 0.5))
    return render_metrics(progress.state.as_metrics()).decode()


PAGES = {"operator": operator_page, "trainer": trainer_page}


def exposed(page: str) -> set[Exposed]:
    """What a page in Prometheus' text format holds, histograms under their own name."""
    found = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE):
        samples = re.findall(rf"^{name}(?:_bucket|_sum|_count)?(\{{.*\}})? \S+$", page, re.MULTILINE)
        assert samples, f"{name} has no value: exercise it"
        found.add(Exposed(name, kind, frozenset(re.findall(r'(\w+)="', "".join(samples))) - {"le"}))
    return found


def documented(source: str) -> set[Exposed]:
    rows = [row for row in ROW.finditer(DOCUMENT.read_text()) if row["source"] == source]
    return {Exposed(row["name"], row["kind"], frozenset(re.findall(r"\w+", row["labels"]))) for row in rows}


@pytest.mark.parametrize("source", PAGES)
def test_the_table_has_every_metric_with_its_type_and_labels(source: str) -> None:
    assert documented(source) == exposed(PAGES[source]())


def test_every_row_of_the_table_is_read() -> None:
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    assert len(rows) == sum(len(documented(source)) for source in PAGES)


def test_the_trainer_labels_nothing() -> None:
    """Image names tell patients: there is no place for one."""
    assert {label for metric in exposed(trainer_page()) for label in metric.labels} == set()


@pytest.mark.parametrize("source", PAGES)
def test_promtool_finds_nothing_to_say(source: str, prometheus_programs: Path) -> None:
    command = [str(prometheus_programs / "promtool"), "check", "metrics"]
    done = subprocess.run(command, input=PAGES[source](), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
