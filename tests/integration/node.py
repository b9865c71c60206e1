"""A node that runs the pods of a namespace by itself: a finished result is looked for by the trainer's own code, and what
trains is counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.integration.kubelet import Kubelet
from tests.integration.life import example
from xray_operator.cluster.client import Cluster
from xray_trainer.config import RunFile, as_json, parse_run_file
from xray_trainer.files import sha256_of
from xray_trainer.finished import MODEL_FOLDER, PREPARED_KEY, RESULT, WEIGHTS, find_finished


@dataclass
class Node:
    """Runs one pod after the other."""

    cluster: Cluster
    namespace: str
    claim: Path
    """The output claim: it stays when everything else goes."""
    trained: Counter[str] = field(default_factory=Counter)
    """Name of a job -> how many trainings were paid for it."""

    @contextlib.asynccontextmanager
    async def runs(self) -> AsyncIterator[None]:
        """Until the end of the block; what breaks it breaks the block."""
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self._run_pods())
            yield
            task.cancel()

    async def _run_pods(self) -> None:
        while True:
            kubelet = Kubelet(self.cluster, self.namespace, datetime.now(UTC), "127.78.0.2")
            if await kubelet.unbound() is None:
                await asyncio.sleep(0.1)
                continue
            await self._run(kubelet, await kubelet.bind(0))

    async def _run(self, kubelet: Kubelet, pod: str) -> None:
        run_file = await self._run_file(pod)
        await kubelet.prepare_starts(1)
        await kubelet.prepare_ends(2, 0, self._answer(run_file, "prepare", lambda _: example("prepare-result.json")))
        await kubelet.train_starts(3)
        await kubelet.train_ends(5, 0, self._answer(run_file, "train", self._train))

    async def _run_file(self, pod: str) -> RunFile:
        """What the pod finds mounted, with its output folder here."""
        spec = (await self.cluster.get(f"/api/v1/namespaces/{self.namespace}/pods/{pod}"))["spec"]
        name = next(volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume)
        record = await self.cluster.get(f"/api/v1/namespaces/{self.namespace}/configmaps/{name}")
        run_file = parse_run_file(json.loads(record["data"]["run.json"]))
        return run_file.model_copy(update={"output_dir": self.claim / run_file.output_dir.name})

    def _answer(self, run_file: RunFile, command: str, work: Callable[[RunFile], dict[str, Any]]) -> dict[str, Any]:
        return find_finished(run_file, command) or work(run_file)

    def _train(self, run_file: RunFile) -> dict[str, Any]:
        """Leaves a result as the trainer does, with weights that no other training has."""
        self.trained[run_file.run.name] += 1
        weights = run_file.output_dir / MODEL_FOLDER / WEIGHTS
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.write_bytes(secrets.token_bytes(64))
        result = example("result.json") | {"phases": [], "model_digest": sha256_of(weights)}
        report = result | {"run_file": as_json(run_file), PREPARED_KEY: example("prepare-result.json")}
        (run_file.output_dir / RESULT).write_text(json.dumps(report))
        return result
