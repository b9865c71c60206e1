"""One job from creation to its end, on a real control plane, with kubelet and trainer played by the test."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiohttp import web

from tests.integration.cluster_access import DEADLINE_SECONDS, REPOSITORY, until
from tests.integration.kubelet import Kubelet, at
from xray_operator.cluster.client import Cluster
from xray_operator.core.conditions import find_condition

EXAMPLES = REPOSITORY / "tests" / "contract" / "examples"
FLAVOR = "integration-vpod4"
JOBS = "/apis/xray.training/v1alpha1/namespaces/{}/xraytrainingjobs"


def example(name: str) -> dict[str, Any]:
    """What the trainer writes."""
    document: dict[str, Any] = json.loads((EXAMPLES / name).read_text())
    return document


STOPPED = example("error-result.json") | {
    "exit_code": 143,
    "reason": "Stopped",
    "message": "checkpoint saved at step 9",
}


def flavor(name: str = FLAVOR) -> dict[str, Any]:
    prices = [{"effectiveFrom": "2020-01-01T00:00:00Z", "currency": "USD", "perHour": "8.50", "minimumSeconds": 60}]
    host = {"cpu": "2", "memory": "4Gi", "sharedMemory": "1Gi"}
    spec = {"backend": "devicePlugin", "accelerators": 4, "resourceName": "graphcore.ai/ipu", "host": host}
    return {
        "apiVersion": "xray.training/v1alpha1",
        "kind": "AcceleratorFlavor",
        "metadata": {"name": name},
        "spec": spec | {"prices": prices},
    }


def claim(namespace: str, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def xray_job(namespace: str, name: str = "cxr", **spec: Any) -> dict[str, Any]:
    """About the shortest useful manifest."""
    usual = {
        "flavor": FLAVOR,
        "model": {"config": {"hiddenSize": 64, "layers": 2, "heads": 2, "patchSize": 16}},
        "dataset": {"source": {"pvc": {"claimName": "nih", "path": "nih"}}, "prepare": "InitContainer"},
        "output": {"claimName": "out"},
    }
    return {
        "apiVersion": "xray.training/v1alpha1",
        "kind": "XRayTrainingJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": usual | spec,
    }


def conditions(status: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Status and reason of each."""
    return {row["type"]: (row["status"], row["reason"]) for row in status.get("conditions", ())}


async def next_second() -> None:
    """Until the clock shows another second; in a status what happened within one happened at once."""
    now = int(time.time())

    async def over() -> bool:
        return int(time.time()) > now

    await until("a second is over", over)


@dataclass
class Trainer:
    """Serves /progress where the pod's address says."""

    answer: dict[str, Any]

    async def handle(self, _: web.Request) -> web.Response:
        return web.json_response(self.answer)

    @contextlib.asynccontextmanager
    async def serve(self, ip: str) -> AsyncIterator[None]:
        application = web.Application()
        application.router.add_get("/progress", self.handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, ip, 9400).start()
        try:
            yield
        finally:
            await runner.cleanup()


