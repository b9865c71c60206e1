"""Whole lives of jobs on a real control plane; the test plays kubelet and trainer."""

from __future__ import annotations

import asyncio
from datetime import datetime
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from tests.integration.cluster_access import apply, connect, kubectl, until
from tests.integration.kubelet import Kubelet
from tests.integration.life import claim, conditions, example, xray_job
from tests.integration.operator_process import OperatorProcess, answers
from tests.integration.proxy import start_proxy
from tests.integration.stage import operating

pytestmark = pytest.mark.integration
HEALTH_PORT = 18099
METRICS_PORT = HEALTH_PORT + 1


async def test_a_job_waits_for_its_claims_and_flavor_and_then_runs_to_its_end(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    async with operating(kubeconfig, namespace, tmp_path) as stage:
        life = stage.life
        job = await life.create(xray_job(namespace))
        await life.says("Accepted", "ClaimNotFound")
        assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
        end = await life.live_through(job)
        assert end["status"]["observedGeneration"] == end["metadata"]["generation"]
        columns = kubectl(kubeconfig, "get", "xtj", "-n", namespace).stdout.splitlines()[1].split()
        assert columns[:6] == ["cxr", "Succeeded", "integration-vpod4", "100%", "0.5124", "0.24"]
        waited = kubectl(kubeconfig, "wait", "xtj/cxr", "-n", namespace, "--for=condition=Succeeded", "--timeout=5s")
        assert waited.returncode == 0, waited.stderr


async def test_corrupt_data_fails_the_job_at_once(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    async with operating(kubeconfig, namespace, tmp_path) as stage:
        life = stage.life
        job = await life.create(xray_job(namespace))
        begin = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
        kubelet = Kubelet(life.cluster, namespace, begin, life.ip)
        await kubelet.bind(5)
        await kubelet.prepare_starts(6)
        await kubelet.prepare_ends(20, 11, example("error-result.json"))
        failed = await life.reached("Failed")
        assert conditions(failed["status"])["Ready"] == ("False", "DataCorrupt")
        assert conditions(failed["status"])["Stalled"] == ("True", "DataCorrupt")
        assert len(failed["status"]["attempts"]) == 1
        reasons = sorted(event["reason"] for event in await life.events(job["metadata"]["uid"]))
        assert reasons == ["Accepted", "Created", "Failed"]


async def test_a_failure_that_may_pass_is_tried_again_and_both_attempts_count(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    async with operating(kubeconfig, namespace, tmp_path) as stage:
        life = stage.life
        job = await life.create(xray_job(namespace))
        begin = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
        kubelet = Kubelet(life.cluster, namespace, begin, life.ip)
        await kubelet.bind(5)
        await kubelet.prepare_starts(6)
        await kubelet.prepare_ends(20, 20, {"exit_code": 20, "reason": "TransportFailed", "message": "no route"})
        await life.reached("Queued")
        await kubelet.bind(40)
        await kubelet.prepare_starts(41)
        await kubelet.prepare_ends(50, 0, example("prepare-result.json"))
        await kubelet.train_starts(51)
        await life.reached("Training")
        await kubelet.train_ends(80, 0, example("result.json") | {"phases": []})
        end = (await life.reached("Succeeded"))["status"]
        assert [row.get("reason") for row in end["attempts"]] == ["TransportFailed", None]
        assert end["cost"]["heldSeconds"] == 15 + 40


async def test_a_refused_job_says_so_and_starts_when_the_quota_is_gone(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-jobs", "namespace": namespace},
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }
    assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out"), quota).returncode == 0

    async def counted() -> bool:
        path = "{.status.hard}"
        return bool(kubectl(kubeconfig, "get", "quota/no-jobs", "-n", namespace, "-o", f"jsonpath={path}").stdout)

    await until("the quota is in force", counted)
    async with operating(kubeconfig, namespace, tmp_path) as stage:
        life = stage.life
        job = await life.create(xray_job(namespace))
        held = conditions(await life.says("Accepted", "CreationRefused", "exceeded quota: no-jobs"))
        statuses = [held[kind][0] for kind in ("Accepted", "Reconciling", "Stalled", "Ready")]
        assert statuses == ["False", "True", "False", "Unknown"]
        assert [event["reason"] for event in await life.events(job["metadata"]["uid"])] == ["Rejected"]
        assert kubectl(kubeconfig, "delete", "quota/no-jobs", "-n", namespace).returncode == 0
        await life.reached("Queued")


async def test_what_was_fixed_cannot_be_edited_and_its_loss_leaves_the_neighbour_alone(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    async with operating(kubeconfig, namespace, tmp_path) as stage:
        life = stage.life
        await life.create(xray_job(namespace, "poisoned"))
        child = (await life.reached("Queued", "poisoned"))["status"]["run"]["jobName"]
        record = ("configmap", child, "-n", namespace)
        cheaper = '{"data": {"snapshot.json": "{}"}}'
        assert "immutable" in kubectl(kubeconfig, "patch", *record, "--type=merge", "-p", cheaper).stderr
        assert kubectl(kubeconfig, "delete", *record).returncode == 0
    async with operating(kubeconfig, namespace, tmp_path) as stage:
        life = stage.life
        await life.create(xray_job(namespace, "neighbour"))
        await life.reached("Queued", "neighbour")
        assert (await life.says("Stalled", "RecordUnreadable", name="poisoned"))["run"]["jobName"] == child


async def test_a_job_whose_label_was_taken_off_is_found_again(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    async with operating(kubeconfig, namespace, tmp_path) as stage:
        life = stage.life
        await life.create(xray_job(namespace))
        child = (await life.reached("Queued"))["status"]["run"]["jobName"]
        assert kubectl(kubeconfig, "label", "job", child, "-n", namespace, "xray.training/job-uid-").returncode == 0

        async def labelled_again() -> bool:
            return len(await life.listed("/apis/batch/v1/namespaces/{}/jobs")) == 1

        await until("the label is back", labelled_again)


async def test_deleting_the_resource_collects_its_children(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    async with operating(kubeconfig, namespace, tmp_path) as stage:
        life = stage.life
        await life.create(xray_job(namespace))
        await life.reached("Queued")
        assert kubectl(kubeconfig, "delete", "xtj", "cxr", "-n", namespace, "--timeout=20s").returncode == 0

        async def collected() -> bool:
            paths = (
                "/apis/batch/v1/namespaces/{}/jobs",
                "/api/v1/namespaces/{}/configmaps",
                "/api/v1/namespaces/{}/pods",
            )
            return not any([await life.listed(path) for path in paths])

        await until("children are gone", collected)


async def test_health_is_good_and_turns_bad_when_the_server_falls_silent(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    cluster = await connect(kubeconfig)
    async with start_proxy(str(kubeconfig)) as proxy, aiohttp.ClientSession() as session:
        operator = OperatorProcess(tmp_path, proxy.url, namespace)
        await operator.start(healthPort=HEALTH_PORT, deafAfterSeconds=3, requestTimeoutSeconds=2)
        health = partial(answers, session, f"http://127.0.0.1:{HEALTH_PORT}/healthz")

        try:
            await until("health is good", lambda: health(200))
            proxy.silent = True
            gone = asyncio.create_task(operator.ended())
            bad = asyncio.create_task(until("health is bad", lambda: health(500)))
            await asyncio.wait((gone, bad), return_when=asyncio.FIRST_COMPLETED)
            if bad.done():
                await bad  # raises what `until` did: a deadline is no answer
            else:
                assert operator.process
                assert operator.process.returncode
            bad.cancel()
        finally:
            operator.kill()
            await operator.ended()
            await cluster.close()


async def test_operator_is_ready_only_when_the_server_has_answered(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    async with start_proxy(str(kubeconfig)) as proxy, aiohttp.ClientSession() as session:
        operator = OperatorProcess(tmp_path, proxy.url, namespace)
        proxy.silent = True
        await operator.start(metricsPort=METRICS_PORT)
        readiness = partial(answers, session, f"http://127.0.0.1:{METRICS_PORT}/readyz")

        try:
            await until("not ready, because nothing has answered", lambda: readiness(503))
            operator.kill()
            await operator.ended()
            proxy.silent = False
            await operator.start(metricsPort=METRICS_PORT)
            await until("ready", lambda: readiness(200))
        finally:
            operator.kill()
            await operator.ended()
