"""A second apply of the same manifest changes nothing, whoever applies it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.cluster_access import REPOSITORY, apply, connect, kubectl
from tests.integration.life import claim, xray_job
from tests.integration.node import Node
from tests.integration.stage import operating, resynced

pytestmark = pytest.mark.integration
EXAMPLES = REPOSITORY / "examples"
WAYS = {
    "kubectl": (),
    "flux": ("--server-side", "--field-manager=kustomize-controller"),
    "argocd": ("--server-side", "--field-manager=argocd-controller", "--force-conflicts"),
}
"""How each applies: on its own side, or on the server's under its own name."""


def objects(kubeconfig: Path, namespace: str) -> dict[str, Any]:
    """All jobs and budgets, to the last field: also resourceVersion, and who has written what and when."""
    shown = kubectl(kubeconfig, "get", "xtj,xtb", "-n", namespace, "-o", "json", "--show-managed-fields")
    assert shown.returncode == 0, shown.stderr
    return {item["metadata"]["name"]: item for item in json.loads(shown.stdout)["items"]}


def as_read(jobs: dict[str, Any]) -> dict[str, Any]:
    """Without resourceVersion: where no operator has written a status yet, the next write stores the default of one."""
    return {name: job | {"metadata": job["metadata"] | {"resourceVersion": ""}} for name, job in jobs.items()}


@pytest.mark.parametrize("way", WAYS)
def test_a_second_apply_of_the_examples_changes_nothing(kubeconfig: Path, namespace: str, way: str) -> None:
    manifest = ("-n", namespace, "-f", str(EXAMPLES))
    assert kubectl(kubeconfig, "apply", *WAYS[way], *manifest).returncode == 0
    first = objects(kubeconfig, namespace)
    assert len(first) == len(list(EXAMPLES.glob("*.yaml")))
    again = kubectl(kubeconfig, "apply", *WAYS[way], *manifest)
    assert again.returncode == 0, again.stderr
    assert as_read(objects(kubeconfig, namespace)) == as_read(first)
    differs = kubectl(kubeconfig, "diff", *WAYS[way], *manifest)
    assert (differs.returncode, differs.stdout) == (0, ""), differs.stderr


async def test_a_second_apply_of_a_finished_run_changes_nothing_and_trains_nothing(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    cluster = await connect(kubeconfig)
    node = Node(cluster, namespace, tmp_path / "out")
    manifests = {name: yaml.safe_dump(xray_job(namespace, name)) for name in WAYS}

    def apply_all() -> None:
        for name, way in WAYS.items():
            applied = kubectl(kubeconfig, "apply", *way, "-f", "-", stdin=manifests[name])
            assert applied.returncode == 0, applied.stderr

    async with operating(kubeconfig, namespace, tmp_path) as stage, node.runs():
        await asyncio.to_thread(apply_all)
        for name in WAYS:
            await stage.life.reached("Succeeded", name)
        first = await asyncio.to_thread(objects, kubeconfig, namespace)
        await asyncio.to_thread(apply_all)
        await resynced(stage.proxy)
        assert await asyncio.to_thread(objects, kubeconfig, namespace) == first
        assert node.trained == dict.fromkeys(WAYS, 1)
    await cluster.close()
