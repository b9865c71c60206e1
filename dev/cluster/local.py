"""The cluster from plain processes on this machine: order of start and stop. Called by __main__.py."""

from __future__ import annotations

import os
import shutil

from dev.cluster import control_plane, images, node, processes
from dev.cluster.state import Cluster, ClusterError, step
from dev.cluster.tools import CONTROL_PLANE_PACKAGES, NODE_PACKAGES, kubernetes, need_packages


def _pause_ref() -> str:
    return images.plan(images.recipe_of("pause"), "pause", images.local_base).ref


def start_control_plane(cluster: Cluster) -> None:
    """Only the control plane, on 127.0.0.1: needs no root."""
    need_packages(CONTROL_PLANE_PACKAGES)
    control_plane.start(cluster, kubernetes(), control_plane.LOOPBACK)


def start(cluster: Cluster) -> None:
    """Control plane and node; what runs already is left running."""
    if os.geteuid() != 0:
        raise ClusterError(
            "up: a node needs root (containers, mounts, network); run as root, or with --control-plane-only, "
            "or use a cluster that is there: --provider kubeconfig"
        )
    need_packages(NODE_PACKAGES)
    programs = kubernetes()
    node.ensure_address()
    control_plane.start(cluster, programs, control_plane.NODE_ADDRESS)
    with step("containerd"):
        node.start_containerd(cluster, _pause_ref())
    images.ensure_local(cluster, "pause")
    with step("kubelet and kube-proxy; node Ready"):
        node.start_kubelet(cluster, programs)
        node.start_proxy(cluster, programs)
        node.wait_ready(cluster, programs)


def stop(cluster: Cluster, purge: bool) -> None:
    if has_node(cluster):
        with step("node"):
            node.stop(cluster, kubernetes(), _pause_ref())
    with step("control plane"):
        control_plane.stop(cluster)
    if purge and cluster.root.exists():
        node.remove_log_links(cluster)
        shutil.rmtree(cluster.root)


def has_node(cluster: Cluster) -> bool:
    """Whether the cluster was ever started with its node."""
    return (cluster.root / "kubelet.json").exists()


def need_containerd(cluster: Cluster) -> None:
    """Raises: ClusterError if there is no running node to load images into."""
    if processes.running_pid(cluster, "containerd") is None:
        raise ClusterError(f"cluster {cluster.name}: its containerd does not run; expected `up` with a node before")


def component_names(cluster: Cluster) -> tuple[str, ...]:
    return control_plane.COMPONENTS + (node.COMPONENTS if has_node(cluster) else ())


def table(cluster: Cluster) -> list[tuple[str, int | None, str]]:
    """(component, pid if it runs, log file) for each that should run."""
    names = component_names(cluster)
    return [(name, processes.running_pid(cluster, name), str(processes.log_path(cluster, name))) for name in names]
