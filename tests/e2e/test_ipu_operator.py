"""A run whose attempts are IPUJobs on the real node: the image for IPUs, emulated, and a stand-in for Graphcore's operator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.cluster.control_plane import NODE_ADDRESS
from dev.cluster.state import free_ports
from dev.demo.stack import REPOSITORY, Kube, Manifest, build_images, claim, install_chart
from tests.command_line import xray
from tests.e2e.places import CLAIM, tiny_run
from tests.e2e.waiting import until, wait_for_end

pytestmark = pytest.mark.e2e

NAME = "by-ipu-job"
(PORT,) = free_ports(1, ())
STANDIN = REPOSITORY / "dev" / "ipu_operator_standin"
PRIVILEGED = {"pod-security.kubernetes.io/enforce": "privileged"}


def flavor(name: str) -> Manifest:
    spec = {
        "backend": "ipuOperator",
        "accelerators": 4,
        "vipuProxyUrl": f"http://{NODE_ADDRESS}:{PORT}",
        "host": {"cpu": "500m", "memory": "6Gi", "sharedMemory": "1Gi"},
    }
    metadata = {"name": name}
    return {"apiVersion": "xray.training/v1alpha1", "kind": "AcceleratorFlavor", "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module")
def standin(stack: tuple[Kube, dict[str, str]], module_namespace: str) -> Iterator[None]:
    """Graphcore's operator with four IPUs, as far as it is played; its kind goes with it."""
    kube, _ = stack
    kube.kubectl("apply", "--server-side", "-f", str(STANDIN / "ipujobs.yaml"))
    listed = ("api-resources", "--api-group=graphcore.ai", "--cached=false", "-o", "name")
    until("IPUJobs are served", lambda: "ipujobs.graphcore.ai" in kube.kubectl(*listed))
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "operator")])
    options = ["--ipus", "4", "--host", NODE_ADDRESS, "--port", str(PORT), "--namespace", module_namespace]
    process = subprocess.Popen(
        [sys.executable, "-m", "dev.ipu_operator_standin", *options], env=dict(kube.environment) | {"PYTHONPATH": paths}
    )
    yield
    kube.kubectl("delete", "xraytrainingjobs", "--all", "-n", module_namespace)
    kube.kubectl("delete", "ipujobs", "--all", "-n", module_namespace, "--timeout=180s")
    process.terminate()
    process.wait()
    kube.kubectl("delete", "crd", "ipujobs.graphcore.ai")


@pytest.fixture(scope="module")
def place(stack: tuple[Kube, dict[str, str]], module_namespace: str, standin: None) -> Iterator[Kube]:  # noqa: ARG001
    """A namespace that Pod Security leaves alone, and the IPU image in the chart for as long as this module runs."""
    kube, images = stack
    metadata = {"name": module_namespace, "labels": PRIVILEGED}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, flavor(module_namespace))
    claim(kube, module_namespace, CLAIM)
    install_chart(kube, images | build_images("ipu"), ipuOperator={"enabled": True})
    yield kube
    kube.kubectl("delete", "acceleratorflavor", module_namespace)
    install_chart(kube, images)


def free_ipus() -> int:
    with urllib.request.urlopen(f"http://{NODE_ADDRESS}:{PORT}/stats", timeout=10) as answer:
        return int(json.load(answer)["total"]["available"])


def test_it_trains_by_ipu_jobs_through_a_suspension(place: Kube, module_namespace: str) -> None:
    def status() -> dict[str, Any]:
        return dict((place.find("xraytrainingjob", NAME, module_namespace) or {}).get("status", {}))

    def edit(**spec: Any) -> None:
        body = json.dumps({"spec": spec})
        place.kubectl("patch", "xraytrainingjob", NAME, "-n", module_namespace, "--type=merge", "-p", body)

    job = tiny_run(module_namespace, NAME, module_namespace, {"synthetic": {"images": 60, "size": 256}})
    job["spec"]["model"]["config"]["layers"] = 4
    job["spec"]["training"]["epochs"] = 200
    job["spec"]["checkpoint"] = {"everySteps": 20}
    place.apply(job)
    until("a checkpoint", lambda: status().get("checkpoint"), 420)
    assert free_ipus() == 0
    edit(suspend=True)
    until("stands still", lambda: status().get("state") == "Suspended", 180)
    assert place.items("ipujobs", module_namespace) == []
    assert free_ipus() == 4
    edit(suspend=False)
    ended = dict(wait_for_end(place, NAME, module_namespace)["status"])
    assert ended["state"] == "Succeeded", ended["conditions"]
    assert ended["runsOn"] == "ipu backend, ran on 4 emulated IPUs: 1 replica of 4"
    assert [row.get("exitCode") for row in ended["attempts"]] == [143, None]
    assert ended["results"]["resumedFromStep"] > 0
    assert "compiling" in ended["times"]
    (last,) = place.items("ipujobs", module_namespace)
    worker = f"{last['metadata']['name']}-worker-0"
    assert ended["attempts"][-1]["podName"] == worker
    said = xray(Path(place.environment["KUBECONFIG"]), "logs", NAME, "-n", module_namespace)
    assert said.returncode == 0, said.stderr
    trained = [line for line in said.stdout.splitlines() if line.startswith(f"[pod/{worker}/train] ")]
    assert any("ipu backend on 4 EMULATED IPUs" in line for line in trained), said.stdout
    assert last["status"]["launcherStatus"] == "Completed"
    until("the partition is free", lambda: free_ipus() == 4)
