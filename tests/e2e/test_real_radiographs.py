"""The whole way on real radiographs: apply, prepare, fine-tune, evaluate, price."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from dev.demo.stack import Kube, Manifest, claim, pod_on_claim
from tests.e2e.waiting import wait_for_end

pytestmark = [pytest.mark.e2e, pytest.mark.nih_sample]

SAMPLE_IMAGES = 750


@dataclass(frozen=True)
class Run:
    """A finished run: the resource, a copy of its outputs, the images' names."""

    job: Manifest
    outputs: Path
    names: list[str]
    namespace: str

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.job["status"])


def manifest() -> Manifest:
    """Fine-tune a small Vision Transformer that lies on the claim, on the flavor with 4 stand-in IPUs."""
    return {
        "apiVersion": "xray.training/v1alpha1",
        "kind": "XRayTrainingJob",
        "metadata": {"name": "real-radiographs"},
        "spec": {
            "flavor": "demo-vpod4",
            "model": {"name": "weights/vit-small", "claimName": "work"},
            "dataset": {"source": {"pvc": {"claimName": "work", "path": "nih"}}, "imageSize": 56},
            "training": {"epochs": 2, "globalBatchSize": 64, "learningRate": "5e-4"},
            "output": {"claimName": "work"},
        },
    }


