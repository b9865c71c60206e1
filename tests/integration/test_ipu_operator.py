"""Runs whose attempts are IPUJobs, on a real control plane; a stand-in plays Graphcore's operator, the test plays kubelet.

XRAY_IPUJOB_CRD names another CRD than ours, for example Graphcore's own graphcore.ai_ipujobs.yaml: what it doesn't know is
pruned there too, and the runs must go the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dev.cluster.state import free_ports
from tests.integration.cluster_access import REPOSITORY, apply, kubectl, until, wait_until_served
from tests.integration.kubelet import Kubelet
from tests.integration.life import STOPPED, Life, Trainer, example, flavor, xray_job
from tests.integration.operator_process import answers
from tests.integration.test_preparation import CHEAP, DATASET, cheap_flavor
from tests.integration.test_stall import MOVES, STANDS_STILL
from tests.integration.trial import Trial, trial

pytestmark = pytest.mark.integration
IP = "127.83.0.1"
(PROXY_PORT,) = free_ports(1, ())
URL = f"http://127.0.0.1:{PROXY_PORT}"
IPU_JOBS = "/apis/graphcore.ai/v1alpha1/namespaces/{}/ipujobs"
PODS = "/api/v1/namespaces/{}/pods"
CRD = Path(os.environ.get("XRAY_IPUJOB_CRD", REPOSITORY / "dev" / "ipu_operator_standin" / "ipujobs.yaml"))
CRD_NAME = "ipujobs.graphcore.ai"
NOT_ACQUIRED = example("error-result.json") | {"exit_code": 21, "reason": "AcceleratorNotAcquired", "message": "busy"}


@pytest.fixture
async def ipu_jobs(kubeconfig: Path) -> None:
    """The API server knows them."""
    await install_crd(kubeconfig)


@pytest.fixture
def by_operator(kubeconfig: Path, namespace: str) -> Iterator[str]:
    """Name of a flavor of Graphcore's operator, beside one to prepare on."""
    made = flavor(namespace)
    made["spec"] |= {"backend": "ipuOperator", "vipuProxyUrl": URL}
    del made["spec"]["resourceName"]
    applied = apply(kubeconfig, made, cheap_flavor())
    assert applied.returncode == 0, applied.stderr
    yield namespace
    kubectl(kubeconfig, "delete", "acceleratorflavor", namespace)


async def install_crd(kubeconfig: Path) -> None:
    # by the server: what Graphcore's own holds doesn't fit into kubectl's annotation
    done = kubectl(kubeconfig, "apply", "--server-side", "-f", str(CRD))
    assert done.returncode == 0, done.stderr
    await asyncio.to_thread(wait_until_served, kubeconfig, "graphcore.ai", "ipujobs")


def let_go_of_left_ones(kubeconfig: Path) -> None:
    """Of tests that were broken off, whose stand-in is gone."""
    found = kubectl(
        kubeconfig,
        "get",
        "ipujobs",
        "-A",
        "-o",
        "jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name} {end}",
    )
    for place in found.stdout.split():
        namespace, _, name = place.partition("/")
        without = '{"metadata": {"finalizers": null}}'
        kubectl(kubeconfig, "patch", "ipujob", name, "-n", namespace, "--type=merge", "-p", without)


def remove_crd(kubeconfig: Path) -> None:
    done = kubectl(kubeconfig, "delete", "crd", CRD_NAME, "--ignore-not-found", "--timeout=60s")
    assert done.returncode == 0, done.stderr


