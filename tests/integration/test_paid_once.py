"""Nothing but `rerun` trains a finished run again: not the loss of Job, pods, operator and resource, in any order.

What a controller of GitOps does to a resource that is gone is done here too: it is applied again, as git has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster_access import apply, connect, kubectl, until
from tests.integration.life import JOBS, Life, claim, flavor, xray_job
from tests.integration.node import Node
from tests.integration.operator_process import OperatorProcess
from tests.integration.proxy import Proxy, start_proxy
from tests.integration.stage import resynced

pytestmark = pytest.mark.integration
LOSSES = ("Job", "pods", "resource")
ORDERS = {f"run-{n}": order for n, order in enumerate(itertools.permutations(LOSSES))}
"""A job for each order in which a run loses what it has beside its operator."""


@dataclass
class Place:
    """A namespace with its operator, and somebody with kubectl."""

    kubeconfig: Path
    life: Life
    operator: OperatorProcess
    node: Node

    async def apply(self, names: list[str]) -> None:
        jobs = [xray_job(self.life.namespace, name) for name in names]
        applied = await asyncio.to_thread(apply, self.kubeconfig, *jobs)
        assert applied.returncode == 0, applied.stderr

    async def lose(self, what: str, names: list[str]) -> None:
        of = ["-l", f"xray.training/job-name in ({','.join(names)})"]
        words = {"Job": ["jobs", *of], "pods": ["pods", *of], "resource": ["xtj", *names]}[what]
        delete = ("delete", *words, "-n", self.life.namespace, "--timeout=30s")
        deleted = await asyncio.to_thread(kubectl, self.kubeconfig, *delete)
        assert deleted.returncode == 0, deleted.stderr
        if what == "resource":
            await self.apply(names)

    async def lose_operator(self) -> None:
        self.operator.kill()
        await self.operator.ended()

    async def ends(self) -> dict[str, dict[str, Any]]:
        """All jobs, when they have succeeded."""
        jobs = await asyncio.gather(*(self.life.reached("Succeeded", name) for name in ORDERS))
        return dict(zip(ORDERS, jobs, strict=True))


def touched(proxy: Proxy) -> list[str]:
    """What the operator has written to the resources themselves, beside their status."""
    return [write for write in proxy.writes if "/xray.training/" in write and not write.endswith("/status")]


@pytest.mark.parametrize(("turn", "away"), [*((turn, False) for turn in range(len(LOSSES) + 1)), (0, True)])
async def test_nothing_but_rerun_trains_a_finished_run_again(
    kubeconfig: Path, namespace: str, tmp_path: Path, turn: int, away: bool
) -> None:
    assert apply(kubeconfig, flavor(), claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    cluster = await connect(kubeconfig)
    node = Node(cluster, namespace, tmp_path / "out")
    async with (
        contextlib.AsyncExitStack() as stack,
        start_proxy(str(kubeconfig)) as proxy,
        node.runs(),
    ):
        stack.push_async_callback(cluster.close)  # when nobody asks it any more
        operator = OperatorProcess(tmp_path, proxy.url, namespace)
        place = Place(kubeconfig, Life(cluster, namespace, "127.78.0.2"), operator, node)
        try:
            await place.apply(list(ORDERS))
            await operator.start()
            finished = await place.ends()
            await lose_everything(place, turn, away)
            await place.ends()
            await resynced(proxy)
            again = await place.ends()
            assert node.trained == dict.fromkeys(ORDERS, 1), "one paid training each"
            for name in ORDERS:
                was, now = finished[name], again[name]
                assert now["metadata"]["uid"] != was["metadata"]["uid"]
                assert now["spec"] == was["spec"]
                assert now["status"]["results"] == was["status"]["results"] | {"adopted": True}
            made = [write for write in proxy.writes if write.startswith("POST") and write.endswith("/jobs")]
            assert len(made) == 2 * len(ORDERS), "a lost Job of a finished run is not made again"
            assert not touched(proxy)
            await cluster.merge(f"{JOBS.format(namespace)}/run-0", {"spec": {"rerun": 1}})
            await paid_again(place)
        finally:
            operator.kill()
            await operator.ended()


async def lose_everything(place: Place, turn: int, away: bool) -> None:
    """Each job loses one thing after the other in its order, and before this turn the operator is lost.

    Args:
        away: it comes back when all is lost.
    """
    for step in range(len(LOSSES) + 1):
        if step == turn:
            await place.lose_operator()
            if not away:
                await place.operator.start()
        if step < len(LOSSES):
            for what in LOSSES:
                await place.lose(what, [name for name, order in ORDERS.items() if order[step] == what])
        if step < turn or not away:
            await place.ends()
    if away:
        await place.operator.start()


async def paid_again(place: Place) -> None:
    """A rerun trains, so what is counted here can be more than one."""

    async def twice() -> bool:
        job = await place.life.job("run-0")
        return bool(job["status"]["rerun"] == 1 and job["status"]["state"] == "Succeeded")

    await until("the rerun has succeeded", twice)
    assert place.node.trained == dict.fromkeys(ORDERS, 1) | {"run-0": 2}
