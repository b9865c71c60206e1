"""A training pod runs through an upgrade, a rollback, an uninstall and a new installation of the operator, and knows of none.

The release is one of the module's own, with rights in one namespace only. Meanwhile the release of the other tests is gone:
two operators must not serve the same namespace.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dev.demo.stack import (
    RELEASE,
    REPOSITORY,
    SYSTEM_NAMESPACE,
    Kube,
    Manifest,
    claim,
    image_value,
    install_chart,
    namespace,
    remove_volumes,
    restricted_pod,
    run_pod_job,
)
from tests.e2e.waiting import until, wait_for_end

pytestmark = pytest.mark.e2e

NAME = "e2e-chart"
SYSTEM, JOBS = f"{NAME}-system", f"{NAME}-jobs"
DEPLOYMENT = f"{NAME}-xray-operator"
OTHER_VERSION = "0.1.0+upgrade"
IDLE_BYTES = 120 * 10**6
PRICE = {"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "USD", "perHour": "3.60", "source": "an example"}


@dataclass(frozen=True)
class Moment:
    """What was seen when the operator had just been changed."""

    pod: Manifest
    cost: Decimal
    operator: Manifest | None
    """Its pod; None while there is no operator."""

    @property
    def identity(self) -> tuple[str, str, int]:
        """Of the training pod: uid, start and restarts of all containers."""
        status = self.pod["status"]
        restarts = [each["restartCount"] for each in status["containerStatuses"] + status["initContainerStatuses"]]
        return self.pod["metadata"]["uid"], status["startTime"], sum(restarts)


@dataclass
class Story:
    """The moments by name, in the order in which they came, and what was left at the end."""

    moments: dict[str, Moment] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    job: Manifest = field(default_factory=dict)
    pods: list[Manifest] = field(default_factory=list)
    operator_memory: int = 0
    version: str = ""


@dataclass(frozen=True)
class Helm:
    """The release of this module."""

    kube: Kube
    images: dict[str, str]

    def run(self, command: str, *arguments: str, stdin: str | None = None) -> str:
        return self.kube.run("helm", command, *arguments, "--namespace", SYSTEM, stdin=stdin)

    def upgrade(self, operator_image: str, **values: Any) -> None:
        chosen = {
            "image": image_value(operator_image),
            "trainer": {name: image_value(self.images[name]) for name in ("prepare", "torch")},
            "watchNamespaces": [JOBS],
            "exampleFlavors": {"enabled": False},
            "flavors": {NAME: {"backend": "cpu", "host": {"cpu": "1", "memory": "4Gi"}, "prices": [PRICE]}},
            "resyncSeconds": 1,
        }
        chart = str(REPOSITORY / "charts" / "xray-operator")
        options = ("--install", "--values", "-", "--wait", "--timeout", "3m")
        self.run("upgrade", NAME, chart, *options, stdin=json.dumps(chosen | values))

    def revision(self) -> str:
        return str(json.loads(self.run("list", "--output", "json"))[0]["revision"])


def operator_pod(kube: Kube) -> Manifest | None:
    """The operator's pod; one that is going counts no more."""
    pods = kube.items("pods", SYSTEM, f"app.kubernetes.io/instance={NAME}")
    alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    return alive[0] if alive else None


def training_pods(kube: Kube) -> list[Manifest]:
    return kube.items("pods", JOBS, f"xray.training/flavor={NAME}")


def status_of(kube: Kube) -> dict[str, Any]:
    job = kube.find("xraytrainingjob", "run", JOBS) or {}
    return dict(job.get("status", {}))


def look(kube: Kube) -> Moment:
    (pod,) = training_pods(kube)
    assert pod["status"]["phase"] == "Running", "the run was meant to outlive this; give it more epochs"
    return Moment(pod, Decimal(status_of(kube)["cost"]["total"]), operator_pod(kube))


def look_when_served(kube: Kube, since: Decimal) -> Moment:
    """Once the operator has written a higher cost: it has seen the run."""
    until("the operator goes on counting", lambda: Decimal(status_of(kube)["cost"]["total"]) > since, 180)
    return look(kube)


