"""The cluster as a container: kind, where Docker's engine answers. Called by __main__.py."""

from __future__ import annotations

import subprocess

from dev.cluster.state import Cluster, step
from dev.cluster.tools import has, kind, run


def docker_answers() -> bool:
    """Whether Docker's engine answers; its client alone is no engine."""
    if not has("docker"):
        return False
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            timeout=15,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _kind_name(cluster: Cluster) -> str:
    return f"xray-{cluster.name}"


def exists(cluster: Cluster) -> bool:
    return _kind_name(cluster) in run(kind(), "get", "clusters").split()


def start(cluster: Cluster) -> None:
    cluster.root.mkdir(parents=True, exist_ok=True)
    if not exists(cluster):
        with step("kind create cluster"):
            run(
                kind(),
                "create",
                "cluster",
                "--name",
                _kind_name(cluster),
                "--kubeconfig",
                cluster.kubeconfig,
                "--wait",
                "180s",
            )
        return
    with step("kind containers"):
        nodes = run(kind(), "get", "nodes", "--name", _kind_name(cluster)).split()
        run("docker", "start", *nodes)
        run(kind(), "export", "kubeconfig", "--name", _kind_name(cluster), "--kubeconfig", cluster.kubeconfig)


def stop(cluster: Cluster, purge: bool) -> None:
    if not exists(cluster):
        return
    if purge:
        run(kind(), "delete", "cluster", "--name", _kind_name(cluster), "--kubeconfig", cluster.kubeconfig)
    else:
        run("docker", "stop", *run(kind(), "get", "nodes", "--name", _kind_name(cluster)).split())


def load(cluster: Cluster, ref: str) -> None:
    with step(f"kind load {ref}"):
        run(kind(), "load", "docker-image", ref, "--name", _kind_name(cluster))


def load_archive(cluster: Cluster, archive: str) -> None:
    with step(f"kind load {archive}"):
        run(kind(), "load", "image-archive", archive, "--name", _kind_name(cluster))
