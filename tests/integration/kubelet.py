"""Plays kubelet for one pod of a run: binds it to a node on paper and writes its status with given times."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.integration.cluster_access import until
from xray_operator.cluster.client import Cluster

NODE = "simulated"


def at(begin: datetime, seconds: int) -> str:
    """So many seconds after begin, as Kubernetes writes times."""
    return (begin + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Kubelet:
    """Times are seconds after `begin`."""

    cluster: Cluster
    namespace: str
    begin: datetime
    ip: str
    node: str = NODE
    pod: str = ""
    """Its name, once it has a node."""
    _conditions: list[dict[str, Any]] = field(default_factory=list)
    _prepare: dict[str, Any] = field(default_factory=dict)
    _train: dict[str, Any] = field(default_factory=lambda: {"waiting": {"reason": "PodInitializing"}})

    async def bind(self, seconds: int) -> str:
        """Take the newest pod that has no node yet; returns its name."""
        self.pod = await until("a pod without a node", self.unbound)
        target = {"apiVersion": "v1", "kind": "Node", "name": self.node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": self.pod}, "target": target}
        await self.cluster.create(f"{self._path}/binding", binding)
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(self.begin, seconds)}
        self._conditions = [scheduled]
        self._prepare = {"waiting": {"reason": "PodInitializing"}}
        self._train = {"waiting": {"reason": "PodInitializing"}}
        await self._write("Pending")
        return self.pod

    async def prepare_starts(self, seconds: int) -> None:
        self._prepare = {"running": {"startedAt": at(self.begin, seconds)}}
        await self._write("Pending")

    async def prepare_ends(self, seconds: int, code: int, message: object) -> None:
        self._prepare = self._ended(self._prepare, seconds, code, message)
        await self._write("Failed" if code else "Pending")

    async def data_ends(self, seconds: int, code: int, message: object) -> None:
        """The pod is that of a preparation of its own: `prepare` is all that it runs."""
        self._prepare = self._ended({"running": {"startedAt": at(self.begin, seconds - 1)}}, seconds, code, message)
        await self._write("Failed" if code else "Succeeded", [], [_container("prepare", self._prepare)])

    async def train_starts(self, seconds: int) -> None:
        self._train = {"running": {"startedAt": at(self.begin, seconds)}}
        await self._write("Running")

    async def tells_ready(self, seconds: int) -> None:
        """As every kubelet does of a pod that runs; the others leave it out, for their node sends no heartbeat."""
        ready = {"status": "True", "lastTransitionTime": at(self.begin, seconds)}
        self._conditions += [{"type": kind, **ready} for kind in ("ContainersReady", "Ready")]
        await self._write("Running")

    async def train_ends(self, seconds: int, code: int, message: object) -> None:
        self._train = self._ended(self._train, seconds, code, message)
        await self._write("Failed" if code else "Succeeded")

    async def obeys(self, seconds: int, code: int, message: object) -> None:
        """Once the pod is to be deleted, `train` ends with this code and the pod is gone."""
        await self.is_told_to_end()
        await self.train_ends(seconds, code, message)
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        await self.cluster._request("DELETE", self._path, body=options)

    async def is_told_to_end(self) -> None:
        """Until the pod is to be deleted; what it was marked with then is left there."""
        await until("the pod is to be deleted", self._is_going)
        shown = (await self.cluster.get(self._path))["status"].get("conditions", [])
        self._conditions += [condition for condition in shown if condition["type"] == "DisruptionTarget"]

    async def _is_going(self) -> bool:
        return "deletionTimestamp" in (await self.cluster.get(self._path))["metadata"]

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.pod}"

    async def unbound(self) -> str | None:
        """A pod that has no node yet, and of which the scheduler has said so: later it would write over what is told here."""
        listed = await self.cluster.get(f"/api/v1/namespaces/{self.namespace}/pods")
        return next(
            (
                pod["metadata"]["name"]
                for pod in listed["items"]
                if "nodeName" not in pod["spec"]
                and any(each["type"] == "PodScheduled" for each in pod["status"].get("conditions", ()))
            ),
            None,
        )

    def _ended(self, state: dict[str, Any], seconds: int, code: int, message: object) -> dict[str, Any]:
        text = message if isinstance(message, str) else json.dumps(message)
        started = state.get("running", {}).get("startedAt")
        ended = {"exitCode": code, "finishedAt": at(self.begin, seconds), "message": text}
        return {"terminated": ended | {"reason": "Error" if code else "Completed", "startedAt": started}}

    async def _write(
        self, phase: str, init: list[dict[str, Any]] | None = None, main: list[dict[str, Any]] | None = None
    ) -> None:
        status = {
            "phase": phase,
            "podIP": self.ip,
            "podIPs": [{"ip": self.ip}],
            "conditions": self._conditions,
            "initContainerStatuses": [_container("prepare", self._prepare)] if init is None else init,
            "containerStatuses": [_container("train", self._train)] if main is None else main,
        }
        await self.cluster.merge(f"{self._path}/status", {"status": status})


def _container(name: str, state: dict[str, Any]) -> dict[str, Any]:
    running = "running" in state
    known = {"name": name, "image": name, "imageID": name, "restartCount": 0}
    return known | {"ready": running, "started": running, "state": state}
