"""Nodes fall silent under runs that train. The real controllers mark, evict and collect; only the kubelets are played."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.integration.cluster_access import apply, kubectl, until
from tests.integration.gitops import judge
from tests.integration.kubelet import NODE, Kubelet
from tests.integration.life import claim, conditions, example, xray_job
from tests.integration.stage import Stage, operating

pytestmark = pytest.mark.integration
PODS = "/api/v1/namespaces/{}/pods"
DELETED, TAINTED = "deleted", "tainted"
"""The runs, by what becomes of their nodes."""
SILENCE_SECONDS = 120
"""The node controller gives a node 50 s, by Kubernetes' default."""
RELEASE_SECONDS = 180
"""The pod collector looks every 20 s, and gives a node that is gone 40 s to come back."""


@pytest.fixture
def nodes(kubeconfig: Path) -> Iterator[dict[str, str]]:
    """A node for each run; it has said once that it is ready, and will never say anything again."""
    found = {run: f"{run}-{uuid.uuid4().hex[:6]}" for run in (DELETED, TAINTED)}
    for name in found.values():
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"unschedulable": True}}
        assert apply(kubeconfig, node).returncode == 0
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", **times}
        body = json.dumps({"status": {"conditions": [ready]}})
        patched = kubectl(kubeconfig, "patch", "node", name, "--subresource=status", "--type=merge", "-p", body)
        assert patched.returncode == 0, patched.stderr
    yield found
    kubectl(kubeconfig, "delete", "node", *found.values(), "--ignore-not-found")


async def trains(stage: Stage, run: str, node: str, seconds: int) -> Kubelet:
    """The next pod without a node gets this one, and trains there."""
    begin = datetime.fromisoformat((await stage.life.job(run))["metadata"]["creationTimestamp"])
    kubelet = Kubelet(stage.life.cluster, stage.namespace, begin, stage.life.ip, node)
    await kubelet.bind(seconds + 5)
    await kubelet.prepare_starts(seconds + 6)
    await kubelet.prepare_ends(seconds + 20, 0, example("prepare-result.json"))
    await kubelet.train_starts(seconds + 21)
    if node != NODE:
        await kubelet.tells_ready(seconds + 21)
    await stage.life.reached("Training", run)
    return kubelet


async def node_lost(stage: Stage, run: str, node: str) -> None:
    """Until the run says so, in every place where people look."""
    advice = f"kubectl delete node {node}, or kubectl taint nodes {node} "
    held = conditions(await stage.life.says("Running", "NodeLost", advice, run, SILENCE_SECONDS))
    statuses = {kind: held[kind][0] for kind in ("Running", "Ready", "Reconciling", "Stalled")}
    assert statuses == {"Running": "Unknown", "Ready": "Unknown", "Reconciling": "True", "Stalled": "False"}
    (verdict,) = judge([await stage.life.job(run)])
    assert (verdict.kstatus, verdict.flux, verdict.argo) == ("InProgress", "InProgress", "Progressing")


async def let_go(stage: Stage, run: str, first: str) -> None:
    """Until another pod of the run is there; never before the cluster has let go of the first."""

    async def another() -> bool:
        pods = [
            raw for raw in await stage.life.listed(PODS) if raw["metadata"]["labels"]["xray.training/job-name"] == run
        ]
        phases = {raw["metadata"]["name"]: raw["status"]["phase"] for raw in pods}
        assert len(phases) < 2 or phases.get(first) in (None, "Failed"), f"two may run at once: {phases}"
        return set(phases) - {first} != set()

    await until(f"another pod of {run}", another, RELEASE_SECONDS)


async def test_a_run_on_a_lost_node_holds_until_the_node_is_deleted_or_out_of_service(
    kubeconfig: Path, namespace: str, nodes: dict[str, str], tmp_path: Path
) -> None:
    assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    async with operating(kubeconfig, namespace, tmp_path) as stage:
        first = {}
        for run, node in nodes.items():
            await stage.life.create(xray_job(namespace, run))
            first[run] = (await trains(stage, run, node, 0)).pod
        for run, node in nodes.items():
            await node_lost(stage, run, node)
        pods = await stage.life.listed(PODS)
        assert {raw["metadata"]["name"] for raw in pods} == set(first.values()), "no other pod was started"
        assert not [raw for raw in pods if "deletionTimestamp" in raw["metadata"]], "nor was one asked to end"

        out_of_service = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
        assert kubectl(kubeconfig, "delete", "node", nodes[DELETED]).returncode == 0
        assert kubectl(kubeconfig, "taint", "nodes", nodes[TAINTED], out_of_service).returncode == 0
        for run in (TAINTED, DELETED):  # the sooner first: whichever pod waits for a node gets one
            await let_go(stage, run, first[run])
            kubelet = await trains(stage, run, NODE, 400)
            await kubelet.train_ends(500, 0, example("result.json") | {"phases": []})
            status = (await stage.life.reached("Succeeded", run))["status"]
            assert [row.get("reason") for row in status["attempts"]] == ["NodeLost", None]
            held = sum(
                row[f"{phase}Seconds"] for row in status["attempts"] for phase in ("idle", "preparing", "training")
            )
            assert status["cost"]["heldSeconds"] == held
            uid = (await stage.life.job(run))["metadata"]["uid"]
            warnings = [event["reason"] for event in await stage.life.events(uid) if event["type"] == "Warning"]
            assert sorted(set(warnings)) == ["AttemptFailed", "FindingsAbsent", "NodeLost"]
        acts = [write.split()[0] for write in stage.proxy.writes if "/batch/" in write]
        assert acts == ["POST", "POST"], "the operator made each Job once and touched neither again"