@contextlib.asynccontextmanager
async def graphcores_operator(kubeconfig: Path, namespace: str, ipus: int = 4) -> AsyncIterator[None]:
    """The stand-in, with so many IPUs for this namespace; at its end it takes all IPUJobs along."""
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "operator")])
    options = ["--ipus", str(ipus), "--port", str(PROXY_PORT), "--namespace", namespace]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dev.ipu_operator_standin", *options),
        env=os.environ | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": paths},
    )
    try:
        async with aiohttp.ClientSession() as session:
            await until("the V-IPU proxy answers", lambda: answers(session, f"{URL}/health", 200))
        yield
    finally:
        kubectl(kubeconfig, "delete", "xraytrainingjobs", "--all", "-n", namespace)
        kubectl(kubeconfig, "delete", "ipujobs", "--all", "-n", namespace, "--wait=false")
        kubectl(kubeconfig, "delete", "pods", "--all", "-n", namespace, "--force", "--grace-period=0")
        kubectl(kubeconfig, "wait", "--for=delete", "ipujobs", "--all", "-n", namespace, "--timeout=30s")
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def operators(kubeconfig: Path, namespace: str, folder: Path) -> AsyncIterator[Trial]:
    """Graphcore's, as it is played, and ours."""
    async with (
        graphcores_operator(kubeconfig, namespace),
        trial(kubeconfig, namespace, folder, IP, defaultPrepareFlavor=CHEAP) as tried,
    ):
        yield tried


async def free_partitions() -> int:
    async with aiohttp.ClientSession() as session, session.post(f"{URL}/query", json={"size": 4}) as answer:
        return int((await answer.json())["numOfPartitions"])


async def listed(life: Life) -> list[dict[str, Any]]:
    """The IPUJobs of runs."""
    return await life.listed(IPU_JOBS)


async def one_ipu_job(life: Life, other_than: str = "") -> dict[str, Any]:
    """The only one, as soon as it is there."""

    async def found() -> dict[str, Any] | None:
        raws = await listed(life)
        assert len(raws) < 2, "never two at once"
        return raws[0] if raws and raws[0]["metadata"]["name"] != other_than else None

    return await until("there is one IPUJob", found)


async def no_ipu_job(life: Life) -> None:
    async def none() -> bool:
        return not await listed(life)

    await until("there is no IPUJob", none)


def kubelet(life: Life) -> Kubelet:
    return Kubelet(life.cluster, life.namespace, datetime.now(UTC) - timedelta(seconds=60), life.ip)


async def create(life: Life, name: str, **spec: Any) -> None:
    await life.create(xray_job(life.namespace, flavor=name, dataset=DATASET, **spec))


async def is_prepared(life: Life) -> None:
    played = kubelet(life)
    await played.bind(1)
    await played.data_ends(3, 0, example("prepare-result.json"))


async def trains(life: Life) -> Kubelet:
    """The worker of the IPUJob goes as far as training."""
    played = kubelet(life)
    await played.bind(5)
    await played.prepare_starts(6)
    await played.prepare_ends(7, 0, example("prepare-result.json"))
    await played.train_starts(8)
    await life.reached("Training")
    return played


async def succeeds(life: Life, played: Kubelet) -> dict[str, Any]:
    await played.train_ends(20, 0, example("result.json") | {"phases": []})
    return await life.reached("Succeeded")


def made_ipu_jobs(tried: Trial) -> int:
    return sum(write.startswith("POST") and write.endswith("/ipujobs") for write in tried.proxy.writes)


def foreign_ipu_job(namespace: str) -> dict[str, Any]:
    """Somebody else's, that takes all IPUs."""
    pod = {"containers": [{"name": "train", "image": "graphcore/pytorch:3.3.0"}]}
    return {
        "apiVersion": "graphcore.ai/v1alpha1",
        "kind": "IPUJob",
        "metadata": {"name": "foreign", "namespace": namespace},
        "spec": {"jobInstances": 1, "ipusPerJobInstance": "4", "workers": {"template": {"spec": pod}}},
    }


async def partition_is(free: int) -> None:
    async def seen() -> bool:
        return await free_partitions() == free

    await until(f"{free} partitions are free", seen)


