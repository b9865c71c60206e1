"""Other people's X-rays on a node: the example's labels, and a set in their layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from dev.demo.stack import Kube, claim, restricted_pod, run_pod_job
from tests.e2e.chexpert_layout import FINDINGS, FOLDER, IMAGES
from tests.e2e.places import CLAIM, cpu_flavor, folder, tiny_run
from tests.e2e.waiting import wait_for_end

pytestmark = pytest.mark.e2e

FLAVOR = "e2e-chexpert"
EXAMPLE = Path(__file__).parents[2] / "examples" / "chexpert.yaml"


def test_chexpert_s_layout_is_trained_on(kube: Kube, module_namespace: str, prepare_image: str) -> None:
    claim(kube, module_namespace, CLAIM)
    program = Path(__file__).with_name("chexpert_layout.py").read_text()
    pod = restricted_pod(prepare_image, [], {CLAIM: "/data"}, ["python3", "-c", program, "/data"])
    run_pod_job(kube, module_namespace, "generate", pod, 120)
    labels = yaml.safe_load(EXAMPLE.read_text())["spec"]["dataset"]["labels"] | {"findings": list(FINDINGS)}
    with cpu_flavor(kube, FLAVOR):
        kube.apply(tiny_run(module_namespace, "chexpert", FLAVOR, folder(FOLDER), labels=labels))
        status = wait_for_end(kube, "chexpert", module_namespace)["status"]
    assert status["state"] == "Succeeded", status["conditions"]
    assert (status["data"]["images"], status["data"].get("rejected", 0)) == (IMAGES, 0)
    assert "patient0" not in json.dumps(status), "no path leaves the volume"
