"""Stand-ins for IPUs on the nodes, through the kubelet's device-plugin API. Called by `up --ipus`."""

from __future__ import annotations

import json
import string
import time

from dev.cluster.state import REPOSITORY, ClusterError, step
from dev.cluster.tools import kubectl

RESOURCE = "graphcore.ai/ipu"
NAMESPACE = "xray-dev-device-plugin"
MANIFEST = REPOSITORY / "dev" / "device-plugin" / "daemonset.yaml"


def manifest(image: str, count: int) -> str:
    return string.Template(MANIFEST.read_text()).substitute(IMAGE=image, COUNT=count)


def allocatable(kubeconfig: str) -> dict[str, int]:
    """How many stand-ins (or real IPUs) each node offers."""
    nodes = json.loads(kubectl(kubeconfig, "get", "nodes", "-o", "json"))["items"]
    return {item["metadata"]["name"]: int(item["status"].get("allocatable", {}).get(RESOURCE, 0)) for item in nodes}


def _refuse_real_ones(kubeconfig: str) -> None:
    """Stand-ins are for nodes without IPUs: a second plugin would take the real ones' name."""
    ours = kubectl(kubeconfig, "get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name").strip()
    real = {node: count for node, count in allocatable(kubeconfig).items() if count}
    if real and not ours:
        raise ClusterError(f"nodes offer {RESOURCE} already ({real}); stand-ins are for nodes that offer none")


def offer(kubeconfig: str, image: str, count: int, timeout_seconds: float = 120.0) -> None:
    """Have every node offer exactly `count` of the resource; 0 takes the plugin away."""
    with step(f"{RESOURCE}: {count}"):
        if count:
            _refuse_real_ones(kubeconfig)
            kubectl(kubeconfig, "apply", "-f", "-", stdin=manifest(image, count))
            kubectl(kubeconfig, "rollout", "status", "daemonset/standin-ipus", "-n", NAMESPACE, "--timeout=120s")
        else:
            kubectl(kubeconfig, "delete", "namespace", NAMESPACE, "--ignore-not-found")
        deadline = time.monotonic() + timeout_seconds
        while set(allocatable(kubeconfig).values()) != {count}:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"nodes offer {allocatable(kubeconfig)} of {RESOURCE} after {timeout_seconds:.0f} s, "
                    f"expected {count} each; see kubectl logs -n {NAMESPACE} daemonset/standin-ipus"
                )
            time.sleep(0.2)
