"""Runs in the queue of examples/kueue, which has room for one of two, with the real controller of Kueue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.cluster_access import kubectl, until
from tests.integration.kubelet import Kubelet
from tests.integration.kueue import make_queues, running_kueue
from tests.integration.life import JOBS, STOPPED, Life, Trainer, example, xray_job
from tests.integration.trial import Trial, trial
from xray_operator import names
from xray_operator.core.conditions import find_condition

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("kueue")]

IP = "127.81.0.1"
BATCH_JOBS = "/apis/batch/v1/namespaces/{}/jobs"
WORKLOADS = "/apis/kueue.x-k8s.io/v1beta2/namespaces/{}/workloads"
DONE = example("result.json") | {"phases": []}


@pytest.fixture(scope="module")
def kueue(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with running_kueue(kubeconfig, tmp_path_factory.mktemp("kueue")):
        yield


@pytest_asyncio.fixture
async def tried(kubeconfig: Path, namespace: str, tmp_path: Path) -> AsyncIterator[Trial]:
    """An operator, and the example's queue; afterwards the queue is as empty as before."""
    make_queues(kubeconfig, namespace)
    async with (
        trial(kubeconfig, namespace, tmp_path, IP, idleResyncs=1) as trialled,
        Trainer(example("progress.json") | {"phases": []}).serve(IP),
    ):
        try:
            yield trialled
        finally:
            await trialled.stop()
            await _empty(trialled.life, kubeconfig)


async def _empty(life: Life, kubeconfig: Path) -> None:
    namespaced = ("--namespace", life.namespace, "--wait=false")
    kubectl(kubeconfig, "delete", "xraytrainingjobs,jobs", "--all", *namespaced)
    kubectl(kubeconfig, "delete", "pods", "--all", "--force", "--grace-period=0", *namespaced)

    async def gone() -> bool:
        return not (await life.cluster.get(WORKLOADS.format(life.namespace)))["items"]

    await until("Kueue has let go of its Workloads", gone)


def queued(namespace: str, name: str, priority: str = "", **spec: Any) -> dict[str, Any]:
    job = xray_job(namespace, name, **spec)
    job["metadata"]["labels"] = {names.LABEL_QUEUE: "research"}
    if priority:
        job["metadata"]["labels"][names.LABEL_QUEUE_PRIORITY] = priority
    return job


async def trains(life: Life, job: dict[str, Any], begin: int = 0) -> Kubelet:
    """The job's pod gets a node so many seconds after the job's creation, and goes as far as training."""
    kubelet = Kubelet(life.cluster, life.namespace, datetime.fromisoformat(job["metadata"]["creationTimestamp"]), IP)
    await kubelet.bind(begin + 5)
    await kubelet.prepare_starts(begin + 6)
    await kubelet.prepare_ends(begin + 20, 0, example("prepare-result.json"))
    await kubelet.train_starts(begin + 21)
    await life.reached("Training", job["metadata"]["name"])
    return kubelet


async def batch_job(life: Life, name: str) -> dict[str, Any] | None:
    """The Job of a run, while there is one."""
    query = {"labelSelector": f"{names.LABEL_JOB_NAME}={name}"}
    listed = (await life.cluster.get(BATCH_JOBS.format(life.namespace), query))["items"]
    return listed[0] if listed else None


async def waits_for_kueue(life: Life, name: str, words: str) -> dict[str, Any]:
    """The run's status as soon as it says that Kueue has it wait, with these words."""
    status = await life.says(names.RUNNING, names.WAITS_FOR_KUEUE, words, name)
    assert status["state"] == names.QUEUED
    return status


async def edit(life: Life, name: str, **spec: Any) -> None:
    await life.cluster.merge(f"{JOBS.format(life.namespace)}/{name}", {"spec": spec})


def touched(tried: Trial) -> list[str]:
    """What the operator wrote to Jobs beyond making them."""
    return [write for write in tried.proxy.writes if "/jobs/" in write]


async def test_the_second_of_two_runs_waits_for_quota_and_goes_when_the_first_ends(tried: Trial) -> None:
    life = tried.life
    first = await life.create(queued(life.namespace, "first"))
    kubelet = await trains(life, first)
    second = await life.create(queued(life.namespace, "second"))
    waiting = await waits_for_kueue(life, "second", "insufficient unused quota for graphcore.ai/ipu in flavor vpod4")
    assert "queue research" in find_condition(waiting, names.READY)["message"]
    assert waiting["cost"]["heldSeconds"] == 0
    made = await batch_job(life, "first")
    assert made is not None
    assert made["spec"]["suspend"] is False
    node_labels = made["spec"]["template"]["spec"]["nodeSelector"]
    assert node_labels == {"xray.training/flavor": "vpod4-vm"}, "of the ResourceFlavor, by Kueue"
    await tried.settle()
    assert await batch_job(life, "first") == made, "further looks leave what Kueue has put there"
    await kubelet.train_ends(60, 0, DONE)
    await life.reached("Succeeded", "first")
    kubelet = await trains(life, second)
    await kubelet.train_ends(60, 0, DONE)
    status = (await life.reached("Succeeded", "second"))["status"]
    assert status["cost"]["heldSeconds"] == 55, "from its node on"
    assert touched(tried) == []
    assert not tried.oddities(), tried.log