@pytest.mark.usefixtures("ipu_jobs")
async def test_a_run_waits_until_a_partition_is_free_and_becomes_an_ipu_job(
    kubeconfig: Path, namespace: str, by_operator: str, tmp_path: Path
) -> None:
    async with operators(kubeconfig, namespace, tmp_path) as tried:
        life = tried.life
        await create(life, by_operator)
        preparation = kubelet(life)
        await preparation.bind(1)
        assert apply(kubeconfig, foreign_ipu_job(namespace)).returncode == 0
        await partition_is(0)
        await preparation.data_ends(3, 0, example("prepare-result.json"))
        await life.says("Running", "NoPartitionFree", "waits for a partition of 4 IPUs")
        assert await listed(life) == []
        assert kubectl(kubeconfig, "delete", "ipujob", "foreign", "-n", namespace).returncode == 0
        made = await one_ipu_job(life)
        played = await trains(life)
        pod = await life.cluster.get(f"{PODS.format(namespace)}/{played.pod}")
        environment = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
        assert environment["IPUOF_VIPU_API_PARTITION_ID"] == f"p-{made['metadata']['name']}-{namespace}-0"
        assert environment["RDMAV_FORK_SAFE"] == "1"
        assert [each["name"] for each in pod["spec"]["initContainers"]] == ["prepare"], "nothing of it was pruned"
        job = await succeeds(life, played)
        assert job["status"]["attempts"][0]["startedAt"] <= made["metadata"]["creationTimestamp"]
        assert job["status"]["cost"]["priced"]
        await partition_is(1)
        assert made_ipu_jobs(tried) == 1
        assert not tried.oddities()


@pytest.mark.usefixtures("ipu_jobs")
async def test_what_may_pass_is_tried_again_by_another_ipu_job_and_what_cant_is_not(
    kubeconfig: Path, namespace: str, by_operator: str, tmp_path: Path
) -> None:
    async with operators(kubeconfig, namespace, tmp_path) as tried:
        life = tried.life
        await create(life, by_operator)
        await is_prepared(life)
        first = await one_ipu_job(life)
        await (await trains(life)).train_ends(15, 21, NOT_ACQUIRED)
        second = await one_ipu_job(life, other_than=first["metadata"]["name"])
        played = await trains(life)
        await played.train_ends(40, 15, NOT_ACQUIRED | {"exit_code": 15, "reason": "OutOfMemory"})
        job = await life.reached("Failed")
        assert [row["exitCode"] for row in job["status"]["attempts"]] == [21, 15]
        names = [raw["metadata"]["name"] for raw in (first, second)]
        assert [row["podName"] for row in job["status"]["attempts"]] == [f"{name}-worker-0" for name in names]
        await tried.settle()
        assert made_ipu_jobs(tried) == 2


@pytest.mark.usefixtures("ipu_jobs")
async def test_a_suspended_run_lets_go_of_its_partition_and_a_rerun_or_a_deletion_too(
    kubeconfig: Path, namespace: str, by_operator: str, tmp_path: Path
) -> None:
    async with (
        operators(kubeconfig, namespace, tmp_path) as tried,
        Trainer(example("progress.json") | {"phases": []}).serve(IP),
    ):
        life = tried.life
        await create(life, by_operator)
        await is_prepared(life)
        played = await trains(life)
        await life.reported(40)
        await life.edit(suspend=True)
        await played.is_told_to_end()
        await life.says("Running", "Suspending")
        assert await free_partitions() == 0, "its pod still saves a checkpoint"
        await played.obeys(15, 143, STOPPED)
        job = await life.reached("Suspended")
        assert await listed(life) == []
        assert job["status"]["attempts"][-1]["exitCode"] == 143
        await partition_is(1)
        await life.edit(suspend=False)
        played = await trains(life)
        await life.edit(rerun=1)
        await played.obeys(30, 143, STOPPED)
        preparation = kubelet(life)
        await preparation.bind(1)
        await preparation.data_ends(3, 0, example("prepare-result.json"))
        played = await trains(life)
        job = await life.job()
        assert [row["rerun"] for row in job["status"]["formerRuns"]] == [0]
        assert len(job["status"]["attempts"]) == 1
        assert kubectl(kubeconfig, "delete", "xtj", "cxr", "-n", namespace, "--wait=false").returncode == 0
        await played.obeys(50, 143, STOPPED)
        await no_ipu_job(life)
        assert made_ipu_jobs(tried) == 3
        assert not tried.oddities()


