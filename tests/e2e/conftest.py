"""The whole stack on a real node, brought up once for all e2e tests; a second run finds it there."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dev.demo.stack import Kube, build_images, install_chart, namespace, remove_volumes, start_cluster

PREFIX = "e2e-"
"""Of the tests' namespaces."""


@pytest.fixture(scope="session")
def stack() -> tuple[Kube, dict[str, str]]:
    """The cluster with this tree's images and chart on it, and the images' references."""
    kube = start_cluster(4)
    images = build_images("operator", "prepare", "torch")
    install_chart(kube, images)
    if kube.find("crd", "ipujobs.graphcore.ai"):
        let_go_of_ipu_jobs(kube)
    for each in kube.kubectl("get", "namespaces", "-o", "name").split():
        if each.startswith(f"namespace/{PREFIX}"):  # of a session that was killed; its runs hold the node
            remove_namespace(kube, each.removeprefix("namespace/"))
    return kube, images


@pytest.fixture(scope="session")
def kube(stack: tuple[Kube, dict[str, str]]) -> Kube:
    return stack[0]


@pytest.fixture(scope="session")
def prepare_image(stack: tuple[Kube, dict[str, str]]) -> str:
    return stack[1]["prepare"]


@contextmanager
def ipu_image_installed(kube: Kube, images: dict[str, str]) -> Iterator[str]:
    """The image for IPUs, which flavors with IPUs train with meanwhile."""
    ipu = build_images("ipu")
    install_chart(kube, images | ipu)
    yield ipu["ipu"]
    install_chart(kube, images)


@pytest.fixture(scope="module")
def module_namespace(kube: Kube) -> Iterator[str]:
    """A namespace of the test module under Pod Security `restricted`, gone after it."""
    name = f"{PREFIX}{uuid.uuid4().hex[:8]}"
    kube.apply(namespace(name))
    yield name
    remove_namespace(kube, name)


def let_go_of_ipu_jobs(kube: Kube) -> None:
    """Of a session that was killed: the stand-in that would let go of them is gone."""
    for each in json.loads(kube.kubectl("get", "ipujobs", "-A", "-o", "json"))["items"]:
        place = (each["metadata"]["name"], "-n", each["metadata"]["namespace"])
        kube.kubectl("delete", "ipujob", *place, "--wait=false")
        kube.kubectl("patch", "ipujob", *place, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')


def remove_namespace(kube: Kube, name: str) -> None:
    kube.kubectl("delete", "namespace", name, "--wait=true", "--timeout=180s")
    remove_volumes(kube, name)
