"""A run whose operator is disturbed: kept running as kubelet would, and judged by what is left at its end."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.integration.cluster_access import apply, connect, until
from tests.integration.life import Life, claim, flavor, xray_job
from tests.integration.operator_process import OperatorProcess
from tests.integration.outcome import describe_end
from tests.integration.proxy import Proxy, start_proxy

IP: Final = "127.80.0.1"
HEALTH_PORT: Final = 18101
METRICS_PORT: Final = 18102

Story = Callable[[Life, dict[str, Any]], Awaitable[dict[str, Any]]]
"""What happens to a created job; returns the job at its end."""

TROUBLE: Final = (
    r"ERROR kopf\._cogs\.clients\.\w+: Request attempt #",
    r"WARNING xray_operator\.workers: (GET|POST|PUT) ",
    r"WARNING xray_operator\.workers: job [-0-9a-f]+: (GET|POST|PUT) .*; again in ",
    r"WARNING xray_operator\.handlers: not started yet: ",
)
"""What an operator says that goes on."""
END: Final = (
    r"ERROR kopf\._core\.reactor\.orchestration: Watcher for .* has failed: ",
    r"ERROR kopf\._core\.reactor\.running: Multidimensional multitasker has failed: ",
    r"ERROR asyncio: Task exception was never retrieved",
    r"ERROR __main__: the operator ends, because a part of it has ended",
)
"""What an operator says that ends."""


@dataclass
class Trial:
    """A run and its operator, which is started again whenever it has ended."""

    life: Life
    proxy: Proxy
    operator: OperatorProcess
    settings: dict[str, Any]
    codes: list[int] = field(default_factory=list)
    """Exit codes of the operators that have ended."""
    _keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Keep an operator running."""
        self._keeper = asyncio.create_task(self._keep_running())

    async def stop(self) -> None:
        """No operator runs after this."""
        if self._keeper:
            self._keeper.cancel()
        self.operator.kill()
        await self.operator.ended()

    async def _keep_running(self) -> None:
        """As kubelet would, without its pauses."""
        while True:
            await self.operator.start(**self.settings)
            self.codes.append(await self.operator.ended())

    async def live(self, story: Story = Life.live_through, runs: int = 1) -> dict[str, Any]:
        """A whole story; returns its end."""
        await story(self.life, await self.life.create(xray_job(self.life.namespace)))
        return await self.end(runs)

    async def end(self, runs: int = 1) -> dict[str, Any]:
        """What is left when nothing more is written, if the operator did nothing twice and said nothing odd."""
        await self.settle()
        made = [write for write in self.proxy.writes if write.startswith("POST") and write.endswith("/jobs")]
        assert len(made) == runs, "each run has one Job, made once"
        assert not self.oddities(), self.log
        assert 0 not in self.codes, self.log
        return await describe_end(self.life)

    async def settle(self) -> None:
        """Until nothing has been written for several resyncs: duplicates would come now."""
        written, listened = -1, 0

        async def quiet() -> bool:
            nonlocal written, listened
            if written != len(self.proxy.writes):
                written, listened = len(self.proxy.writes), self.listened
            return self.listened >= listened + 4

        await until("nothing is written any more", quiet)

    @property
    def listened(self) -> int:
        """How often an operator has asked whether the server is there."""
        return sum(asked.endswith("/xraytrainingjobs?limit=1") for asked in self.proxy.asked)

    @property
    def log(self) -> str:
        return self.operator.log.read_text() if self.operator.log.exists() else ""

    def oddities(self) -> list[str]:
        """Lines of the log that tell of more than the trouble that was made."""
        expected = re.compile("|".join(TROUBLE + END if self.codes else TROUBLE))
        told = [line for line in self.log.splitlines() if " ERROR " in line or " WARNING " in line]
        return [line for line in told if not expected.search(line)]

    async def says(self, words: str) -> None:
        """Until the log has these words."""

        async def said() -> bool:
            return words in self.log

        await until(f"the operator says {words!r}", said)


@contextlib.asynccontextmanager
async def trial(kubeconfig: Path, namespace: str, folder: Path, ip: str = IP, **settings: Any) -> AsyncIterator[Trial]:
    """An operator in the keeping of the test, for one namespace, in which pods have this address."""
    assert apply(kubeconfig, flavor(), claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    cluster = await connect(kubeconfig)
    async with start_proxy(str(kubeconfig)) as proxy:
        operator = OperatorProcess(folder, proxy.url, namespace)
        tried = Trial(Life(cluster, namespace, ip), proxy, operator, settings)
        tried.start()
        try:
            yield tried
        finally:
            await tried.stop()
            await cluster.close()