def save_small_vit(folder: Path) -> None:
    """Weights to fine-tune: a ViT with a head for another task, as a pre-trained one has."""
    config = ViTConfig(
        image_size=56,
        patch_size=8,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
    )
    ViTForImageClassification(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def run(
    kube: Kube,
    module_namespace: str,
    prepare_image: str,
    pack_nih_sample: Callable[[Path], list[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    data, outputs = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("outputs")
    names = pack_nih_sample(data / "nih")
    save_small_vit(data / "weights" / "vit-small")
    claim(kube, module_namespace, "work")
    with pod_on_claim(kube, module_namespace, "work", prepare_image) as root:
        for folder in ("nih", "weights"):
            kube.kubectl("cp", str(data / folder), f"{root}/{folder}")
    kube.kubectl("apply", "-n", module_namespace, "-f", "-", stdin=json.dumps(manifest()))
    job = wait_for_end(kube, "real-radiographs", module_namespace)
    if job["status"]["state"] == "Succeeded":
        with pod_on_claim(kube, module_namespace, "work", prepare_image) as root:
            kube.kubectl("cp", f"{root}/{job['status']['run']['folder']}", str(outputs))
    return Run(job, outputs, names, module_namespace)


def training_pod(kube: Kube, run: Run) -> Manifest:
    (pod,) = kube.items("pods", run.namespace, "xray.training/flavor=demo-vpod4")
    return pod


def test_run_succeeds_and_says_what_it_ran_on(run: Run) -> None:
    conditions = {each["type"]: each for each in run.status["conditions"]}
    assert run.status["state"] == "Succeeded", conditions
    assert conditions["Succeeded"]["status"] == "True"
    assert conditions["Ready"]["status"] == "True"
    assert run.status["observedGeneration"] == run.job["metadata"]["generation"]
    assert "CPU" in run.status["runsOn"]
    assert "graphcore.ai/ipu" in run.status["runsOn"]


def test_every_image_is_accounted_for(run: Run) -> None:
    data = run.status["data"]
    assert len(run.names) == SAMPLE_IMAGES
    assert data["images"] + data["rejected"] == SAMPLE_IMAGES
    assert data["trainImages"] + data["validationImages"] + data["testImages"] == data["images"]
    assert data["archives"] == 1


def test_auroc_is_reported_with_the_positives_behind_it(run: Run) -> None:
    findings = run.status["results"]["findings"]
    assert len(findings) == 14
    measured = [each for each in findings if "auroc" in each]
    assert run.status["results"]["findingsEvaluated"] == len(measured)
    assert all(each["positives"] > 0 and 0 <= float(each["auroc"]) <= 1 for each in measured)
    mean = sum(float(each["auroc"]) for each in measured) / len(measured)
    assert float(run.status["results"]["aurocMacro"]) == pytest.approx(mean, abs=1e-3)


def test_cost_is_price_times_seconds_held(run: Run, kube: Kube) -> None:
    cost, preparation = run.status["cost"], run.status["preparation"]
    assert cost["currency"] == "USD"
    training = price_per_hour(kube, "demo-vpod4") * cost["billedSeconds"]
    preparing = price_per_hour(kube, preparation["flavor"]) * preparation["billedSeconds"]
    assert preparing > 0
    assert abs(Decimal(cost["total"]) - (training + preparing) / 3600) <= Decimal("0.0001"), "each is rounded once"
    assert sum(Decimal(each.get("amount", "0")) for each in cost["phases"]) == Decimal(cost["total"])
    pod = training_pod(kube, run)
    scheduled = next(each for each in pod["status"]["conditions"] if each["type"] == "PodScheduled")
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"]
    assert cost["heldSeconds"] == seconds_between(scheduled["lastTransitionTime"], ended)


def price_per_hour(kube: Kube, flavor: str) -> Decimal:
    (price,) = (kube.find("acceleratorflavor", flavor) or {})["spec"]["prices"]
    return Decimal(price["perHour"])


def seconds_between(start: str, end: str) -> int:
    form = "%Y-%m-%dT%H:%M:%SZ"
    return int(time.mktime(time.strptime(end, form)) - time.mktime(time.strptime(start, form)))


def test_pod_held_the_flavors_accelerators(run: Run, kube: Kube) -> None:
    pod = training_pod(kube, run)
    train = pod["spec"]["containers"][0]
    assert train["resources"]["limits"]["graphcore.ai/ipu"] == "4"
    assert pod["spec"]["initContainers"][0]["name"] == "prepare"


def test_outputs_load_in_one_line(run: Run) -> None:
    model = AutoModelForImageClassification.from_pretrained(run.outputs / "model")
    processor = AutoImageProcessor.from_pretrained(run.outputs / "model")
    assert model.config.id2label[0] == "Atelectasis"
    assert len(model.config.id2label) == 14
    pixels = processor(images=Image.new("RGB", (1024, 1024)), return_tensors="pt")
    assert model(**pixels).logits.shape == (1, 14)
    for name in ("metrics.jsonl", "loss.png", "learning_rate.png", "result.json", "model/model.safetensors"):
        assert (run.outputs / name).stat().st_size > 0
    assert not [each for each in run.outputs.rglob("*") if each.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_events_tell_the_story(run: Run, kube: Kube) -> None:
    events = [
        each for each in kube.items("events", run.namespace) if each["involvedObject"]["kind"] == "XRayTrainingJob"
    ]
    reasons = [each["reason"] for each in events]
    assert "Succeeded" in reasons
    assert len(reasons) == len(set(reasons)), "an event is written once per change"


def test_no_patient_leaves_the_volume(run: Run, kube: Kube) -> None:
    """NIH file names contain the patient: none may be in status, events or logs."""
    patients = {name.split("_")[0] for name in run.names}
    pods = [pod["metadata"]["name"] for pod in kube.items("pods", run.namespace)]
    assert len(pods) == 2, "one prepared, one trained"
    logs = "".join(kube.kubectl("logs", "-n", run.namespace, pod, "--all-containers") for pod in pods)
    shown = json.dumps(run.status) + json.dumps(kube.items("events", run.namespace)) + logs
    assert not patients & set(re.findall(r"\d{8}", shown))


@pytest.mark.usefixtures("run")
def test_operator_metrics_are_served(kube: Kube) -> None:
    pods = kube.items("pods", "xray-system", "app.kubernetes.io/name=xray-operator")
    path = f"/api/v1/namespaces/xray-system/pods/{pods[0]['metadata']['name']}:8080/proxy/metrics"
    text = kube.kubectl("get", "--raw", path)
    assert re.search(r'xray_training_jobs\{[^}]*state="Succeeded"[^}]*\} [1-9]', text)
