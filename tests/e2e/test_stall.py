"""A training on the real node whose loop hangs, while its progress is still served, is told of, ended and gone on with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dev.demo.stack import SYSTEM_NAMESPACE, Kube, Manifest
from tests.e2e.places import cpu_flavor, folder, generate_set, tiny_run
from tests.e2e.processes import standing_still
from tests.e2e.waiting import until, wait_for_end

pytestmark = pytest.mark.e2e

FLAVOR, NAME = "e2e-stall", "hangs"
PRICE = {"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "USD", "perHour": "36.00", "source": "an example"}
LIMIT = 30
"""Seconds; the shortest that there is."""


@pytest.fixture(scope="module")
def place(kube: Kube, module_namespace: str, prepare_image: str) -> Iterator[str]:
    """A namespace with a generated set on its claim."""
    generate_set(kube, module_namespace, prepare_image, "xrays", size=128)
    with cpu_flavor(kube, FLAVOR, PRICE):
        yield module_namespace


def status(kube: Kube, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = (kube.find("xraytrainingjob", NAME, namespace) or {}).get("status", {})
    return found


def reason(told: dict[str, Any], kind: str) -> str:
    return str(next((c["reason"] for c in told.get("conditions", ()) if c["type"] == kind), ""))


def stalled(kube: Kube, namespace: str) -> str:
    """The sample of xray_training_stalled of the run, as the operator's page has it."""
    (pod,) = kube.items("pods", SYSTEM_NAMESPACE, "app.kubernetes.io/name=xray-operator")
    path = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods/{pod['metadata']['name']}:8080/proxy/metrics"
    mine = f'xray_training_stalled{{name="{NAME}",namespace="{namespace}"}} '
    lines = [line for line in kube.kubectl("get", "--raw", path).splitlines() if line.startswith(mine)]
    return lines[0].removeprefix(mine) if lines else ""


def test_a_training_that_hangs_is_ended_and_another_pod_goes_on(kube: Kube, place: str) -> None:
    job = tiny_run(place, NAME, FLAVOR, folder("xrays"))
    job["spec"] |= {
        "training": {"epochs": 300, "globalBatchSize": 16},
        "checkpoint": {"everySteps": 10},
        "limits": {"noProgressSeconds": LIMIT, "onStall": "Restart"},
    }
    kube.apply(job)
    until("a checkpoint is told of", lambda: status(kube, place).get("checkpoint"), 300)
    pod = kube.find("pod", status(kube, place)["run"]["podName"], place) or {}
    assert stalled(kube, place) == "0.0"
    with standing_still(pod):
        until("the run is stalled", lambda: reason(status(kube, place), "Running") == "NoProgress", 120)
        until("Prometheus is told", lambda: stalled(kube, place) == "1.0")
        until("the pod is told to end", lambda: is_going(kube.find("pod", pod["metadata"]["name"], place)), 60)
    ended = wait_for_end(kube, NAME, place)["status"]
    assert ended["state"] == "Succeeded", ended["conditions"]
    first, second = ended["attempts"]
    assert (first["reason"], first["exitCode"]) == ("NoProgress", 143), "it had its grace to save a checkpoint"
    assert first["lostSeconds"] >= LIMIT
    assert float(ended["cost"]["lostAmount"]) == pytest.approx(first["lostSeconds"] * 0.01)
    assert "reason" not in second
    assert ended["results"]["resumedFromStep"] > 0
    jobs = kube.items("jobs", place, f"xray.training/flavor={FLAVOR}")
    assert [raw["status"].get("failed", 0) for raw in jobs] == [0], "an eviction is no failure that the Job counts"
    told = [event["message"] for event in kube.items("events", place) if event["reason"] == "NoProgress"]
    assert len(told) == 1
    assert f"limits.noProgressSeconds {LIMIT}" in told[0]


def is_going(pod: Manifest | None) -> bool:
    return pod is None or "deletionTimestamp" in pod["metadata"]
