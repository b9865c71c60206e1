"""A namespace with one claim and a flavor without accelerators, on which small sets are trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.demo.stack import Kube, Manifest, claim, restricted_pod, run_pod_job
from tests.e2e.waiting import wait_for_end

CLAIM = "work"


@contextmanager
def cpu_flavor(kube: Kube, name: str, *prices: Manifest) -> Iterator[None]:
    """A flavor of half a core; without a price, if none is given."""
    kube.apply(
        {
            "apiVersion": "xray.training/v1alpha1",
            "kind": "AcceleratorFlavor",
            "metadata": {"name": name},
            "spec": {"backend": "cpu", "host": {"cpu": "500m", "memory": "4Gi"}, "prices": list(prices)},
        }
    )
    yield
    kube.kubectl("delete", "acceleratorflavor", name)


def generate_set(
    kube: Kube, namespace: str, prepare_image: str, path: str, *, images: int = 60, size: int = 256, archives: int = 1
) -> Path | None:
    """Generated X-rays in a folder of a new claim `work`; returns the claim's volume on the node, where it can be told."""
    volume = claim(kube, namespace, CLAIM)
    arguments = ["synthesize", "--out", f"/data/{path}", "--seed", "3"]
    arguments += ["--images", str(images), "--size", str(size), "--archives", str(archives)]
    run_pod_job(kube, namespace, "generate", restricted_pod(prepare_image, arguments, {CLAIM: "/data"}), 300)
    return volume


def tiny_run(namespace: str, name: str, flavor: str, source: Manifest, **dataset: Any) -> Manifest:
    """A job that trains a tiny model for one epoch."""
    spec = {
        "flavor": flavor,
        "model": {"config": {"hiddenSize": 32, "layers": 1, "heads": 2, "patchSize": 16}},
        "dataset": {"source": source, "imageSize": 64} | dataset,
        "training": {"epochs": 1, "globalBatchSize": 16},
        "output": {"claimName": CLAIM},
    }
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "xray.training/v1alpha1", "kind": "XRayTrainingJob", "metadata": metadata, "spec": spec}


def folder(path: str) -> Manifest:
    """The source that a folder of the claim is."""
    return {"pvc": {"claimName": CLAIM, "path": path}}


@dataclass(frozen=True)
class Place:
    """Where runs read and write: folders of the claim `work`."""

    kube: Kube
    namespace: str
    flavor: str

    def start(self, name: str, path: str) -> None:
        """Train a tiny model on a folder of the claim."""
        self.kube.apply(tiny_run(self.namespace, name, self.flavor, folder(path)))

    def wait(self, name: str) -> Manifest:
        """The run's status at its end."""
        return dict(wait_for_end(self.kube, name, self.namespace)["status"])
