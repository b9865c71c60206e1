"""The real API server as the tests see it: plain dictionaries in and out, and waits with a deadline."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import yaml
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration

from dev.cluster.tools import kubernetes
from xray_operator.cluster.client import Cluster

REPOSITORY = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 120.0

T = TypeVar("T")


CLUSTER = (sys.executable, str(REPOSITORY / "dev" / "cluster"), "--name", "integration")


def start_control_plane() -> Path:
    """Bring up the control plane of dev/cluster, if it is not; returns its kubeconfig's path."""
    done = subprocess.run([*CLUSTER, "up", "--control-plane-only"], check=True, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip().splitlines()[-1])


def stop_control_plane() -> None:
    """Its data stay."""
    subprocess.run([*CLUSTER, "down"], check=True)


def kubectl(kubeconfig: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run kubectl; the caller judges the exit code."""
    command = [str(kubernetes() / "kubectl"), "--kubeconfig", str(kubeconfig), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


def apply(kubeconfig: Path, *objects: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """kubectl apply."""
    return kubectl(kubeconfig, "apply", "-f", "-", stdin=yaml.safe_dump_all(objects))


def wait_until_served(kubeconfig: Path, group: str, *kinds: str) -> None:
    """Until the API server serves these custom resources: before that it says of their CRDs that they are established, its
    discovery doesn't tell of them yet, and their storage has not one answer. `kubectl wait` fails on a CRD that is so
    young that it has no conditions.
    """
    end = time.monotonic() + DEADLINE_SECONDS
    while not _are_served(kubeconfig, group, kinds):
        assert time.monotonic() < end, f"{', '.join(kinds)} of {group} are not served"
        time.sleep(0.1)


def _are_served(kubeconfig: Path, group: str, kinds: Collection[str]) -> bool:
    told = kubectl(kubeconfig, "api-resources", f"--api-group={group}", "--cached=false", "-o", "name").stdout.split()
    names = {f"{kind}.{group}" for kind in kinds}
    return names <= set(told) and all(kubectl(kubeconfig, "get", each, "-A").returncode == 0 for each in names)


async def connect(kubeconfig: Path) -> Cluster:
    """The operator's own client, with an administrator's rights."""
    configuration = Configuration()
    await kube_config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    return Cluster(ApiClient(configuration), 30)


async def until(what: str, ask: Callable[[], Awaitable[T | None]], seconds: float = DEADLINE_SECONDS) -> T:
    """The first answer that is true; fails with `what` at the deadline."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = await ask()
        if answer:
            return answer
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")
