"""Helm 4 waits for a job of a chart as its conditions say."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.cluster.tools import helm
from tests.integration.cluster_access import apply, kubectl, until
from tests.integration.kubelet import Kubelet
from tests.integration.life import Life, Trainer, claim, example, xray_job
from tests.integration.stage import operating

pytestmark = pytest.mark.integration


def write_chart(folder: Path, namespace: str) -> None:
    """A chart whose only object is a job; the value `rerun` is that of the job."""
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v2", "name": "run", "version": "1.0.0"}))
    (folder / "values.yaml").write_text("rerun: 0\n")
    job = yaml.safe_dump(xray_job(namespace, rerun="RERUN")).replace("RERUN", "{{ .Values.rerun }}")
    (folder / "templates" / "job.yaml").write_text(job)


class Helm:
    """`helm upgrade --install --wait` of the chart, going on; what it says grows in `said`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            self.said += line.decode()

    async def waits(self) -> None:
        """Until it says that it waits for the job."""

        async def told() -> bool:
            return "waiting for resource" in self.said

        await until("helm waits", told)
        assert self.process.returncode is None, self.said

    async def ended(self) -> int:
        code = await asyncio.wait_for(self.process.wait(), 60)
        await self._reader
        return code


@contextlib.asynccontextmanager
async def helm_upgrade(kubeconfig: Path, namespace: str, chart: Path, *values: str) -> AsyncIterator[Helm]:
    words = ["upgrade", "--install", "run", str(chart), "--wait", "--debug", "--timeout=2m", *values]
    process = await asyncio.create_subprocess_exec(
        *(str(helm() / "helm"), "--kubeconfig", str(kubeconfig), "--namespace", namespace, *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Helm(process)
    finally:
        if process.returncode is None:
            process.kill()


def stored(kubeconfig: Path, namespace: str) -> dict[str, Any]:
    """The job without resourceVersion: Helm's upgrade is a write, also where it changes nothing."""
    job = json.loads(kubectl(kubeconfig, "get", "xtj", "cxr", "-n", namespace, "-o", "json").stdout)
    del job["metadata"]["resourceVersion"]
    return dict(job)


async def test_helm_waits_until_a_run_has_started_and_fails_with_one_that_failed(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    chart = tmp_path / "chart"
    write_chart(chart, namespace)
    async with operating(kubeconfig, namespace, tmp_path) as stage:
        life = stage.life
        async with helm_upgrade(kubeconfig, namespace, chart) as installing:
            await installing.waits()
            kubelet = await prepares(life)
            async with Trainer(example("progress.json") | {"phases": []}).serve(life.ip):
                await kubelet.prepare_ends(20, 0, example("prepare-result.json"))
                await kubelet.train_starts(21)
                assert await installing.ended() == 0, installing.said
                assert (await life.reached("Training"))["metadata"]["generation"] == 1
        await kubelet.train_ends(60, 0, example("result.json") | {"phases": []})
        await life.reached("Succeeded")

        finished = stored(kubeconfig, namespace)
        async with helm_upgrade(kubeconfig, namespace, chart) as upgrading:
            assert await upgrading.ended() == 0, upgrading.said
        assert stored(kubeconfig, namespace) == finished, "the same chart again changes nothing"

        async with helm_upgrade(kubeconfig, namespace, chart, "--set=rerun=1") as rerunning:
            await rerunning.waits()
            kubelet = await prepares(life, 100)
            await kubelet.prepare_ends(120, 11, example("error-result.json"))
            assert await rerunning.ended() != 0
        assert "not ready. status: Failed, message: prepare: exit code 11" in rerunning.said


async def prepares(life: Life, seconds: int = 0) -> Kubelet:
    """The next pod of the job runs as far as its preparation."""
    await life.reached("Queued")
    begin = datetime.fromisoformat((await life.job())["metadata"]["creationTimestamp"])
    kubelet = Kubelet(life.cluster, life.namespace, begin, life.ip)
    await kubelet.bind(seconds + 5)
    await kubelet.prepare_starts(seconds + 6)
    await life.reached("Preparing")
    return kubelet
