"""The kubelet's own device manager: a run gets the flavor's devices whole; who finds too few of them waits, and says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dev.cluster.devices import NAMESPACE, RESOURCE, allocatable
from dev.demo.stack import Kube, Manifest, claim, restricted_pod
from tests.e2e.places import CLAIM, tiny_run
from tests.e2e.waiting import until, wait_for_end

pytestmark = pytest.mark.e2e

FLAVOR, DEVICES = "demo-vpod4", 4
LONG, SHORT = 400, 40
"""Epochs: until it is told to stop, and so many that it is seen to train."""
STEP_SECONDS = 180


@pytest.fixture(scope="module")
def place(kube: Kube, module_namespace: str) -> str:
    claim(kube, module_namespace, CLAIM)
    return module_namespace


def start(kube: Kube, namespace: str, name: str, epochs: int) -> None:
    source = {"synthetic": {"images": 60, "seed": 3, "size": 64}}
    manifest = tiny_run(namespace, name, FLAVOR, source, prepare="InitContainer")
    manifest["spec"] |= {"training": {"epochs": epochs, "globalBatchSize": 16}, "checkpoint": {"everySteps": 10}}
    kube.apply(manifest)


def suspend(kube: Kube, namespace: str, name: str, wanted: bool) -> None:
    body = json.dumps({"spec": {"suspend": wanted}})
    kube.kubectl("patch", "xtj", name, "-n", namespace, "--type=merge", "-p", body)


def status_of(kube: Kube, namespace: str, name: str) -> Manifest:
    return dict((kube.find("xraytrainingjob", name, namespace) or {}).get("status", {}))


def reached(kube: Kube, namespace: str, name: str, state: str) -> Manifest:
    def ask() -> Manifest:
        status = status_of(kube, namespace, name)
        return status if status.get("state") == state else {}

    return until(f"{name} is {state}", ask, STEP_SECONDS)


def lacks_devices(status: Manifest) -> bool:
    """Whether the run waits for a node with enough of them, and tells so."""
    told = [c for c in status.get("conditions", ()) if (c["type"], c["reason"]) == ("Running", "Unschedulable")]
    return status.get("state") == "Queued" and any(f"Insufficient {RESOURCE}" in c["message"] for c in told)


def offers(kube: Kube, count: int) -> bool:
    return set(allocatable(kube.environment["KUBECONFIG"]).values()) == {count}


@contextmanager
def ill_device(kube: Kube, number: int) -> Iterator[None]:
    """One of the stand-ins is out of order until the end of the block."""
    (pod,) = kube.items("pods", NAMESPACE, "app.kubernetes.io/name=standin-ipus")
    place = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}:8080/proxy/devices/{number}"
    kube.kubectl("replace", "--raw", place, "-f", "-", stdin="Unhealthy")
    try:
        until("the node offers one device less", lambda: offers(kube, DEVICES - 1))
        yield
    finally:
        kube.kubectl("replace", "--raw", place, "-f", "-", stdin="Healthy")
        until("the node offers all devices again", lambda: offers(kube, DEVICES))


def test_a_run_holds_all_devices_of_its_flavor_and_the_next_waits_until_they_are_free_and_sound(
    kube: Kube, place: str
) -> None:
    start(kube, place, "first", LONG)
    reached(kube, place, "first", "Training")
    pod = status_of(kube, place, "first")["run"]["podName"]
    given = kube.kubectl("exec", "-n", place, pod, "-c", "train", "--", "printenv", "XRAY_STANDIN_IPUS")
    assert given.strip() == "0,1,2,3"

    start(kube, place, "second", SHORT)
    until("the second run tells what it lacks", lambda: lacks_devices(status_of(kube, place, "second")), STEP_SECONDS)
    with ill_device(kube, DEVICES - 1):
        assert status_of(kube, place, "first")["state"] == "Training", "the kubelet takes nothing away"
        suspend(kube, place, "first", True)
        reached(kube, place, "first", "Suspended")
        assert lacks_devices(status_of(kube, place, "second")), "one of four is ill"
    reached(kube, place, "second", "Training")

    suspend(kube, place, "first", False)
    second = dict(wait_for_end(kube, "second", place)["status"])
    assert second["state"] == "Succeeded", second["conditions"]
    resumed = reached(kube, place, "first", "Training")
    (held,), (before, after) = second["attempts"], resumed["attempts"]
    assert before["finishedAt"] <= held["startedAt"]
    assert held["finishedAt"] <= after["startedAt"]
    kube.kubectl("delete", "xtj", "first", "-n", place, "--timeout=180s")


@contextmanager
def more_urgent_pod(kube: Kube, namespace: str, image: str) -> Iterator[None]:
    """A pod of a higher priority class takes all devices until the end of the block."""
    name = f"urgent-{namespace}"
    priority = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": 1000,
    }
    pod = restricted_pod(image, [], {}, ["sleep", "600"])
    pod["containers"][0]["resources"] = {"limits": {RESOURCE: str(DEVICES)}}
    pod |= {"priorityClassName": name, "terminationGracePeriodSeconds": 0}
    metadata = {"name": "urgent", "namespace": namespace}
    kube.apply(priority, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod})
    try:
        kube.kubectl("wait", "-n", namespace, "pod/urgent", "--for=condition=Ready", f"--timeout={STEP_SECONDS}s")
        yield
    finally:
        kube.kubectl("delete", "-n", namespace, "pod", "urgent", "--timeout=60s")
        kube.kubectl("delete", "priorityclass", name)


def test_a_run_that_the_scheduler_preempts_saves_a_checkpoint_waits_and_goes_on_from_it(
    kube: Kube, place: str, prepare_image: str
) -> None:
    start(kube, place, "preempted", LONG)
    until("a checkpoint is told of", lambda: status_of(kube, place, "preempted").get("checkpoint"), STEP_SECONDS)
    with more_urgent_pod(kube, place, prepare_image):
        until("it tells what it lacks", lambda: lacks_devices(status_of(kube, place, "preempted")), STEP_SECONDS)
        waiting = status_of(kube, place, "preempted")
        (stopped, *_) = waiting["attempts"]
        assert (stopped["reason"], stopped["exitCode"]) == ("Stopped", 143)
        assert "preempting to accommodate a higher priority pod" in stopped["message"]
        saved = waiting["checkpoint"]["step"]
    ended = dict(wait_for_end(kube, "preempted", place)["status"])
    assert ended["state"] == "Succeeded", ended["conditions"]
    assert ended["results"]["resumedFromStep"] == saved > 0
    assert len(ended["attempts"]) == 2
