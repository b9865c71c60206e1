"""Resident memory of an idle operator: with one finished run in its index, and with a thousand.

`make bench` runs it on the control plane of dev/cluster; build/bench/operator_memory.json has the figures. A finished
run is its XRayTrainingJob with the whole status, its Job and its pod, copied from one that lived its life.
"""

from __future__ import annotations

import asyncio
import copy
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.integration.cluster_access import REPOSITORY, connect, until
from tests.integration.conftest import benchmarked
from tests.integration.life import JOBS, xray_job
from tests.integration.operator_process import OperatorProcess
from tests.integration.trial import METRICS_PORT, trial
from xray_operator.cluster.client import Cluster

RESULT: Final = REPOSITORY / "build" / "bench" / "operator_memory.json"
SIZES: Final = (1, 1000)
SAMPLES: Final = 15
"""Seconds of idling, one sample each; the largest counts."""
MOST_IDLE_MEGABYTES: Final = 120
"""For the process itself, with one run; what each further run adds is told beside it."""
FILLING_SECONDS: Final = 300.0
SIDE_BY_SIDE: Final = 8

Raw = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What a finished run leaves in the operator's index."""

    job: Raw
    batch_job: Raw
    pod: Raw


async def main() -> int:
    with benchmarked() as (kubeconfig, namespace):
        figures = await measure(kubeconfig, namespace)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    return int(figures["runs"][0]["idleMegabytes"] > MOST_IDLE_MEGABYTES)


async def measure(kubeconfig: Path, namespace: str) -> Raw:
    cluster = await connect(kubeconfig)
    try:
        with tempfile.TemporaryDirectory() as folder:
            pattern = await live_once(kubeconfig, namespace, Path(folder))
            rows, present = [], 1
            for size in SIZES:
                await copy_run(cluster, pattern, range(present, size))
                present = size
                rows.append({"finishedRuns": size, **await idle_memory(kubeconfig, namespace, Path(folder), size)})
    finally:
        await cluster.close()
    return {"python": sys.version.split()[0], "seconds": SAMPLES, "mostAllowed": MOST_IDLE_MEGABYTES, "runs": rows}


async def live_once(kubeconfig: Path, namespace: str, folder: Path) -> Run:
    async with trial(kubeconfig, namespace, folder) as tried:
        job = await tried.life.live_through(await tried.life.create(xray_job(namespace)))
        (batch_job,) = await tried.life.listed("/apis/batch/v1/namespaces/{}/jobs")
        (pod,) = await tried.life.listed("/api/v1/namespaces/{}/pods")
        return Run(job, batch_job, pod)


async def copy_run(cluster: Cluster, pattern: Run, numbers: range) -> None:
    gate = asyncio.Semaphore(SIDE_BY_SIDE)

    async def copy_one(number: int) -> None:
        async with gate:
            await make_copy(cluster, pattern, f"copy-{number}")

    async with asyncio.TaskGroup() as together:
        for number in numbers:
            together.create_task(copy_one(number))


async def make_copy(cluster: Cluster, pattern: Run, name: str) -> None:
    """The same run under another name; its Job is suspended, so that nothing is started for it."""
    namespace = pattern.job["metadata"]["namespace"]
    jobs, batch_jobs, pods = (
        JOBS.format(namespace),
        f"/apis/batch/v1/namespaces/{namespace}/jobs",
        f"/api/v1/namespaces/{namespace}/pods",
    )
    made = await cluster.create(jobs, {**pattern.job, "metadata": {"name": name, "namespace": namespace}})
    await cluster.replace(f"{jobs}/{name}/status", {**made, "status": pattern.job["status"]})
    batch_job = child_of(made, pattern.batch_job, name)
    del batch_job["spec"]["selector"], batch_job["spec"]["template"]["metadata"]["labels"]
    batch_job["spec"]["suspend"] = True
    await cluster.create(batch_jobs, batch_job)
    pod = child_of(made, pattern.pod, name)
    await cluster.create(pods, pod)
    await cluster.merge(f"{pods}/{name}/status", {"status": pattern.pod["status"]})


def child_of(job: Mapping[str, Any], pattern: Raw, name: str) -> Raw:
    """A copy of the pattern that belongs to this job."""
    uid = job["metadata"]["uid"]
    labels = {k: v for k, v in pattern["metadata"]["labels"].items() if k.startswith(("app.", "xray.training/"))}
    owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": name, "uid": uid, "controller": False}
    metadata = {
        "name": name,
        "namespace": job["metadata"]["namespace"],
        "labels": labels | {"xray.training/job-uid": uid},
        "annotations": pattern["metadata"].get("annotations", {}),
        "ownerReferences": [owner],
    }
    copied = copy.deepcopy(pattern) | {"metadata": metadata}
    copied.pop("status", None)
    return copied


async def idle_memory(kubeconfig: Path, namespace: str, folder: Path, runs: int) -> Raw:
    """Of an operator that was started anew, when it has all of them and nothing happens."""
    operator = OperatorProcess(folder, kubeconfig, namespace)
    await operator.start(resyncSeconds=5, idleResyncs=6, metricsPort=METRICS_PORT)
    try:
        await until("the operator has them all", lambda: has_finished(runs), FILLING_SECONDS)
        samples = []
        for _ in range(SAMPLES):
            await asyncio.sleep(1)
            samples.append(operator.megabytes())
        peak = operator.megabytes("VmHWM")
        return {"idleMegabytes": max(samples), "startPeakMegabytes": peak}
    finally:
        operator.kill()
        await operator.ended()


async def has_finished(runs: int) -> bool:
    """By the operator's own metrics."""
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{METRICS_PORT}/metrics") as answer,
        ):
            lines = (await answer.text()).splitlines()
    except aiohttp.ClientError:
        return False
    counted = [
        float(line.split()[-1]) for line in lines if line.startswith("xray_training_jobs{") and "Succeeded" in line
    ]
    return sum(counted) == runs


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
