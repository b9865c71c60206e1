"""Claims that a run could never use are refused with the fix in the message, instead of a pod that waits for ever."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.builders import CONFIG, at, condition, make_flavor, make_job
from xray_operator.core.observed import Observed, Volume, read_volume
from xray_operator.core.reconcile import reconcile


def on_node(*nodes: str, modes: tuple[str, ...] = ("ReadWriteOnce",), **claim: Any) -> Volume:
    """A claim that is bound to a local volume on these nodes."""
    raw = {"metadata": {}, "spec": {"accessModes": list(modes)}, "status": {"phase": "Bound"}}
    expressions = [{"key": "kubernetes.io/hostname", "operator": "In", "values": list(nodes)}]
    required = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
    return read_volume(raw | claim, {"spec": {"nodeAffinity": {"required": required}} if nodes else {}})


ANYWHERE = on_node(modes=("ReadWriteMany",))
GOOD = {"nih": ANYWHERE, "out": ANYWHERE, "models": ANYWHERE}


def accepted(volumes: dict[str, Volume | None], **flavor: Any) -> tuple[str, str, str]:
    observed = Observed(flavors={"demo-vpod4": make_flavor(**flavor)}, volumes=volumes)
    decision = reconcile(make_job().build(), observed, at(1), CONFIG)
    if decision.status is None:
        assert decision.create is not None
        return "True", "", ""
    return condition(decision.status, "Accepted")


@pytest.mark.parametrize(
    ("volumes", "message"),
    [
        (
            {"out": on_node(modes=("ReadOnlyMany",))},
            'spec.output.claimName: "out" has access mode ReadOnlyMany and the run writes there; name a claim with '
            "ReadWriteOnce or ReadWriteMany",
        ),
        (
            {"nih": on_node("node-a"), "out": on_node("node-b")},
            'spec.dataset.source.pvc.claimName: "nih" lies on node-a and that of spec.output.claimName on node-b: no node '
            "can mount both; use claims with ReadWriteMany, or two on the same node",
        ),
        ({"models": on_node(spec={"accessModes": [], "volumeMode": "Block"})}, "has volumeMode Block; a run needs"),
        ({"nih": on_node(metadata={"deletionTimestamp": "2026-11-22T10:00:00Z"})}, '"nih" is being deleted'),
        ({"nih": on_node(status={"phase": "Lost"})}, '"nih" has lost its volume'),
    ],
)
def test_an_impossible_volume_is_refused_with_the_fix(volumes: dict[str, Volume], message: str) -> None:
    status, reason, words = accepted(GOOD | volumes)
    assert (status, reason) == ("False", "VolumeImpossible")
    assert message in words


def test_a_volume_where_the_flavor_has_no_node_is_refused() -> None:
    selector = {"kubernetes.io/hostname": "ipu-1"}
    status, _, words = accepted(GOOD | {"nih": on_node("node-a")}, nodeSelector=selector)
    assert status == "False"
    assert 'spec.dataset.source.pvc.claimName: "nih" lies on node-a, where flavor demo-vpod4 has no node' in words
    assert accepted(GOOD | {"nih": on_node("ipu-1")}, nodeSelector=selector)[0] == "True"


@pytest.mark.parametrize(
    "volumes",
    [
        {"nih": on_node("node-a"), "out": on_node("node-a", "node-b")},
        {"nih": on_node("node-a"), "out": on_node()},
        {"nih": on_node(modes=("ReadOnlyMany",))},
        {"out": Volume(frozenset({"ReadWriteOnce"}), phase="Pending")},
    ],
)
def test_what_may_work_is_left_to_the_scheduler(volumes: dict[str, Volume]) -> None:
    assert accepted(GOOD | volumes)[0] == "True"
