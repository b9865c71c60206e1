"""A real Prometheus scrapes the operator and a run on the real node, and its figures are those of the status."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dev.dashboard.panels import OPERATOR, filled
from dev.demo.stack import SYSTEM_NAMESPACE, Kube, Manifest
from tests.contract.test_metrics_docs import documented
from tests.e2e.places import generate_set
from tests.e2e.prometheus import Prometheus, documented_blocks, running_prometheus
from tests.e2e.waiting import until, wait_for_end

pytestmark = pytest.mark.e2e

NAME = "watched"
OF_PREPARATION = {
    "xray_trainer_archives",
    "xray_trainer_archives_read",
    "xray_trainer_images_prepared",
    "xray_trainer_images_rejected",
    "xray_trainer_prepared_images_per_second",
    "xray_trainer_source_read_bytes_total",
}
SELDOM = OF_PREPARATION | {
    "xray_training_budget_left",
    "xray_training_budget_limit",
    "xray_training_budget_warning",
    "xray_training_namespace_budget_left",
    "xray_training_namespace_budget_limit",
    "xray_training_namespace_budget_warning",
    "xray_training_preparation_failures",
    "xray_training_preparation_images_per_second",
    "xray_training_queue_age_seconds",
    "xray_training_unpriced",
}
"""Of runs that prepare or wait for longer than a scrape takes, or have no price, or a budget."""


@dataclass(frozen=True)
class Run:
    """A run that has ended while Prometheus watched."""

    job: Manifest
    namespace: str
    flavor: str
    answers: dict[str, list[dict[str, Any]]]
    """To the documented questions, and to the dashboard's about the operator, while it trained."""

    @property
    def total(self) -> float:
        return float(self.job["status"]["cost"]["total"])


