"""The image for IPUs on the real node: four devices of the stand-in plugin, and a stand-in for PopTorch that computes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dev.demo.stack import Kube, Manifest
from tests.e2e.conftest import ipu_image_installed
from tests.e2e.places import folder, generate_set, tiny_run
from tests.e2e.waiting import until, wait_for_end

pytestmark = pytest.mark.e2e

FLAVOR, NAME = "demo-vpod4", "ipu"
EPOCHS, STEPS_PER_EPOCH = 200, 2
"""42 of 60 images train: two global batches of 16, and ten images that are others each time."""
COMPILE_SECONDS = 7
"""What the emulated base image takes for each program is a second more; the times in status are whole seconds."""


@dataclass(frozen=True)
class Place:
    """Where the run is, and its volume as this machine sees it."""

    kube: Kube
    namespace: str
    volume: Path
    image: str

    def status(self) -> dict[str, Any]:
        return dict((self.kube.find("xraytrainingjob", NAME, self.namespace) or {}).get("status", {}))

    def edit(self, **spec: Any) -> None:
        body = json.dumps({"spec": spec})
        self.kube.kubectl("patch", "xraytrainingjob", NAME, "-n", self.namespace, "--type=merge", "-p", body)

    def pods(self) -> list[Manifest]:
        """Of the run, not of its preparation."""
        found = self.kube.items("pods", self.namespace, f"xray.training/job-name={NAME}")
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def log(self, pod: Manifest) -> str:
        return self.kube.kubectl("logs", "-n", self.namespace, pod["metadata"]["name"], "-c", "train")


@pytest.fixture(scope="module")
def place(stack: tuple[Kube, dict[str, str]], module_namespace: str) -> Iterator[Place]:
    """With a generated set on the claim, and the IPU image in the chart for as long as this module runs."""
    kube, images = stack
    volume = generate_set(kube, module_namespace, images["prepare"], "nih")
    assert volume is not None
    with ipu_image_installed(kube, images) as image:
        yield Place(kube, module_namespace, volume, image)


@pytest.fixture(scope="module")
def ended(place: Place) -> dict[str, Any]:
    """The status of a run that was suspended while it trained, and went on."""
    job = tiny_run(place.namespace, NAME, FLAVOR, folder("nih"))
    job["spec"]["model"]["config"]["layers"] = 4
    job["spec"]["training"]["epochs"] = EPOCHS
    job["spec"]["checkpoint"] = {"everySteps": 20}
    place.kube.apply(job)
    until("a checkpoint", lambda: place.status().get("checkpoint"), 300)
    place.edit(suspend=True)
    until("stands still", lambda: place.status().get("state") == "Suspended", 120)
    assert not [pod for pod in place.pods() if pod["status"]["phase"] == "Running"], "the devices are released"
    assert place.status()["runsOn"] == "ipu backend on 4 emulated IPUs: 1 replica of 4"
    place.edit(suspend=False)
    return dict(wait_for_end(place.kube, NAME, place.namespace)["status"])


def test_it_trains_on_four_emulated_ipus_and_says_so(place: Place, ended: dict[str, Any]) -> None:
    assert ended["state"] == "Succeeded", ended["conditions"]
    assert ended["runsOn"] == "ipu backend, ran on 4 emulated IPUs: 1 replica of 4"
    (train,) = place.pods()[-1]["spec"]["containers"]
    assert (train["image"], train["resources"]["limits"]["graphcore.ai/ipu"]) == (place.image, "4")
    assert "EMULATED IPUs" in place.log(place.pods()[-1])
    (result,) = place.volume.glob("*/result.json")
    assert json.loads(result.read_text())["device"] == "emulated IPU"


def test_its_layout_and_updates_stand_in_status(ended: dict[str, Any]) -> None:
    sizing = ended["sizing"]
    layout = ("ipusPerReplica", "replicationFactor", "gradientAccumulationSteps", "microBatchSize", "globalBatchSize")
    assert [sizing[name] for name in layout] == [4, 1, 16, 1, 16]
    assert (sizing["stepsPerEpoch"], sizing["totalSteps"]) == (STEPS_PER_EPOCH, EPOCHS * STEPS_PER_EPOCH)


def test_compiling_and_training_are_phases_of_their_own(ended: dict[str, Any]) -> None:
    times = ended["times"]
    assert {"compiling", "training", "evaluating"} <= set(times)
    assert times["compiling"]["startedAt"] >= times["training"]["startedAt"], "by the pod's own account"
    assert times["training"]["seconds"] > times["compiling"]["seconds"], (
        "the latest pod found what the first had compiled"
    )


def test_what_was_compiled_is_kept_for_the_attempt_that_goes_on(place: Place, ended: dict[str, Any]) -> None:
    (key,) = (place.volume / "xray-executables").iterdir()
    assert len(list(key.glob("*.popef"))) == 2, "for training and for evaluation, whatever the number of attempts"
    first, second = ended["attempts"]
    assert first["compilingSeconds"] >= 2 * COMPILE_SECONDS, "for training and for evaluation"
    assert second.get("compilingSeconds", 0) < COMPILE_SECONDS


def test_the_second_attempt_went_on_from_the_checkpoint(place: Place, ended: dict[str, Any]) -> None:
    assert ended["attempts"][0]["exitCode"] == 143
    assert "going on from the checkpoint of step " in place.log(place.pods()[-1])
    assert ended["results"]["resumedFromStep"] > 0
