"""The claims of demo and tests on a node whose folders are the volumes."""

from __future__ import annotations

import pytest

from dev.demo.stack import Kube, claim
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e


def test_a_claim_that_was_deleted_and_made_again_is_bound_to_the_same_folder(kube: Kube, module_namespace: str) -> None:
    def bound() -> bool:
        found = kube.find("pvc", "kept", module_namespace) or {}
        return bool(found.get("status", {}).get("phase") == "Bound")

    folder = claim(kube, module_namespace, "kept")
    until("the claim is bound", bound, 60)
    kube.kubectl("delete", "pvc", "kept", "-n", module_namespace)
    assert claim(kube, module_namespace, "kept") == folder
    until("the new claim is bound", bound, 60)
