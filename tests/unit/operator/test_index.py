"""What the operator keeps of objects: everything that is read, and not their bulk."""

from __future__ import annotations

import copy
from typing import Any

import kopf

from tests.unit.operator.builders import make_job, make_pod, make_run
from xray_operator.core.manifests import build_job
from xray_operator.core.observed import read_handle
from xray_operator.core.pods import read_pod
from xray_operator.handlers import slim


def stored(manifest: dict[str, Any]) -> dict[str, Any]:
    """As the API server gives it."""
    metadata = {"uid": "1", "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]}
    return copy.deepcopy(manifest) | {"metadata": manifest["metadata"] | metadata}


def test_a_slim_job_reads_like_the_whole_one_and_kopf_holds_no_more_of_it() -> None:
    whole, ref = stored(build_job(make_run())), make_job().build().ref
    held = copy.deepcopy(whole)
    kept = slim(kopf.Body(held), "template", "podFailurePolicy")
    assert read_handle(kept, ref) == read_handle(whole, ref) is not None
    assert kept["spec"] == {k: v for k, v in whole["spec"].items() if k not in ("template", "podFailurePolicy")}
    assert kept["metadata"] == {k: v for k, v in whole["metadata"].items() if k != "managedFields"}
    assert held == kept


def test_a_slim_pod_reads_like_the_whole_one() -> None:
    template = build_job(make_run())["spec"]["template"]
    whole = stored(make_pod().scheduled(10).raw() | {"spec": template["spec"] | {"nodeName": "node-1"}})
    kept = slim(kopf.Body(copy.deepcopy(whole)), "containers", "initContainers", "volumes")
    assert read_pod(kept) == read_pod(whole)
    assert len(str(kept)) < len(str(whole)) / 2
    assert kept["spec"]["nodeName"] == "node-1"
