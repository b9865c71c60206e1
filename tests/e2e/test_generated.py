"""Generated X-rays on a flavor without accelerators and without a price."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from dev.demo.stack import Kube
from tests.e2e.places import Place, cpu_flavor, generate_set

pytestmark = pytest.mark.e2e

FLAVOR = "e2e-cpu"
IMAGES = 60


@pytest.fixture(scope="module")
def place(kube: Kube, module_namespace: str, prepare_image: str) -> Iterator[Place]:
    """With a generated set in the folder `good`."""
    generate_set(kube, module_namespace, prepare_image, "good", images=IMAGES)
    with cpu_flavor(kube, FLAVOR):
        yield Place(kube, module_namespace, FLAVOR)


def test_run_without_accelerators_or_price(place: Place) -> None:
    place.start("unpriced", "good")
    status = place.wait("unpriced")
    assert status["state"] == "Succeeded", status["conditions"]
    assert status["data"]["images"] == IMAGES
    assert status["cost"]["display"] == "unpriced"
    assert status["cost"]["priced"] is False
    assert "total" not in status["cost"]
    assert status["cost"]["heldSeconds"] > 0
    pods = place.kube.items("pods", place.namespace, "xray.training/flavor=" + FLAVOR)
    assert "graphcore.ai/ipu" not in json.dumps([pod["spec"] for pod in pods])
