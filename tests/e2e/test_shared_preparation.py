"""Data are prepared once for all runs that need them, while no accelerator is held; in place that costs idle money."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest

from dev.demo.stack import Kube, Manifest
from tests.e2e.places import CLAIM, folder, generate_set, tiny_run
from tests.e2e.waiting import until, wait_for_end

pytestmark = pytest.mark.e2e

FLAVOR = "demo-vpod4"
IMAGES = 400
RENDERED = 600
"""That takes long enough to be seen: about 60 ms of a core for each of 1024 x 1024."""


@pytest.fixture(scope="module")
def place(kube: Kube, module_namespace: str, prepare_image: str) -> str:
    """A namespace with a generated set in the folder `xrays` of its claim."""
    generate_set(kube, module_namespace, prepare_image, "xrays", images=IMAGES, size=512)
    return module_namespace


def start(kube: Kube, namespace: str, name: str, **dataset: Any) -> None:
    kube.apply(tiny_run(namespace, name, FLAVOR, folder("xrays"), **dataset))


def scheduled_at(pod: Manifest) -> str:
    return str(next(c["lastTransitionTime"] for c in pod["status"]["conditions"] if c["type"] == "PodScheduled"))


def test_two_runs_with_the_same_data_prepare_once_and_hold_nothing_meanwhile(kube: Kube, place: str) -> None:
    for name in ("one", "two"):
        start(kube, place, name)
    ends = {name: wait_for_end(kube, name, place) for name in ("one", "two")}
    statuses = {name: job["status"] for name, job in ends.items()}
    assert {status["state"] for status in statuses.values()} == {"Succeeded"}, statuses
    (data_job,) = [j for j in kube.items("jobs", place, "") if j["metadata"]["name"].startswith("xray-data-")]
    owners = {owner["uid"] for owner in data_job["metadata"]["ownerReferences"]}
    assert owners == {job["metadata"]["uid"] for job in ends.values()}
    assert data_job["status"]["succeeded"] == 1
    pods = kube.items("pods", place, "xray.training/flavor=" + FLAVOR)
    assert len(pods) == 2
    ready = data_job["status"]["completionTime"]
    assert all(scheduled_at(pod) >= ready for pod in pods), "no accelerator was held before the data were ready"
    costs = sorted(status["preparation"]["cost"] for status in statuses.values())
    assert costs[1] == "shared"
    assert costs[0].endswith(" USD")
    assert all(status["data"]["images"] == IMAGES for status in statuses.values())


def test_every_run_that_waits_for_a_preparation_tells_how_far_it_is(kube: Kube, place: str) -> None:
    for name in ("patient", "curious"):
        kube.apply(tiny_run(place, name, FLAVOR, {"synthetic": {"images": RENDERED, "seed": 5}}))

    def seen() -> dict[str, Manifest]:
        jobs = {name: kube.find("xraytrainingjob", name, place) or {} for name in ("patient", "curious")}
        told = {name: job.get("status", {}) for name, job in jobs.items()}
        return told if all("imagesPerSecond" in status.get("data", {}) for status in told.values()) else {}

    for name, status in until("both tell how far the preparation is", seen, 300).items():
        assert status["state"] == "Preparing"
        assert 0 < status["data"]["images"] < RENDERED == status["data"]["expectedImages"]
        assert 0 < status["data"]["bytesRead"] < status["data"]["totalBytes"]
        assert float(status["data"]["imagesPerSecond"]) > 0
        assert status["trainerStatus"].keys() >= {"progressPercentage", "estimatedRemainingSeconds"}
        column = kube.kubectl("get", "xtj", name, "-n", place, "--no-headers").split()[3]
        assert re.fullmatch(r"\d+%", column)
    kube.kubectl("delete", "xtj", "patient", "curious", "-n", place)


def test_preparing_in_place_costs_idle_accelerators(kube: Kube, place: str) -> None:
    start(kube, place, "in-place", prepare="InitContainer", imageSize=48, cache={"claimName": CLAIM})
    status = wait_for_end(kube, "in-place", place)["status"]
    assert status["state"] == "Succeeded", status
    assert "preparation" not in status
    (preparing,) = [row for row in status["cost"]["phases"] if row["name"] == "Preparing"]
    assert preparing["seconds"] > 0
    assert Decimal(preparing["amount"]) > 0, "the flavor's price for every second of preparation"
