"""`kubectl xray` as a process, as a user of a kubeconfig runs it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.integration.cluster_access import DEADLINE_SECONDS, REPOSITORY

COMMAND = [sys.executable, "-m", "xray_cli"]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        """The words of each line of the output."""
        return [line.split() for line in self.out.splitlines()]


@dataclass
class Running:
    """A command that goes on."""

    process: asyncio.subprocess.Process
    told: list[str] = field(default_factory=list)
    """Lines of its output so far."""

    async def says(self, words: str) -> str:
        """The next line with these words."""
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_SECONDS):
            while line := (await self.process.stdout.readline()).decode():
                self.told.append(line)
                if words in line:
                    return line
        raise AssertionError(f"{words!r} is not said; said is {self.told}; {await self.ended()}")

    async def ended(self, stdin: str = "") -> Done:
        async with asyncio.timeout(DEADLINE_SECONDS):
            out, err = await self.process.communicate(stdin.encode())
        assert self.process.returncode is not None
        return Done(self.process.returncode, "".join(self.told) + out.decode(), err.decode())

    def interrupt(self) -> None:
        self.process.send_signal(2)


@dataclass(frozen=True)
class CommandLine:
    """Someone with a kubeconfig whose context names a namespace."""

    kubeconfig: Path
    environment: dict[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def running(self, *words: str) -> AsyncIterator[Running]:
        """A command; who leaves the block ends it: what outlives the event loop fails other tests."""
        environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "PYTHONPATH")}
        environment |= {"KUBECONFIG": str(self.kubeconfig), "PYTHONPATH": str(REPOSITORY / "operator")}
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *COMMAND, *words, stdin=pipe, stdout=pipe, stderr=pipe, env=environment | self.environment
        )
        try:
            yield Running(process)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    async def __call__(self, *words: str, stdin: str = "") -> Done:
        async with self.running(*words) as running:
            return await running.ended(stdin)


def write_kubeconfig(path: Path, cluster: dict[str, Any], user: dict[str, Any], namespace: str) -> Path:
    """A kubeconfig with one context, `test`."""
    document: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "current-context": "test"}
    document["clusters"] = [{"name": "test", "cluster": cluster}]
    document["users"] = [{"name": "test", "user": user}]
    document["contexts"] = [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}]
    path.write_text(yaml.safe_dump(document))
    return path


def parts_of(kubeconfig: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Cluster and user of a kubeconfig that has one of each."""
    document = yaml.safe_load(kubeconfig.read_text())
    return document["clusters"][0]["cluster"], document["users"][0]["user"]
