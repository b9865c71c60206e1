"""The operator as a process of its own, which can be killed and started again."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.cluster_access import REPOSITORY

IMAGES = {"prepare": "registry.example/prepare:1", "torch": "registry.example/torch:1"}


@dataclass
class OperatorProcess:
    """Runs from the source tree; its log stays in `folder`."""

    folder: Path
    server: str | Path
    """URL of a proxy, or a kubeconfig of the server itself."""
    namespace: str
    process: asyncio.subprocess.Process | None = None

    async def start(self, **settings: Any) -> None:
        config = {
            "images": IMAGES,
            "namespaces": [self.namespace],
            "resyncSeconds": 0.5,
            "idleResyncs": 2,
            "metricsPort": 0,
            "healthPort": 0,
        }
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(config | settings))
        environment = os.environ | {
            "KUBECONFIG": str(self._kubeconfig()),
            "PYTHONPATH": str(REPOSITORY / "operator"),
        }
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "xray_operator", "--config", str(path), stderr=log, env=environment
            )

    def kill(self) -> None:
        """SIGKILL: no code of the operator runs after this."""
        if self.process and self.process.returncode is None:
            self.process.kill()

    async def ended(self) -> int:
        """The exit code, when there is one."""
        assert self.process is not None
        return await self.process.wait()

    def megabytes(self, line: str = "VmRSS") -> float:
        """A line of the process's status, in 10^6 bytes: by default its resident memory."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        kibibytes = next(row for row in status if row.startswith(f"{line}:")).split()[1]
        return round(int(kibibytes) * 1024 / 1e6, 1)

    @property
    def log(self) -> Path:
        return self.folder / "operator.log"

    def _kubeconfig(self) -> Path:
        if isinstance(self.server, Path):
            return self.server
        path = self.folder / "kubeconfig"
        cluster = {"name": "proxy", "cluster": {"server": self.server}}
        context = {"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}
        user = {"name": "proxy", "user": {}}
        document = {"apiVersion": "v1", "kind": "Config", "current-context": "proxy"}
        document |= {"clusters": [cluster], "contexts": [context], "users": [user]}
        path.write_text(yaml.safe_dump(document))
        return path


async def answers(session: aiohttp.ClientSession, url: str, status: int) -> bool:
    """Whether the operator answers there, with this status; not yet, or no longer, is no."""
    try:
        async with session.get(url) as answer:
            return answer.status == status
    except aiohttp.ClientError:
        return False


async def total(session: aiohttp.ClientSession, port: int, metric: str) -> float | None:
    """A metric of the operator that runs now, over all labels; None while there is no operator."""
    try:
        async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
    except aiohttp.ClientError:
        return None
    return sum(sample.value for sample in families[metric].samples) if metric in families else 0.0
