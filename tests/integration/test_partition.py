"""Two runs at one V-IPU partition, on a real control plane; the operator is killed after each step in the line."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster_access import apply, kubectl, until
from tests.integration.kubelet import Kubelet
from tests.integration.life import JOBS as XRAY_JOBS
from tests.integration.life import STOPPED, Life, example, flavor, xray_job
from tests.integration.stage import JOBS
from tests.integration.test_preparation import CHEAP, DATASET, cheap_flavor
from tests.integration.trial import Trial, trial

pytestmark = pytest.mark.integration
IP = "127.81.0.1"
RUNS = ("one", "two")


def partition_flavor(name: str, partition: str) -> dict[str, Any]:
    made = flavor(name)
    made["spec"] = {
        "backend": "vipuPartition",
        "accelerators": 4,
        "partition": {"host": "10.3.0.1", "id": partition},
        "nodeSelector": {"vpod": "vpod4"},
        "host": {"cpu": "8"},
    }
    return made


async def by_run(life: Life, path: str) -> dict[str, dict[str, Any]]:
    """Jobs or pods at the partition, by the name of their run."""
    listed = (await life.cluster.get(path.format(life.namespace), {"labelSelector": "xray.training/partition"}))[
        "items"
    ]
    return {raw["metadata"]["labels"]["xray.training/job-name"]: raw for raw in listed}


async def holders(life: Life) -> set[str]:
    """Runs whose Job may run, or that have a pod which is not over."""
    jobs, pods = await by_run(life, JOBS), await by_run(life, "/api/v1/namespaces/{}/pods")
    ended = {run for run, raw in jobs.items() if raw.get("status", {}).get("completionTime")}
    going_on = {run for run, raw in jobs.items() if not raw["spec"]["suspend"]} - ended
    return going_on | {run for run, raw in pods.items() if raw["status"]["phase"] not in ("Succeeded", "Failed")}


@contextlib.asynccontextmanager
async def watched(life: Life) -> AsyncIterator[list[set[str]]]:
    """All that was seen to hold the partition at once, by asking again and again."""
    seen: list[set[str]] = []

    async def watch() -> None:
        while True:
            seen.append(await holders(life))
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def holder(life: Life) -> str:
    """The run that gets a pod."""

    async def found() -> str | None:
        pods = await by_run(life, "/api/v1/namespaces/{}/pods")
        return next((run for run, raw in pods.items() if "nodeName" not in raw["spec"]), None)

    return await until("a run has the partition", found)


async def told(life: Life, run: str, words: str) -> None:
    """Until a run says that it waits for the partition, and whom for."""
    await life.says("Running", "PartitionHeld", words, run)


async def wish(life: Life, run: str, **spec: Any) -> None:
    await life.cluster.merge(f"{XRAY_JOBS.format(life.namespace)}/{run}", {"spec": spec})


def kubelet(life: Life) -> Kubelet:
    return Kubelet(life.cluster, life.namespace, datetime.now(UTC) - timedelta(seconds=60), life.ip)


async def trains(life: Life, run: str) -> Kubelet:
    """The pod of a run that has the partition goes as far as training."""
    played = kubelet(life)
    await played.bind(5)
    await played.prepare_starts(6)
    await played.prepare_ends(7, 0, example("prepare-result.json"))
    await played.train_starts(8)
    await life.reached("Training", run)
    return played


async def succeeds(life: Life, run: str, played: Kubelet) -> None:
    await played.train_ends(20, 0, example("result.json") | {"phases": []})
    await life.reached("Succeeded", run)


def kill_in_line(tried: Trial) -> None:
    """The operator dies after each step of a Job in the line, and never hears that it was taken."""

    def after_write(_: int) -> bool:
        in_line = tried.proxy.writes[-1].startswith("PATCH") and "/jobs/" in tried.proxy.writes[-1]
        if in_line:
            tried.operator.kill()
        return in_line

    tried.proxy.after_write = after_write


async def test_a_run_whose_pod_pod_security_refuses_says_so(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    enforced = kubectl(kubeconfig, "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=baseline")
    assert enforced.returncode == 0, enforced.stderr
    made = partition_flavor(namespace, namespace)
    made["spec"]["host"] = {"hostNetwork": True}
    assert apply(kubeconfig, cheap_flavor(), made).returncode == 0
    async with trial(kubeconfig, namespace, tmp_path, IP, defaultPrepareFlavor=CHEAP) as tried:
        await tried.life.create(xray_job(namespace, "one", flavor=namespace, dataset=DATASET))
        preparation = kubelet(tried.life)
        await preparation.bind(1)
        await preparation.data_ends(3, 0, example("prepare-result.json"))
        await tried.life.says("Running", "PodRefused", "violates PodSecurity", "one")


async def test_one_run_at_a_time_holds_a_partition_though_the_operator_is_killed_at_each_step(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    flavors = {run: f"{namespace}-{run}" for run in RUNS}
    made = [partition_flavor(name, namespace) for name in flavors.values()]
    assert apply(kubeconfig, cheap_flavor(), *made).returncode == 0
    async with (
        trial(kubeconfig, namespace, tmp_path, IP, defaultPrepareFlavor=CHEAP) as tried,
        watched(tried.life) as seen,
    ):
        life = tried.life
        kill_in_line(tried)
        for run, name in flavors.items():
            await life.create(xray_job(namespace, run, flavor=name, dataset=DATASET))
        preparation = kubelet(life)
        await preparation.bind(1)
        await preparation.data_ends(3, 0, example("prepare-result.json"))
        first = await holder(life)
        (second,) = set(RUNS) - {first}
        played = await trains(life, first)
        await told(life, second, f"held by run {first}")
        await wish(life, first, suspend=True)
        await played.is_told_to_end()
        assert await holders(life) == {first}, "its pod still saves a checkpoint"
        await told(life, second, f"held by run {first}")
        await played.obeys(15, 143, STOPPED)
        assert await holder(life) == second
        await life.reached("Suspended", first)
        played = await trains(life, second)
        await wish(life, first, suspend=False)
        await told(life, first, f"held by run {second}")
        await succeeds(life, second, played)
        assert await holder(life) == first
        await succeeds(life, first, await trains(life, first))
        assert tried.codes
        assert set(tried.codes) == {-signal.SIGKILL}
        assert len(tried.codes) >= 8, "two runs that claim and go on, one of them twice, suspended between"
        jobs = await by_run(life, JOBS)
    assert {frozenset(each) for each in seen} == {frozenset(), frozenset({first}), frozenset({second})}
    assert jobs[first]["status"]["startTime"] >= jobs[second]["status"]["completionTime"]
