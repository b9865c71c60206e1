"""How long `kubectl xray list` takes with 1,000 jobs, from the start of the process to its end.

`make bench` runs it on the control plane of dev/cluster; build/bench/cli.json has the figures. The jobs are copies of one
that lived its life, with their whole status. Beside them stand `kubectl get` of the same and the start of the process alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dev.cluster.tools import kubernetes
from tests.integration.cluster_access import REPOSITORY, connect
from tests.integration.conftest import benchmarked
from tests.integration.life import JOBS, xray_job
from tests.integration.trial import trial
from xray_operator.cluster.client import Cluster

RESULT: Final = REPOSITORY / "build" / "bench" / "cli.json"
COUNT: Final = 1000
RUNS: Final = 5
MOST_SECONDS: Final = 1.5
"""For the table of all jobs."""
SIDE_BY_SIDE: Final = 8
XRAY: Final = (sys.executable, "-m", "xray_cli")

Raw = dict[str, Any]


def main() -> int:
    with benchmarked() as (kubeconfig, namespace):
        asyncio.run(fill(kubeconfig, namespace))
        figures = measure(kubeconfig, namespace)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    return int(figures["listSeconds"]["median"] > MOST_SECONDS)


async def fill(kubeconfig: Path, namespace: str) -> None:
    """COUNT jobs that have succeeded."""
    with tempfile.TemporaryDirectory() as folder:
        async with trial(kubeconfig, namespace, Path(folder)) as tried:
            pattern = await tried.life.live_through(await tried.life.create(xray_job(namespace)))
    cluster = await connect(kubeconfig)
    gate = asyncio.Semaphore(SIDE_BY_SIDE)
    try:
        async with asyncio.TaskGroup() as together:
            for number in range(1, COUNT):
                together.create_task(copy(cluster, gate, pattern, f"copy-{number}"))
    finally:
        await cluster.close()


async def copy(cluster: Cluster, gate: asyncio.Semaphore, pattern: Raw, name: str) -> None:
    async with gate:
        jobs = JOBS.format(pattern["metadata"]["namespace"])
        metadata = {"name": name, "namespace": pattern["metadata"]["namespace"]}
        made = await cluster.create(jobs, {**pattern, "metadata": metadata})
        await cluster.replace(f"{jobs}/{name}/status", {**made, "status": pattern["status"]})


def measure(kubeconfig: Path, namespace: str) -> Raw:
    here = ("--kubeconfig", str(kubeconfig), "-n", namespace)
    kubectl = (str(kubernetes() / "kubectl"), "get", "xraytrainingjobs")
    commands = {
        "listSeconds": (*XRAY, "list", *here),
        "listAsJsonSeconds": (*XRAY, "list", *here, "-o", "json"),
        "kubectlGetSeconds": (*kubectl, *here),
        "kubectlGetAsJsonSeconds": (*kubectl, *here, "-o", "json"),
        "helpSeconds": (*XRAY, "list", "--help"),
    }
    figures = {name: take(command) for name, command in commands.items()}
    figures["listSeconds"]["mostAllowed"] = MOST_SECONDS
    return {"python": sys.version.split()[0], "jobs": COUNT, "runs": RUNS, **figures}


def take(command: Sequence[str]) -> Raw:
    """Seconds of the whole process, RUNS times after one that warms the caches."""
    seconds = sorted([run(command) for _ in range(RUNS + 1)][1:])
    return {
        name: round(value, 2)
        for name, value in (("median", statistics.median(seconds)), ("least", seconds[0]), ("most", seconds[-1]))
    }


def run(command: Sequence[str]) -> float:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "operator")}
    begin = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - begin
    assert "--help" in command or done.stdout.count("copy-") >= COUNT - 1, command
    return seconds


if __name__ == "__main__":
    sys.exit(main())
