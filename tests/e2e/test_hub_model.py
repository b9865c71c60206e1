"""A model from a hub, which runs on this machine: fetched before accelerators are held, by its commit."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import ViTConfig, ViTForImageClassification

from dev.demo.stack import Kube, Manifest, claim, install_chart
from tests.e2e.places import CLAIM, tiny_run
from tests.e2e.waiting import wait_for_end
from tests.hub_server import Hub, hub_server

pytestmark = pytest.mark.e2e

NAME = "example/vit"
FLAVOR = "demo-vpod4"


def address_for(kube: Kube) -> str:
    """This machine's address as the node, and so its pods, can reach it. Nothing is sent to find it out."""
    node = json.loads(kube.kubectl("get", "nodes", "-o", "json"))["items"][0]
    (address,) = [each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return str(probe.getsockname()[0])


@pytest.fixture
def hub(stack: tuple[Kube, dict[str, str]], tmp_path: Path) -> Iterator[Hub]:
    """With a tiny model; the chart's release knows its address as long as the test lasts."""
    kube, images = stack
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128}
    ViTForImageClassification(ViTConfig(**size, patch_size=16, image_size=64)).save_pretrained(tmp_path)
    with hub_server(address_for(kube)) as server:
        server.push_folder(NAME, tmp_path)
        install_chart(kube, images, pod={"huggingFaceEndpoint": server.endpoint})
        yield server
    install_chart(kube, images)


def run(kube: Kube, namespace: str, name: str, **model: str) -> Manifest:
    """The status at the end of a run on a flavor with accelerators."""
    job = tiny_run(namespace, name, FLAVOR, {"synthetic": {"images": 60, "size": 256}})
    job["spec"]["model"] = {"name": NAME, **model}
    kube.apply(job)
    return dict(wait_for_end(kube, name, namespace)["status"])


def test_a_hub_model_is_fetched_by_a_job_of_its_own_and_its_commit_needs_no_hub(
    kube: Kube, module_namespace: str, hub: Hub
) -> None:
    claim(kube, module_namespace, CLAIM)
    status = run(kube, module_namespace, "by-branch")
    assert status["state"] == "Succeeded", status["conditions"]
    commit = hub.refs[NAME, "main"]
    assert status["model"]["commit"] == commit
    (fetched,) = [
        j
        for j in kube.items("jobs", module_namespace)
        if j["metadata"]["name"] == status["modelPreparation"]["jobName"]
    ]
    assert status["run"]["startedAt"] <= fetched["status"]["completionTime"] <= status["times"]["queued"]["finishedAt"]
    (pod,) = kube.items("pods", module_namespace, "xray.training/flavor=" + FLAVOR)
    assert "HF_ENDPOINT" not in json.dumps(pod), "the pod that holds accelerators knows no hub"
    assert sorted(hub.contents_asked()) == ["config.json", "model.safetensors"]
    hub.status = 503
    status = run(kube, module_namespace, "by-commit", revision=commit)
    assert status["state"] == "Succeeded", status["conditions"]
    assert status["model"] == {"name": NAME, "revision": commit, "commit": commit, "bytes": status["model"]["bytes"]}
