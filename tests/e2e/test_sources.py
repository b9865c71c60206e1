"""Data that are on no claim: generated ones."""

from __future__ import annotations

from typing import Any

import pytest

from dev.demo.stack import Kube, Manifest, claim
from tests.e2e.places import CLAIM, tiny_run
from tests.e2e.waiting import wait_for_end

pytestmark = pytest.mark.e2e

IMAGES = 60


@pytest.fixture(scope="module")
def place(kube: Kube, module_namespace: str) -> str:
    claim(kube, module_namespace, CLAIM)
    return module_namespace


def run(kube: Kube, namespace: str, name: str, source: Manifest, **dataset: Any) -> Manifest:
    """The status of a run on a flavor with accelerators, at its end."""
    kube.apply(tiny_run(namespace, name, "demo-vpod4", source, **dataset))
    return dict(wait_for_end(kube, name, namespace)["status"])


@pytest.mark.parametrize("prepare", ["Job", "InitContainer"])
def test_generated_data_need_no_claim(kube: Kube, place: str, prepare: str) -> None:
    source = {"synthetic": {"images": IMAGES, "size": 256}}
    status = run(kube, place, f"generated-{prepare.lower()}", source, prepare=prepare)
    assert status["state"] == "Succeeded", status["conditions"]
    assert status["data"]["images"] == IMAGES
    assert ("preparation" in status) == (prepare == "Job")
