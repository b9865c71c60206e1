"""A namespace with an operator of its own, for tests that play kubelet and trainer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.cluster_access import apply, connect, until
from tests.integration.life import Life, flavor
from tests.integration.operator_process import OperatorProcess
from tests.integration.proxy import Proxy, start_proxy

IP = "127.78.0.1"
JOBS = "/apis/batch/v1/namespaces/{}/jobs"


@dataclass(frozen=True)
class Stage:
    """What happens in the namespace, and what its operator has written."""

    life: Life
    proxy: Proxy

    @property
    def namespace(self) -> str:
        return self.life.namespace

    async def jobs(self) -> list[str]:
        return [raw["metadata"]["name"] for raw in await self.life.listed(JOBS)]


@contextlib.asynccontextmanager
async def operating(kubeconfig: Path, namespace: str, folder: Path, **settings: Any) -> AsyncIterator[Stage]:
    """An operator that serves this namespace until the end of the block; the usual flavor is there."""
    assert apply(kubeconfig, flavor()).returncode == 0
    async with contextlib.AsyncExitStack() as stack:
        cluster = await connect(kubeconfig)
        stack.push_async_callback(cluster.close)
        proxy = await stack.enter_async_context(start_proxy(str(kubeconfig)))
        operator = OperatorProcess(folder, proxy.url, namespace)
        await operator.start(**settings)
        stack.push_async_callback(operator.ended)
        stack.callback(operator.kill)
        yield Stage(Life(cluster, namespace, IP), proxy)


async def resynced(proxy: Proxy) -> None:
    """Until the operator behind it has looked at everything again, twice."""
    before = len(proxy.asked)

    async def twice() -> bool:
        return sum(line.endswith("/xraytrainingjobs?limit=1") for line in proxy.asked[before:]) > 2

    await until("two resyncs", twice)