def other_operator_image(folder: Path) -> str:
    """An operator of another version, built from a copy of this tree."""
    for name in ("dev", "operator"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    source = folder / "operator" / "xray_operator" / "__init__.py"
    source.write_text(re.sub('__version__ = ".*"', f'__version__ = "{OTHER_VERSION}"', source.read_text()))
    command = [sys.executable, str(folder / "dev" / "cluster"), "images", "operator"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip().partition("=")[2]


def start_run(kube: Kube, prepare_image: str) -> None:
    """A run on generated X-rays, long enough for everything that follows."""
    claim(kube, JOBS, "work")
    arguments = ["synthesize", "--out", "/data/xrays", "--images", "60", "--seed", "3", "--size", "256"]
    run_pod_job(kube, JOBS, "generate", restricted_pod(prepare_image, arguments, {"work": "/data"}), 300)
    spec = {
        "flavor": NAME,
        "model": {"config": {"hiddenSize": 64, "layers": 2, "heads": 4, "patchSize": 16}},
        "dataset": {"source": {"pvc": {"claimName": "work", "path": "xrays"}}, "imageSize": 64},
        "training": {"epochs": 1000, "globalBatchSize": 8},
        "output": {"claimName": "work"},
    }
    metadata = {"name": "run", "namespace": JOBS}
    kube.apply({"apiVersion": "xray.training/v1alpha1", "kind": "XRayTrainingJob", "metadata": metadata, "spec": spec})


def memory_of(kube: Kube, pod: Manifest) -> int:
    """Resident bytes of the operator's container, as its kubelet counts them; 0 before the first count."""
    path = f"/api/v1/nodes/{pod['spec']['nodeName']}/proxy/stats/summary"
    for each in json.loads(kube.kubectl("get", "--raw", path))["pods"]:
        if each["podRef"]["uid"] == pod["metadata"]["uid"]:
            return int(each["containers"][0].get("memory", {}).get("rssBytes", 0))
    return 0


def version_of(kube: Kube, pod: Manifest) -> str:
    """What the running operator says of itself."""
    path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod['metadata']['name']}:8080/proxy/metrics"
    lines = kube.kubectl("get", "--raw", path).splitlines()
    return next(line for line in lines if line.startswith("xray_training_build_info"))


def kept_objects(kube: Kube) -> dict[str, str]:
    """Kind -> what there is of it."""
    crds = [name for name in kube.kubectl("get", "crd", "-o", "name").split() if name.endswith(".xray.training")]
    runs = kube.kubectl("get", "xraytrainingjobs", "-n", JOBS, "-o", "name").split()
    jobs = [each["metadata"]["name"] for each in kube.items("jobs", JOBS, "xray.training/job-uid")]
    roles = kube.kubectl("get", "clusterroles,roles", "-A", "-o", "name", "-l", f"app.kubernetes.io/instance={NAME}")
    return {"crds": " ".join(sorted(crds)), "runs": " ".join(runs), "jobs": " ".join(jobs), "roles": roles.strip()}


@pytest.fixture(scope="module")
def helm(stack: tuple[Kube, dict[str, str]]) -> Iterator[Helm]:
    """The release of the other tests is away until the end of the module; CRDs are there, by kubectl."""
    kube, images = stack
    kube.run("helm", "uninstall", RELEASE, "--namespace", SYSTEM_NAMESPACE, "--wait")
    try:
        for each in (SYSTEM, JOBS):
            kube.apply(namespace(each))
        yield Helm(kube, images)
    finally:
        kube.kubectl("delete", "namespace", JOBS, SYSTEM, "--ignore-not-found", "--timeout=180s")
        remove_volumes(kube, JOBS)
        install_chart(kube, images)


@pytest.fixture(scope="module")
def story(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Story:
    kube, image, told = helm.kube, helm.images["operator"], Story()
    other_image = other_operator_image(tmp_path_factory.mktemp("tree"))
    helm.upgrade(image)
    start_run(kube, helm.images["prepare"])
    until("the run trains", lambda: status_of(kube).get("state") == "Training", 180)
    told.moments["installed"] = seen = look_when_served(kube, Decimal(0))
    assert seen.operator is not None
    told.operator_memory = until("kubelet counts", lambda: memory_of(kube, seen.operator or {}), 180)
    helm.upgrade(other_image, resyncSeconds=2, podLabels={"team": "platform"})
    told.moments["upgraded"] = seen = look_when_served(kube, seen.cost)
    assert seen.operator is not None
    told.version = version_of(kube, seen.operator)
    helm.run("rollback", NAME, "1", "--wait", "--timeout", "3m")
    told.moments["rolled back"] = seen = look_when_served(kube, seen.cost)
    helm.run("uninstall", NAME, "--wait", "--timeout", "3m")
    told.moments["uninstalled"] = look(kube)
    told.kept = kept_objects(kube)
    helm.upgrade(image)
    told.moments["installed again"] = look_when_served(kube, seen.cost)
    told.job, told.pods = wait_for_end(kube, "run", JOBS), training_pods(kube)
    return told


def test_the_training_pod_is_untouched(story: Story) -> None:
    assert [moment.identity for moment in story.moments.values()] == [story.moments["installed"].identity] * 5
    assert story.moments["installed"].identity[2] == 0
    assert [pod["metadata"]["uid"] for pod in story.pods] == [story.moments["installed"].identity[0]]


def test_each_change_brings_the_operator_that_was_asked_for(story: Story, helm: Helm) -> None:
    operators = {name: moment.operator for name, moment in story.moments.items()}
    assert operators.pop("uninstalled") is None
    images = {name: pod["spec"]["containers"][0]["image"] for name, pod in operators.items() if pod}
    assert images.pop("upgraded") != helm.images["operator"]
    assert images == dict.fromkeys(["installed", "rolled back", "installed again"], helm.images["operator"])
    upgraded = operators["upgraded"] or {}
    assert upgraded["metadata"]["labels"]["team"] == "platform"
    assert f'version="{OTHER_VERSION}"' in story.version
    assert len({pod["metadata"]["uid"] for pod in operators.values() if pod}) == 4
    restarts = [pod["status"]["containerStatuses"][0]["restartCount"] for pod in operators.values() if pod]
    assert restarts == [0] * 4, "no probe takes a working operator for a deaf one"


def test_the_run_finishes_in_one_attempt_and_is_paid_for_without_a_gap(story: Story) -> None:
    status = story.job["status"]
    assert status["state"] == "Succeeded", status["conditions"]
    assert len(status["attempts"]) == 1
    costs = [moment.cost for moment in story.moments.values()] + [Decimal(status["cost"]["total"])]
    assert costs == sorted(costs)
    (pod,) = story.pods
    scheduled = next(each for each in pod["status"]["conditions"] if each["type"] == "PodScheduled")
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"]
    held = datetime.fromisoformat(ended) - datetime.fromisoformat(scheduled["lastTransitionTime"])
    assert status["cost"]["heldSeconds"] == held.total_seconds()
    assert Decimal(status["cost"]["total"]) == pytest.approx(
        Decimal(held.total_seconds()) / 1000, abs=Decimal("0.0001")
    )


def test_uninstalling_leaves_crds_runs_and_jobs_and_no_rights(story: Story) -> None:
    assert story.kept["crds"].split() == [
        "customresourcedefinition.apiextensions.k8s.io/acceleratorflavors.xray.training",
        "customresourcedefinition.apiextensions.k8s.io/trainingbudgets.xray.training",
        "customresourcedefinition.apiextensions.k8s.io/xraytrainingjobs.xray.training",
    ]
    assert story.kept["runs"] == "xraytrainingjob.xray.training/run"
    assert len(story.kept["jobs"].split()) == 1
    assert story.kept["roles"] == ""


def test_the_idle_operator_is_small(story: Story) -> None:
    assert story.operator_memory <= IDLE_BYTES


@pytest.mark.usefixtures("story")
def test_a_second_upgrade_changes_nothing(helm: Helm) -> None:
    def deployment() -> tuple[int, str]:
        found = helm.kube.find("deployment", DEPLOYMENT, SYSTEM) or {}
        pod = operator_pod(helm.kube) or {}
        return found["metadata"]["generation"], pod["metadata"]["uid"]

    before = deployment()
    helm.upgrade(helm.images["operator"])
    assert deployment() == before
    # kubectl diff ends with 1 where anything differs
    helm.kube.kubectl("diff", "-f", "-", stdin=helm.run("get", "manifest", NAME))


@pytest.mark.usefixtures("story")
def test_namespaces_go_without_the_operator(helm: Helm) -> None:
    """Nothing here has a finalizer that only the operator could take off. Last, because it ends the module's release."""
    helm.run("uninstall", NAME, "--wait", "--timeout", "3m")
    for each in (JOBS, SYSTEM):
        helm.kube.kubectl("delete", "namespace", each, "--wait=true", "--timeout=180s")