@dataclass
class Life:
    """Steps that wait for what the operator says before kubelet goes on."""

    cluster: Cluster
    namespace: str
    ip: str

    async def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        return await self.cluster.create(JOBS.format(self.namespace), dict(manifest))

    async def job(self, name: str = "cxr") -> dict[str, Any]:
        return await self.cluster.get(f"{JOBS.format(self.namespace)}/{name}")

    async def reached(self, state: str, name: str = "cxr") -> dict[str, Any]:
        """The job as soon as its state is this one."""

        async def ask() -> dict[str, Any] | None:
            job = await self.job(name)
            return job if job.get("status", {}).get("state") == state else None

        try:
            return await until(f"job {self.namespace}/{name} is {state}", ask)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {json.dumps(await self.job(name))}") from error

    async def says(
        self, kind: str, reason: str, words: str = "", name: str = "cxr", seconds: float = DEADLINE_SECONDS
    ) -> dict[str, Any]:
        """The status of the job as soon as this condition has this reason, and these words in its message."""

        async def ask() -> dict[str, Any] | None:
            status: dict[str, Any] = (await self.job(name)).get("status", {})
            row = find_condition(status, kind)
            return status if row.get("reason") == reason and words in row.get("message", "") else None

        try:
            return await until(f"{kind} of {self.namespace}/{name} is {reason}: {words}", ask, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {json.dumps(await self.job(name))}") from error

    async def reported(self, percentage: int) -> None:
        """Until the operator has told this progress."""

        async def ask() -> bool:
            told = (await self.job())["status"].get("trainerStatus", {})
            return bool(told.get("progressPercentage") == percentage)

        await until(f"progress {percentage} %", ask)

    async def events(self, uid: str) -> list[dict[str, Any]]:
        listed = await self.cluster.get(f"/api/v1/namespaces/{self.namespace}/events")
        return [event for event in listed["items"] if event["involvedObject"].get("uid") == uid]

    async def listed(self, path: str) -> list[dict[str, Any]]:
        """The operator's children of one kind."""
        query = {"labelSelector": "xray.training/job-uid"}
        items: list[dict[str, Any]] = (await self.cluster.get(path.format(self.namespace), query))["items"]
        return items

    async def edit(self, **spec: Any) -> None:
        """An edit of the job by its owner."""
        await self.cluster.merge(f"{JOBS.format(self.namespace)}/cxr", {"spec": spec})

    async def starts_training(self, begin: datetime, seconds: int = 0) -> Kubelet:
        """The job's next pod gets a node after so many seconds and goes as far as training."""
        kubelet = Kubelet(self.cluster, self.namespace, begin, self.ip)
        await kubelet.bind(seconds + 5)
        await kubelet.prepare_starts(seconds + 6)
        await kubelet.prepare_ends(seconds + 20, 0, example("prepare-result.json"))
        await kubelet.train_starts(seconds + 21)
        await self.reached("Training")
        return kubelet

    async def live_through_stops(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """A run that is suspended, resumed and replaced by another one, which succeeds; returns the job at its end."""
        begin = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
        async with Trainer(example("progress.json") | {"phases": []}).serve(self.ip):
            kubelet = await self.starts_training(begin, -100)  # before the run goes on, which has the time of the clock
            await self.edit(suspend=True)
            await kubelet.obeys(-40, 143, STOPPED)
            await self.reached("Suspended")
            await next_second()
            await self.edit(suspend=False)
            kubelet = await self.starts_training(begin, 100)
            await self.edit(rerun=1)
            await kubelet.obeys(160, 143, STOPPED)
            kubelet = await self.starts_training(begin, 200)
        await kubelet.train_ends(260, 0, example("result.json") | {"phases": []})
        return await self.reached("Succeeded")

    async def live_through(
        self, job: Mapping[str, Any], in_training: Callable[[], Awaitable[None]] | None = None
    ) -> dict[str, Any]:
        """A whole successful run of a created job; returns the job at its end.

        Args:
            in_training: is awaited as soon as the operator has told that it trains.
        """
        begin = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
        kubelet = Kubelet(self.cluster, self.namespace, begin, self.ip)
        evaluating = {"name": "Evaluating", "started_at": at(begin, 100), "finished_at": at(begin, 110)}
        progress = example("progress.json") | {"phases": []}
        trainer = Trainer(progress)
        await self.reached("Queued")
        await kubelet.bind(10)
        await kubelet.prepare_starts(12)
        await self.reached("Preparing")
        async with trainer.serve(self.ip):
            trainer.answer = progress | {"phase": "Preparing", "progress_percentage": 70}
            await self.reported(70)
            trainer.answer = progress
            await kubelet.prepare_ends(40, 0, example("prepare-result.json"))
            await kubelet.train_starts(42)
            await self.reached("Training")
            if in_training:
                await in_training()
            await self.reported(40)
            trainer.answer = progress | {"phases": [evaluating | {"finished_at": None}], "progress_percentage": 90}
            await self.reached("Evaluating")
            await self.reported(90)
            await kubelet.train_ends(110, 0, example("result.json") | {"phases": [evaluating]})
            return await self.reached("Succeeded")