async def test_a_suspended_run_gives_its_quota_back_and_queues_anew(tried: Trial) -> None:
    life = tried.life
    first = await life.create(queued(life.namespace, "first"))
    kubelet = await trains(life, first)
    second = await life.create(queued(life.namespace, "second"))
    await waits_for_kueue(life, "second", "insufficient unused quota")
    await edit(life, "first", suspend=True)
    await kubelet.obeys(60, 143, STOPPED)
    suspended = (await life.reached("Suspended", "first"))["status"]
    assert suspended["cost"]["heldSeconds"] == 55
    kubelet = await trains(life, second)
    await edit(life, "first", suspend=False)
    waiting = await waits_for_kueue(life, "first", "insufficient unused quota")
    assert waiting["cost"]["heldSeconds"] == 55, "neither standing still nor waiting costs"
    await kubelet.train_ends(60, 0, DONE)
    await life.reached("Succeeded", "second")
    kubelet = await trains(life, first, 1000)
    await kubelet.train_ends(1060, 0, DONE)
    status = (await life.reached("Succeeded", "first"))["status"]
    assert (len(status["attempts"]), status["cost"]["heldSeconds"]) == (2, 110)
    assert not tried.oddities(), tried.log


async def test_an_urgent_run_takes_the_place_of_another_which_goes_on_later(tried: Trial) -> None:
    life = tried.life
    first = await life.create(queued(life.namespace, "first"))
    kubelet = await trains(life, first)
    second = await life.create(queued(life.namespace, "second", priority="urgent"))
    await kubelet.is_told_to_end()
    ending = (await life.job("first"))["status"]
    assert ending["state"] == "Training", "the pod still holds the flavor"
    await kubelet.obeys(60, 143, STOPPED)
    waiting = await waits_for_kueue(life, "first", "Preempted to accommodate a workload")
    assert "the last attempt stopped" in find_condition(waiting, names.RUNNING)["message"]
    assert waiting["cost"]["heldSeconds"] == 55
    kubelet = await trains(life, second)
    await kubelet.train_ends(60, 0, DONE)
    await life.reached("Succeeded", "second")
    kubelet = await trains(life, first, 1000)
    await kubelet.train_ends(1060, 0, DONE)
    status = (await life.reached("Succeeded", "first"))["status"]
    assert (len(status["attempts"]), status["cost"]["heldSeconds"]) == (2, 110)
    assert touched(tried) == [], "the operator has left it all to Kueue"
    assert not tried.oddities(), tried.log


async def test_a_workload_that_somebody_stops_is_not_fought_over(tried: Trial) -> None:
    life = tried.life
    job = await life.create(queued(life.namespace, "first"))
    kubelet = await trains(life, job)
    (workload,) = (await life.cluster.get(WORKLOADS.format(life.namespace)))["items"]
    path = f"{WORKLOADS.format(life.namespace)}/{workload['metadata']['name']}"
    await life.cluster.merge(path, {"spec": {"active": False}})
    await kubelet.obeys(60, 143, STOPPED)
    await waits_for_kueue(life, "first", "is not active: somebody has stopped it")
    await tried.settle()
    assert touched(tried) == []
    await life.cluster.merge(path, {"spec": {"active": True}})
    kubelet = await trains(life, job, 1000)
    await kubelet.train_ends(1060, 0, DONE)
    await life.reached("Succeeded", "first")


async def test_a_run_at_its_limit_leaves_its_place_and_goes_on_beyond_a_raised_one(tried: Trial) -> None:
    life = tried.life
    first = await life.create(queued(life.namespace, "first", limits={"runSeconds": 900}))
    kubelet = await trains(life, first, -1000)
    second = await life.create(queued(life.namespace, "second"))
    await kubelet.obeys(-40, 143, STOPPED)
    stopped = (await life.reached("Stopped", "first"))["status"]
    assert find_condition(stopped, names.STALLED)["reason"] == names.RUN_LIMIT_REACHED
    assert stopped["cost"]["heldSeconds"] == 955
    kubelet = await trains(life, second)
    await edit(life, "first", limits={"runSeconds": 9000})
    await waits_for_kueue(life, "first", "insufficient unused quota")
    await kubelet.train_ends(60, 0, DONE)
    await life.reached("Succeeded", "second")
    kubelet = await trains(life, first, 1000)
    await kubelet.train_ends(1060, 0, DONE)
    assert (await life.reached("Succeeded", "first"))["status"]["cost"]["heldSeconds"] == 955 + 55


async def test_a_run_leaves_the_queue_at_its_limit_of_waiting(tried: Trial) -> None:
    life = tried.life
    kubelet = await trains(life, await life.create(queued(life.namespace, "first")))
    await life.create(queued(life.namespace, "second", limits={"queueSeconds": 2}))
    stopped = (await life.reached("Stopped", "second"))["status"]
    assert find_condition(stopped, names.STALLED)["reason"] == names.QUEUE_LIMIT_REACHED
    assert await batch_job(life, "second") is None
    await kubelet.train_ends(60, 0, DONE)
    await life.reached("Succeeded", "first")
    await tried.settle()
    assert await batch_job(life, "second") is None, "room alone doesn't bring it back"
    await edit(life, "second", limits={"queueSeconds": 3600})
    await trains(life, await life.job("second"), 1000)
