"""Generated X-rays on a flavor without accelerators and without a price, and data that is damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dev.demo.stack import Kube, Manifest, claim, pod_on_claim, restricted_pod, run_pod_job
from tests.e2e.waiting import wait_for_end

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("flavor")]

FLAVOR = "e2e-cpu"
IMAGES = 60


@dataclass(frozen=True)
class Place:
    """A namespace with one claim: a generated set in `good`, a damaged archive in `damaged`."""

    kube: Kube
    namespace: str

    def run(self, name: str, path: str) -> Manifest:
        """Train on a folder of the claim, to the end."""
        spec = {
            "flavor": FLAVOR,
            "model": {"config": {"hiddenSize": 32, "layers": 1, "heads": 2, "patchSize": 16}},
            "dataset": {"source": {"pvc": {"claimName": "work", "path": path}}, "imageSize": 64},
            "training": {"epochs": 1, "globalBatchSize": 16},
            "output": {"claimName": "work"},
        }
        metadata = {"name": name, "namespace": self.namespace}
        job = {"apiVersion": "xray.training/v1alpha1", "kind": "XRayTrainingJob", "metadata": metadata, "spec": spec}
        self.kube.apply(job)
        return wait_for_end(self.kube, name, self.namespace)


@pytest.fixture(scope="module")
def flavor(kube: Kube) -> Iterator[None]:
    spec = {"backend": "cpu", "host": {"cpu": "500m", "memory": "4Gi"}}
    kube.apply(
        {
            "apiVersion": "xray.training/v1alpha1",
            "kind": "AcceleratorFlavor",
            "metadata": {"name": FLAVOR},
            "spec": spec,
        }
    )
    yield
    kube.kubectl("delete", "acceleratorflavor", FLAVOR)


@pytest.fixture(scope="module")
def place(kube: Kube, module_namespace: str, prepare_image: str, tmp_path_factory: pytest.TempPathFactory) -> Place:
    claim(kube, module_namespace, "work")
    arguments = ["synthesize", "--out", "/data/good", "--images", str(IMAGES), "--seed", "3", "--size", "256"]
    run_pod_job(kube, module_namespace, "generate", restricted_pod(prepare_image, arguments, {"work": "/data"}), 300)
    damaged = tmp_path_factory.mktemp("data") / "damaged"
    with pod_on_claim(kube, module_namespace, "work", prepare_image) as root:
        kube.kubectl("cp", f"{root}/good", str(damaged))
        cut_in_half(damaged / "images_001.tar.gz")
        kube.kubectl("cp", str(damaged), f"{root}/damaged")
    return Place(kube, module_namespace)


def cut_in_half(archive: Path) -> None:
    """What a broken download leaves."""
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])


def test_run_without_accelerators_or_price(place: Place) -> None:
    status = place.run("unpriced", "good")["status"]
    assert status["state"] == "Succeeded", status["conditions"]
    assert status["data"]["images"] == IMAGES
    assert status["cost"]["display"] == "unpriced"
    assert status["cost"]["priced"] is False
    assert "total" not in status["cost"]
    assert status["cost"]["heldSeconds"] > 0
    pods = place.kube.items("pods", place.namespace, "xray.training/flavor=" + FLAVOR)
    assert "graphcore.ai/ipu" not in json.dumps([pod["spec"] for pod in pods])


def test_damaged_archive_ends_the_run_once_and_says_where(place: Place) -> None:
    status = place.run("damaged", "damaged")["status"]
    conditions = {each["type"]: each for each in status["conditions"]}
    assert status["state"] == "Failed"
    assert conditions["Succeeded"]["reason"] == "DataCorrupt"
    assert "images_001.tar.gz" in conditions["Succeeded"]["message"]
    assert conditions["Stalled"]["status"] == "True"
    assert conditions["Ready"]["status"] == "False"
    assert [each["exitCode"] for each in status["attempts"]] == [11], "data that is corrupt is not tried again"