@pytest.fixture(scope="module")
def prometheus(kube: Kube, prometheus_programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with running_prometheus(kube, prometheus_programs, tmp_path_factory.mktemp("prometheus")) as running:
        yield running


@pytest.fixture(scope="module")
def flavor(kube: Kube, module_namespace: str) -> Iterator[str]:
    """Of this module alone, so that its figures are those of one run; priced, with a minimum that is billed ahead."""
    prices = [{"effectiveFrom": "2020-01-01T00:00:00Z", "currency": "EUR", "perHour": "36.00", "minimumSeconds": 15}]
    kube.apply(
        {
            "apiVersion": "xray.training/v1alpha1",
            "kind": "AcceleratorFlavor",
            "metadata": {"name": module_namespace},
            "spec": {"backend": "cpu", "host": {"cpu": "500m", "memory": "4Gi"}, "prices": prices},
        }
    )
    yield module_namespace
    kube.kubectl("delete", "acceleratorflavor", module_namespace)


@pytest.fixture(scope="module")
def run(kube: Kube, prometheus: Prometheus, module_namespace: str, flavor: str, prepare_image: str) -> Run:
    generate_set(kube, module_namespace, prepare_image, "nih", size=128)
    kube.apply(training_job(module_namespace, flavor))

    def arrived(metric: str) -> list[dict[str, Any]]:
        status = (kube.find("xraytrainingjob", NAME, module_namespace) or {}).get("status", {})
        assert status.get("state") not in ("Succeeded", "Failed"), f"ended unseen: {json.dumps(status, indent=1)}"
        return prometheus.query(f'{metric}{{namespace="{module_namespace}",name="{NAME}"}}')

    until("a checkpoint is known", lambda: arrived("xray_training_checkpoint_age_seconds"), 180)
    seen = until("the trainer's loss has arrived", lambda: arrived("xray_trainer_loss"), 180)[0]["value"][0]
    of_operator = [filled(query.promql) for panel in OPERATOR.panels for query in panel.queries]
    answers = {
        question: prometheus.query(question, at=seen) for question in (*documented_blocks("promql"), *of_operator)
    }
    return Run(wait_for_end(kube, NAME, module_namespace), module_namespace, flavor, answers)


def training_job(namespace: str, flavor: str) -> Manifest:
    """Small, and long enough to be seen."""
    return {
        "apiVersion": "xray.training/v1alpha1",
        "kind": "XRayTrainingJob",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {
            "flavor": flavor,
            "model": {"config": {"hiddenSize": 48, "layers": 2, "heads": 2, "patchSize": 16}},
            "dataset": {"source": {"pvc": {"claimName": "work", "path": "nih"}}, "imageSize": 64},
            "training": {"epochs": 300, "globalBatchSize": 16},
            "checkpoint": {"everySteps": 10},
            "output": {"claimName": "work"},
        },
    }


def operator_pod(kube: Kube) -> Manifest:
    (pod,) = kube.items("pods", SYSTEM_NAMESPACE, "app.kubernetes.io/name=xray-operator")
    return pod


def test_jobs_are_counted_by_state(prometheus: Prometheus, run: Run) -> None:
    assert run.job["status"]["state"] == "Succeeded", run.job["status"]["conditions"]
    question = f'xray_training_jobs{{namespace="{run.namespace}",state="Succeeded"}}'
    until("one job has succeeded", lambda: prometheus.value(question) == 1)


def test_the_cost_of_a_run_is_that_of_its_status(prometheus: Prometheus, run: Run) -> None:
    labels = f'namespace="{run.namespace}",name="{NAME}",flavor="{run.flavor}",currency="EUR"'
    until(f"cost {run.total}", lambda: prometheus.value(f"xray_training_run_cost{{{labels}}}") == run.total)


def test_what_was_counted_adds_up_to_the_cost(prometheus: Prometheus, run: Run, kube: Kube) -> None:
    labels = f'namespace="{run.namespace}",flavor="{run.flavor}",currency="EUR"'
    counted = pytest.approx(run.total, abs=1e-9)
    until(f"cost {run.total}", lambda: prometheus.value(f"sum(xray_training_cost_total{{{labels}}})") == counted)
    assert operator_pod(kube)["status"]["containerStatuses"][0]["restartCount"] == 0, "the counter began once"


def test_each_phase_is_observed_once(prometheus: Prometheus, run: Run) -> None:
    count = f'xray_training_phase_duration_seconds_count{{flavor="{run.flavor}"}}'
    once = {"Queued": 1.0, "Preparing": 1.0, "Compiling": 0.0, "Training": 1.0, "Evaluating": 1.0}

    def observed() -> dict[str, float]:
        return {series["metric"]["phase"]: float(series["value"][1]) for series in prometheus.query(count)}

    until("all phases, and no compilation off IPUs", lambda: observed() == once)


def test_each_documented_question_has_an_answer(run: Run) -> None:
    assert len(run.answers) > 5
    assert [question for question, answer in run.answers.items() if not answer] == []


def test_no_alert_of_the_operator_fires(prometheus: Prometheus, run: Run) -> None:
    assert run.job["status"]["state"] == "Succeeded"
    assert not prometheus.firing("XRayOperatorDown")
    assert not prometheus.firing("XRayOperatorBacklog")


def test_every_documented_metric_arrives(prometheus: Prometheus, run: Run) -> None:
    """But for those of preparation, which so little data keeps for shorter than Prometheus takes to find the pod, and of
    what this run has none of."""
    assert run.job["status"]["state"] == "Succeeded"
    arrived = {name.removesuffix("_bucket") for name in prometheus.names()}
    missing = {metric.name for source in ("operator", "trainer") for metric in documented(source)} - arrived
    assert missing <= SELDOM


def test_promtool_finds_nothing_to_say_about_the_operator_s_page(kube: Kube, prometheus_programs: Path) -> None:
    path = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods/{operator_pod(kube)['metadata']['name']}:8080/proxy/metrics"
    page = kube.kubectl("get", "--raw", path)
    command = [str(prometheus_programs / "promtool"), "check", "metrics"]
    done = subprocess.run(command, input=page, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_deleted_job_leaves_what_it_has_spent_and_nothing_else(prometheus: Prometheus, run: Run, kube: Kube) -> None:
    kube.kubectl("delete", "xraytrainingjob", NAME, "-n", run.namespace)
    own = f'{{__name__!~".*_total",namespace="{run.namespace}",__name__=~"xray_training_.*"}}'
    spent = f'sum(xray_training_cost_total{{namespace="{run.namespace}"}})'
    total = pytest.approx(run.total, abs=1e-9)
    until(
        f"its own series have ended, and {run.total} is still told",
        lambda: prometheus.value(spent) == total and not prometheus.query(own),
    )
