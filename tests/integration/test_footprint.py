"""What the operator leaves on objects: its status, and nothing else."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster_access import apply, kubectl, until
from tests.integration.life import xray_job
from tests.integration.trial import trial

pytestmark = pytest.mark.integration
CHILDREN = ("/apis/batch/v1/namespaces/{}/jobs", "/api/v1/namespaces/{}/configmaps", "/api/v1/namespaces/{}/pods")
MOVING = ("resourceVersion", "managedFields")
"""What every write to an object changes."""
MOST_MEGABYTES = 120


def without(metadata: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if key not in keys}


def writers(raw: dict[str, Any]) -> set[tuple[str, str]]:
    """Who wrote to which part of the object."""
    return {(entry["manager"], entry.get("subresource", "")) for entry in raw["metadata"]["managedFields"]}


async def test_a_whole_run_writes_status_and_no_annotation_no_finalizer_and_no_spec(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    async with trial(kubeconfig, namespace, tmp_path) as tried:
        assert apply(kubeconfig, xray_job(namespace)).returncode == 0
        before = copy.deepcopy(await tried.life.job())
        after = await tried.life.live_through(before)
        assert after["spec"] == before["spec"]
        assert without(after["metadata"], *MOVING) == without(before["metadata"], *MOVING)
        assert writers(after) == {("kubectl-client-side-apply", ""), ("xray-operator", "status")}
        children = [raw for path in CHILDREN for raw in await tried.life.listed(path)]
        assert len(children) == 3
        for raw in [after, *children]:
            assert "finalizers" not in raw["metadata"]
            assert "kopf" not in json.dumps(raw)
            assert ("xray-operator", "") not in writers(raw) or raw in children
        assert tried.operator.megabytes() <= MOST_MEGABYTES
        methods = {write.split()[0] for write in tried.proxy.writes}
        assert methods == {"POST", "PUT"}, "children are created and status is written; nothing is patched or deleted"


async def test_without_the_operator_a_deleted_resource_is_gone_at_once_and_its_children_are_collected(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    async with trial(kubeconfig, namespace, tmp_path) as tried:
        await tried.life.create(xray_job(namespace))
        await tried.life.reached("Queued")
        await tried.stop()
        deleted = kubectl(kubeconfig, "delete", "xtj", "cxr", "-n", namespace, "--timeout=20s")
        assert deleted.returncode == 0, deleted.stderr

        async def collected() -> bool:
            return not any([await tried.life.listed(path) for path in CHILDREN])

        await until("children are gone", collected)
