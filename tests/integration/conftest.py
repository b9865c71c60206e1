"""A real control plane, brought up once, and a namespace per test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.cluster_access import (
    REPOSITORY,
    apply,
    connect,
    kubectl,
    start_control_plane,
    stop_control_plane,
    wait_until_served,
)
from tests.integration.kubelet import NODE
from xray_operator.cluster.client import Cluster

PREFIX = "test-"
"""Of the tests' namespaces."""


@pytest.fixture(scope="session")
def kubeconfig() -> Path:
    """The control plane with our CRDs and one node on paper, on which nothing is scheduled by itself."""
    path = start_control_plane()
    for each in kubectl(path, "get", "namespaces", "-o", "name").stdout.split():
        if each.startswith(f"namespace/{PREFIX}"):  # of a session that was killed
            remove_left(path, each.removeprefix("namespace/"))
    install_crds(path)
    make_node(path)
    return path


def wait_for_crds(kubeconfig: Path) -> None:
    """Until the API server serves our kinds."""
    wait_until_served(kubeconfig, "xray.training", "xraytrainingjobs", "acceleratorflavors", "trainingbudgets")


@contextmanager
def benchmarked() -> Iterator[tuple[Path, str]]:
    """The control plane with a namespace, for a benchmark. It is down afterwards: idling it would slow the next benchmark."""
    kubeconfig, namespace = start_control_plane(), f"bench-{uuid.uuid4().hex[:8]}"
    try:
        install_crds(kubeconfig)
        make_node(kubeconfig)
        make_namespace(kubeconfig, namespace)
        yield kubeconfig, namespace
        remove_namespace(kubeconfig, namespace)
    finally:
        stop_control_plane()


@pytest_asyncio.fixture
async def cluster(kubeconfig: Path) -> AsyncIterator[Cluster]:
    client = await connect(kubeconfig)
    yield client
    await client.close()


@pytest.fixture
def namespace(kubeconfig: Path) -> Iterator[str]:
    """A namespace of the test's own; it goes in the background."""
    name = f"{PREFIX}{uuid.uuid4().hex[:8]}"
    make_namespace(kubeconfig, name)
    yield name
    remove_namespace(kubeconfig, name)


def install_crds(kubeconfig: Path) -> None:
    """Returns when the API server serves both kinds."""
    applied = kubectl(kubeconfig, "apply", "-f", str(REPOSITORY / "crds"))
    assert applied.returncode == 0, applied.stderr
    wait_for_crds(kubeconfig)


def make_node(kubeconfig: Path) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "spec": {"unschedulable": True}}
    applied = apply(kubeconfig, node)
    assert applied.returncode == 0, applied.stderr


def make_namespace(kubeconfig: Path, name: str, labels: dict[str, str] | None = None) -> None:
    metadata = {"name": name, "labels": labels or {}}
    made = apply(kubeconfig, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    assert made.returncode == 0, made.stderr


def remove_left(kubeconfig: Path, namespace: str) -> None:
    """A namespace, and jobs that somebody is to let go of who is gone."""
    for job in kubectl(kubeconfig, "get", "xraytrainingjobs", "-n", namespace, "-o", "name").stdout.split():
        kubectl(kubeconfig, "patch", job, "-n", namespace, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    remove_namespace(kubeconfig, namespace)


def remove_namespace(kubeconfig: Path, name: str) -> None:
    # no kubelet lets its pods go
    kubectl(kubeconfig, "delete", "xraytrainingjobs,jobs", "--all", "--namespace", name, "--wait=false")
    kubectl(kubeconfig, "delete", "pods", "--all", "--namespace", name, "--force", "--grace-period=0", "--wait=false")
    kubectl(kubeconfig, "delete", "namespace", name, "--wait=false")
