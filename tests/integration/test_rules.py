"""Rules learnt the hard way, on a real control plane. docs/architecture.md says for each rule which test holds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.integration.cluster_access import apply, kubectl, until
from tests.integration.kubelet import Kubelet
from tests.integration.life import STOPPED, Trainer, claim, conditions, example, xray_job
from tests.integration.operator_process import total
from tests.integration.stage import JOBS, Stage, operating
from tests.integration.trial import IP, METRICS_PORT, trial
from xray_operator.core.accounting import SETTLING_SECONDS
from xray_operator.core.conditions import find_condition

pytestmark = pytest.mark.integration


def created(job: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(job["metadata"]["creationTimestamp"])


@pytest.fixture
async def stage(kubeconfig: Path, namespace: str, tmp_path: Path) -> AsyncIterator[Stage]:
    """With claims, and a trainer that tells its progress."""
    assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    trainer = Trainer(example("progress.json") | {"phases": []})
    async with operating(kubeconfig, namespace, tmp_path) as stage, trainer.serve(stage.life.ip):
        yield stage


async def test_jobs_are_created_once_and_later_only_suspended_and_resumed(stage: Stage) -> None:
    job = await stage.life.create(xray_job(stage.namespace))
    kubelet = await stage.life.starts_training(created(job))
    await stage.life.edit(suspend=True, training={"epochs": 9})
    await kubelet.obeys(60, 143, STOPPED)
    suspended = await stage.life.reached("Suspended")
    assert suspended["status"]["cost"]["heldSeconds"] == 55
    await stage.life.edit(suspend=False)
    kubelet = await stage.life.starts_training(created(job), 100)
    await kubelet.train_ends(150, 0, example("result.json") | {"phases": []})
    status = (await stage.life.reached("Succeeded"))["status"]
    assert status["cost"]["heldSeconds"] == 55 + 45
    assert [row.get("exitCode") for row in status["attempts"]] == [143, None]
    on_jobs = [write.replace(stage.namespace, "N") for write in stage.proxy.writes if "/batch/" in write]
    (name,) = await stage.jobs()
    assert on_jobs == ["POST " + JOBS.format("N"), *[f"PATCH {JOBS.format('N')}/{name}"] * 2]
    (raw,) = await stage.life.listed(JOBS)
    assert raw["spec"]["suspend"] is False
    events = await stage.life.events(job["metadata"]["uid"])
    assert {event["reason"] for event in events if event["type"] != "Normal"} == {"FindingsAbsent"}, "as in the example"


async def test_a_former_run_is_deleted_in_the_foreground_and_the_next_waits_for_its_last_pod(stage: Stage) -> None:
    job = await stage.life.create(xray_job(stage.namespace))
    kubelet = await stage.life.starts_training(created(job))
    (first,) = await stage.jobs()
    await stage.life.edit(rerun=1)

    async def ending() -> bool:
        (raw,) = await stage.life.listed(JOBS)
        return raw["metadata"].get("finalizers", []) == ["foregroundDeletion"]

    await until("the first Job goes, after its pods", ending)
    status = (await stage.life.job())["status"]
    assert (status["rerun"], status["state"]) == (0, "Training")
    assert await stage.jobs() == [first], "nothing claims what the last pod still holds"
    await kubelet.obeys(60, 143, STOPPED)

    async def replaced() -> bool:
        return [name for name in await stage.jobs() if name != first] != []

    await until("the second run has a Job", replaced)
    await stage.life.starts_training(created(job), 100)
    status = (await stage.life.job())["status"]
    assert status["rerun"] == 1
    assert status["formerRuns"][0]["state"] == "Stopped"
    assert status["formerRuns"][0]["cost"] == "0.14 USD", "55 s, billed as a minute, at 8.50 an hour"


async def test_a_run_stops_at_its_limit_and_a_raised_limit_acts_at_once(stage: Stage) -> None:
    job = await stage.life.create(xray_job(stage.namespace, limits={"runSeconds": 60}))
    begin = created(job)
    kubelet = Kubelet(stage.life.cluster, stage.namespace, begin, stage.life.ip)
    await kubelet.bind(-100)  # so that it has held its flavor for long
    await kubelet.prepare_starts(-99)
    await kubelet.prepare_ends(-80, 0, example("prepare-result.json"))
    await kubelet.train_starts(-79)
    await kubelet.obeys(1, 143, STOPPED)
    stopped = (await stage.life.reached("Stopped"))["status"]
    reasons = conditions(stopped)
    assert reasons["Stalled"] == ("True", "RunLimitReached")
    await stage.life.edit(limits={"runSeconds": 6000})
    kubelet = await stage.life.starts_training(created(job), 100)
    await kubelet.train_ends(150, 0, example("result.json") | {"phases": []})
    assert (await stage.life.reached("Succeeded"))["status"]["cost"]["heldSeconds"] == 101 + 45


async def test_deadlines_are_the_operators_own_and_no_job_has_one(stage: Stage) -> None:
    await stage.life.create(xray_job(stage.namespace, limits={"runSeconds": 60, "queueSeconds": 1}))
    stopped = (await stage.life.reached("Stopped"))["status"]
    reasons = conditions(stopped)
    assert reasons["Stalled"] == ("True", "QueueLimitReached")
    (raw,) = await stage.life.listed(JOBS)
    assert raw["spec"]["suspend"] is True
    assert "activeDeadlineSeconds" not in raw["spec"]
    assert "activeDeadlineSeconds" not in raw["spec"]["template"]["spec"]


async def test_a_pair_of_volumes_that_no_node_can_mount_is_refused_with_the_fix(stage: Stage, kubeconfig: Path) -> None:
    lost = stage.namespace
    objects = [persistent_volume(f"{lost}-{name}", node) for name, node in (("a", "node-a"), ("b", "node-b"))]
    claims = [claim(lost, name) for name in ("on-a", "on-b")]
    for bound, volume in zip(claims, objects, strict=True):
        bound["spec"] |= {"volumeName": volume["metadata"]["name"], "storageClassName": ""}
    assert apply(kubeconfig, *objects, *claims).returncode == 0
    try:
        dataset = {"source": {"pvc": {"claimName": "on-a"}}}
        await stage.life.create(xray_job(lost, dataset=dataset, output={"claimName": "on-b"}))
        status = await stage.life.says("Accepted", "VolumeImpossible")
        message = find_condition(status, "Accepted")["message"]
        assert "lies on node-a and that of spec.output.claimName on node-b: no node can mount both" in message
        assert "use claims with ReadWriteMany" in message
    finally:
        for volume in objects:
            kubectl(kubeconfig, "delete", "pv", volume["metadata"]["name"], "--wait=false")


async def test_deleting_and_creating_again_waits_for_the_pods_that_write_to_the_same_folder(
    stage: Stage, kubeconfig: Path
) -> None:
    job = await stage.life.create(xray_job(stage.namespace))
    kubelet = await stage.life.starts_training(created(job))
    assert kubectl(kubeconfig, "delete", "xtj", "cxr", "-n", stage.namespace, "--timeout=20s").returncode == 0
    again = await stage.life.create(xray_job(stage.namespace))
    await stage.life.says("Accepted", "FormerPodRuns")
    await kubelet.obeys(60, 143, STOPPED)
    fresh = await stage.life.starts_training(created(again), 100)
    await fresh.train_ends(150, 0, example("result.json") | {"phases": [], "adopted": True})
    status = (await stage.life.reached("Succeeded"))["status"]
    assert status["results"]["adopted"] is True


async def test_a_job_with_a_kueue_queue_leaves_suspend_to_kueue(stage: Stage) -> None:
    queued = xray_job(stage.namespace)
    queued["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "radiology"}
    await stage.life.create(queued)
    await stage.life.reached("Queued")
    (raw,) = await stage.life.listed(JOBS)
    assert raw["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "radiology"
    assert raw["spec"]["suspend"] is True
    await stage.life.edit(suspend=False, readyWhen="Accepted")

    async def seen() -> bool:
        job = await stage.life.job()
        return bool(job["status"]["observedGeneration"] == job["metadata"]["generation"])

    await until("the edit was seen", seen)
    assert not [write for write in stage.proxy.writes if write.startswith("PATCH")]


async def test_a_pod_that_does_not_answer_is_never_stopped(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def never_answer(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    silent = await asyncio.start_server(never_answer, IP, 9400)
    async with silent, trial(kubeconfig, namespace, tmp_path, progressTimeoutSeconds=0.2) as tried:
        job = await tried.life.create(xray_job(namespace, limits={"noProgressSeconds": 60, "onStall": "Restart"}))
        kubelet = await tried.life.starts_training(created(job), -1000)
        await asyncio.wait_for(asked.wait(), 60)

        async def told() -> bool:
            rows = (await tried.life.job())["status"]["conditions"]
            return ("Running", "True", "ProgressUnknown") in {(c["type"], c["status"], c["reason"]) for c in rows}

        await until("the silence is told", told)
        await tried.settle()
        assert {write.split()[0] for write in tried.proxy.writes} == {"POST", "PUT"}, "nothing was patched or deleted"
        assert all(write.endswith("/status") for write in tried.proxy.writes if write.startswith("PUT"))
        (pod,) = await tried.life.listed("/api/v1/namespaces/{}/pods")
        assert "deletionTimestamp" not in pod["metadata"]
        await kubelet.train_ends(10, 0, example("result.json") | {"phases": []})
        assert len((await tried.life.reached("Succeeded"))["status"]["attempts"]) == 1


async def test_money_is_counted_after_its_status_is_written_and_by_one_operator_only(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    def refuse_statuses(request: web.Request) -> int | None:
        return 503 if request.path.endswith("/status") else None

    async with (
        trial(kubeconfig, namespace, tmp_path, metricsPort=METRICS_PORT, statusRefreshSeconds=3600) as tried,
        Trainer(example("progress.json") | {"phases": []}).serve(IP),
        aiohttp.ClientSession() as session,
    ):
        job = await tried.life.create(xray_job(namespace))
        await tried.life.reached("Queued")
        tried.proxy.refuse = refuse_statuses
        kubelet = Kubelet(tried.life.cluster, namespace, created(job), IP)
        await kubelet.bind(-95)
        await kubelet.prepare_starts(-94)
        await kubelet.prepare_ends(-80, 0, example("prepare-result.json"))
        await kubelet.train_starts(-79)

        async def refused() -> bool:
            return (await total(session, METRICS_PORT, "xray_training_reconcile_failures") or 0) >= 3

        await until("the status could not be written", refused)
        assert await total(session, METRICS_PORT, "xray_training_cost") == 0, "what is not written down is not counted"
        tried.proxy.refuse = lambda _: None
        await tried.life.reached("Training")
        await tried.settle()
        first = cost_of(await tried.life.job()) - SETTLING
        assert first > 0
        assert await total(session, METRICS_PORT, "xray_training_cost") == pytest.approx(first, abs=2e-4)
        tried.operator.kill()
        await kubelet.train_ends(150, 0, example("result.json") | {"phases": []})
        end = cost_of(await tried.life.reached("Succeeded"))
        await tried.settle()
        assert end > first
        assert await total(session, METRICS_PORT, "xray_training_cost") == pytest.approx(end - first, abs=2e-4), (
            "the rest is the first one's"
        )
        assert tried.codes == [-9]


SETTLING = 8.50 * SETTLING_SECONDS / 3600
"""What is not counted of an attempt that goes on, for the bill may take it back."""


def cost_of(job: dict[str, Any]) -> float:
    return float(job["status"]["cost"]["total"])


def persistent_volume(name: str, node: str) -> dict[str, Any]:
    expressions = [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "1Gi"},
            "local": {"path": f"/volumes/{name}"},
            "storageClassName": "",
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": expressions}]}},
        },
    }