@pytest.mark.usefixtures("ipu_jobs")
async def test_a_run_that_does_not_move_goes_on_in_another_ipu_job(
    kubeconfig: Path, namespace: str, by_operator: str, tmp_path: Path
) -> None:
    trainer = Trainer(STANDS_STILL)
    async with (
        operators(kubeconfig, namespace, tmp_path) as tried,
        trainer.serve(IP),
    ):
        life = tried.life
        await create(life, by_operator, limits={"noProgressSeconds": 30, "onStall": "Restart"})
        await is_prepared(life)
        played = await trains(life)
        first = await one_ipu_job(life)
        await played.is_told_to_end()
        assert await free_partitions() == 0, "its pod still saves a checkpoint"
        trainer.answer = MOVES
        await played.obeys(61, 137, "")
        played = await trains(life)
        second = await one_ipu_job(life, other_than=first["metadata"]["name"])
        status = (await succeeds(life, played))["status"]
        pods = [f"{raw['metadata']['name']}-worker-0" for raw in (first, second)]
        ends = {row["podName"]: row.get("reason") for row in status["attempts"]}
        assert ends == dict(zip(pods, ("NoProgress", None), strict=True))
        assert status["cost"]["lostSeconds"] >= 30
        assert made_ipu_jobs(tried) == 2


@pytest.mark.usefixtures("ipu_jobs")
async def test_an_operator_that_is_killed_after_each_write_makes_nothing_twice(
    kubeconfig: Path, namespace: str, by_operator: str, tmp_path: Path
) -> None:
    async with operators(kubeconfig, namespace, tmp_path) as tried:
        life = tried.life

        def kill(_: int) -> bool:
            told = tried.proxy.writes[-1]
            deadly = "/ipujobs" in told or told.endswith("/status")
            if deadly:
                tried.operator.kill()
            return deadly

        tried.proxy.after_write = kill
        await create(life, by_operator)
        await is_prepared(life)
        first = await one_ipu_job(life)
        await (await trains(life)).train_ends(15, 21, NOT_ACQUIRED)
        await one_ipu_job(life, other_than=first["metadata"]["name"])
        played = await trains(life)
        await life.edit(suspend=True)
        await played.obeys(30, 143, STOPPED)
        await life.reached("Suspended")
        await life.edit(suspend=False)
        job = await succeeds(life, await trains(life))
        first_code, _, last_code = [row.get("exitCode") for row in job["status"]["attempts"]]
        assert (first_code, last_code) == (21, None), "of the second, nobody may have been there to see the end"
        assert set(tried.codes) == {-signal.SIGKILL}
        assert len(tried.codes) > 8
        assert made_ipu_jobs(tried) == 3


async def test_a_cluster_without_ipu_jobs_and_one_that_loses_them_leaves_the_operator_alive(
    kubeconfig: Path, namespace: str, by_operator: str, tmp_path: Path
) -> None:
    let_go_of_left_ones(kubeconfig)
    remove_crd(kubeconfig)
    async with trial(kubeconfig, namespace, tmp_path, IP, defaultPrepareFlavor=CHEAP) as tried:
        life = tried.life
        await create(life, by_operator)
        await life.says("Accepted", "BackendNotInstalled", "Graphcore's IPU Operator is not installed")
        await install_crd(kubeconfig)
        async with graphcores_operator(kubeconfig, namespace):
            await is_prepared(life)
            await one_ipu_job(life)
            remove_crd(kubeconfig)
            await life.says("Accepted", "BackendNotInstalled")
            await install_crd(kubeconfig)
            await one_ipu_job(life)
            await succeeds(life, await trains(life))
        assert tried.codes == [], "the operator has never ended"
        assert "Traceback" not in tried.log
