"""A run on the real node ends within its budget, with the operator and without it, and goes on when the limit is raised."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest

from dev.demo.stack import SYSTEM_NAMESPACE, Kube
from tests.e2e.places import cpu_flavor, folder, generate_set, tiny_run
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e

FLAVOR, NAME = "e2e-budget", "cxr"
PRICE = {
    "effectiveFrom": "2026-01-01T00:00:00Z",
    "currency": "USD",
    "perHour": "3.60",
    "incrementSeconds": 10,
    "source": "an example",
}
"""A tenth of a cent a second."""
IMAGES = 200
TRAINING = {"epochs": 1000, "globalBatchSize": 1}
"""More than there is money for, however fast the machine."""


@pytest.fixture(scope="module")
def place(kube: Kube, module_namespace: str, prepare_image: str) -> Iterator[str]:
    """A namespace with a generated set on its claim."""
    generate_set(kube, module_namespace, prepare_image, "nih", images=IMAGES)
    with cpu_flavor(kube, FLAVOR, PRICE):
        yield module_namespace


@contextmanager
def without_operator(kube: Kube) -> Iterator[None]:
    """No operator runs."""
    scale = ("scale", "deployment", "-l", OPERATOR, "-n", SYSTEM_NAMESPACE)
    kube.kubectl(*scale, "--replicas=0")
    until("the operator is gone", lambda: not kube.items("pods", SYSTEM_NAMESPACE, OPERATOR), 60)
    try:
        yield
    finally:
        kube.kubectl(*scale, "--replicas=1")


OPERATOR = "app.kubernetes.io/name=xray-operator"


def status(kube: Kube, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = (kube.find("xraytrainingjob", NAME, namespace) or {}).get("status", {})
    return found


def in_state(kube: Kube, namespace: str, *states: str) -> dict[str, Any] | None:
    told = status(kube, namespace)
    return told if told.get("state") in states else None


def set_limit(kube: Kube, namespace: str, limit: Decimal) -> None:
    body = json.dumps({"spec": {"budget": {"limit": str(limit)}}})
    kube.kubectl("patch", "xtj", NAME, "-n", namespace, "--type=merge", "-p", body)


def stopped(kube: Kube, namespace: str, limit: Decimal) -> dict[str, Any]:
    """The status of the run as soon as its budget has stopped it; the bill is within the limit."""
    told = until("it is stopped", lambda: in_state(kube, namespace, "Stopped", "Failed", "Succeeded"), 300)
    assert told["state"] == "Stopped", told["conditions"]
    assert next(c["reason"] for c in told["conditions"] if c["type"] == "Stalled") == "BudgetReached"
    assert Decimal(told["cost"]["total"]) <= limit
    assert Decimal(told["budget"]["left"]) == limit - Decimal(told["cost"]["total"])
    return told


def test_a_run_ends_within_its_budget_with_and_without_an_operator(kube: Kube, place: str) -> None:
    run = tiny_run(place, NAME, FLAVOR, folder("nih"))
    limit = Decimal("0.30")
    run["spec"] |= {"budget": {"limit": str(limit), "currency": "USD"}, "training": TRAINING}
    kube.apply(run)
    first = stopped(kube, place, limit)
    assert [row["exitCode"] for row in first["attempts"]] == [143], "stopped by the operator, with a checkpoint"
    assert first["checkpoint"]["step"] > 0

    limit = Decimal(first["cost"]["total"]) + Decimal("0.30")
    set_limit(kube, place, limit)
    until("it trains again", lambda: in_state(kube, place, "Training"), 120)
    with without_operator(kube):
        until("no pod runs", lambda: pods(kube, place) == {"Failed"}, 300)
    second = stopped(kube, place, limit)
    assert [row["exitCode"] for row in second["attempts"]] == [143, 16], "the second time it has stopped by itself"
    assert second["checkpoint"]["step"] > first["checkpoint"]["step"]


def pods(kube: Kube, namespace: str) -> set[str]:
    """Phases of the run's pods."""
    return {pod["status"]["phase"] for pod in kube.items("pods", namespace, f"xray.training/flavor={FLAVOR}")}
