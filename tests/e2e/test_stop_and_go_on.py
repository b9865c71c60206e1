"""A run on the real node is suspended and resumed, created again and run again; nothing is computed or paid twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dev.demo.stack import Kube, Manifest
from tests.e2e.places import CLAIM, cpu_flavor, generate_set
from tests.e2e.waiting import until, wait_for_end

pytestmark = pytest.mark.e2e

FLAVOR, NAME = "e2e-stop", "cxr"
EPOCHS = 200
"""Enough for the run to go on when it is suspended."""
PRICE = {"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "USD", "perHour": "3.60", "source": "an example"}


@pytest.fixture(scope="module")
def place(kube: Kube, module_namespace: str, prepare_image: str) -> Iterator[str]:
    """A namespace with a generated set on its claim."""
    generate_set(kube, module_namespace, prepare_image, "nih")
    with cpu_flavor(kube, FLAVOR, PRICE):
        yield module_namespace


def manifest(namespace: str, **spec: Any) -> Manifest:
    usual = {
        "flavor": FLAVOR,
        "model": {"config": {"hiddenSize": 32, "layers": 1, "heads": 2, "patchSize": 16}},
        "dataset": {"source": {"pvc": {"claimName": CLAIM, "path": "nih"}}, "imageSize": 64},
        "training": {"epochs": EPOCHS, "globalBatchSize": 16},
        "checkpoint": {"everySteps": 10},
        "output": {"claimName": CLAIM},
    }
    metadata = {"name": NAME, "namespace": namespace}
    return {
        "apiVersion": "xray.training/v1alpha1",
        "kind": "XRayTrainingJob",
        "metadata": metadata,
        "spec": usual | spec,
    }


def status(kube: Kube, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = (kube.find("xraytrainingjob", NAME, namespace) or {}).get("status", {})
    return found


def reason(told: dict[str, Any], kind: str) -> str:
    return str(next(c["reason"] for c in told["conditions"] if c["type"] == kind))


def edit(kube: Kube, namespace: str, **spec: Any) -> None:
    body = json.dumps({"spec": spec})
    kube.kubectl("patch", "xtj", NAME, "-n", namespace, "--type=merge", "-p", body)


def test_nothing_is_computed_twice(kube: Kube, place: str) -> None:
    kube.apply(manifest(place))
    until("a checkpoint is told of", lambda: status(kube, place).get("checkpoint"), 300)
    edit(kube, place, suspend=True)
    suspended = until("it is suspended", lambda: is_in(status(kube, place), "Suspended"), 180)
    (stopped,) = suspended["attempts"]
    assert (stopped["reason"], stopped["exitCode"]) == ("Stopped", 143)
    assert reason(suspended, "Ready") == "Suspended"
    pods = kube.items("pods", place, f"xray.training/flavor={FLAVOR}")
    assert {pod["status"]["phase"] for pod in pods} <= {"Failed"}, "nothing is held"

    edit(kube, place, suspend=False)
    finished = wait_for_end(kube, NAME, place)["status"]
    assert finished["state"] == "Succeeded", finished["conditions"]
    assert finished["results"]["resumedFromStep"] == suspended["checkpoint"]["step"] > 0
    assert len(finished["attempts"]) == 2
    held = sum(
        row[f"{phase}Seconds"]
        for row in finished["attempts"]
        for phase in ("idle", "preparing", "training", "evaluating")
    )
    assert finished["cost"]["heldSeconds"] == held
    assert float(finished["cost"]["total"]) == pytest.approx(held * 0.001)

    kube.kubectl("delete", "xtj", NAME, "-n", place, "--timeout=120s")
    kube.apply(manifest(place))
    adopted = wait_for_end(kube, NAME, place)["status"]
    assert reason(adopted, "Succeeded") == "Adopted"
    assert adopted["results"]["modelDigest"] == finished["results"]["modelDigest"]
    assert adopted["results"]["aurocMacro"] == finished["results"]["aurocMacro"]
    assert adopted["data"] == finished["data"]

    edit(kube, place, rerun=1, training={"epochs": 1})
    until("another run has begun", lambda: status(kube, place).get("rerun") == 1)
    again = wait_for_end(kube, NAME, place)["status"]
    assert again["state"] == "Succeeded", again["conditions"]
    assert again["results"]["modelDigest"] != finished["results"]["modelDigest"]
    assert [(row["rerun"], row["state"]) for row in again["formerRuns"]] == [(0, "Succeeded")]
    jobs = kube.items("jobs", place, f"xray.training/flavor={FLAVOR}")
    assert [job["metadata"]["labels"]["xray.training/rerun"] for job in jobs] == ["1"], "the former Job is gone"


def is_in(told: dict[str, Any], state: str) -> dict[str, Any] | None:
    return told if told.get("state") == state else None
