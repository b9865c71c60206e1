"""The pod that reads a run's folder: what it is, and where it may be. tests/e2e runs it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.builders import make_run
from xray_cli.errors import CommandError
from xray_cli.reader import Place, node_of_claim, reader_pod
from xray_operator.core.manifests import USER
from xray_operator.core.plan import JobRef

PLACE = Place(JobRef("chest", "cxr", "uid-1"), "results", "cxr-0123456789ab", "registry.example/prepare:1")


def claim(*modes: str) -> dict[str, Any]:
    return {"metadata": {"name": "results"}, "spec": {"accessModes": list(modes)}}


def pod(phase: str = "Running", node: str | None = "node-1", claim_name: str = "results") -> dict[str, Any]:
    volumes = [{"name": "tmp", "emptyDir": {}}, {"name": "o", "persistentVolumeClaim": {"claimName": claim_name}}]
    spec = {"volumes": volumes} | ({"nodeName": node} if node else {})
    return {"metadata": {"name": "trains"}, "spec": spec, "status": {"phase": phase}}


def test_it_sees_one_folder_and_can_change_nothing() -> None:
    spec = reader_pod(PLACE, "reader-1")["spec"]
    (volume,), (container,) = spec["volumes"], spec["containers"]
    assert volume["persistentVolumeClaim"] == {"claimName": "results", "readOnly": True}
    (mount,) = container["volumeMounts"]
    assert (mount["subPath"], mount["readOnly"]) == ("cxr-0123456789ab", True)
    assert container["image"] == "registry.example/prepare:1"
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsUser"] == USER
    assert "fsGroup" not in spec["securityContext"], "the kubelet would change the files' group"
    assert spec["activeDeadlineSeconds"] <= 3600


def test_it_belongs_to_the_job_and_is_none_of_the_operators_pods() -> None:
    metadata = reader_pod(PLACE, "reader-1")["metadata"]
    assert [(owner["uid"], owner["controller"]) for owner in metadata["ownerReferences"]] == [("uid-1", False)]
    assert not [label for label in metadata["labels"] if label.startswith("xray.training/")]


def test_what_the_run_was_given_to_get_its_image_and_its_node_it_has_too() -> None:
    assert "imagePullSecrets" not in reader_pod(PLACE, "reader-1")["spec"]
    record = make_run().snapshot.model_copy(update={"tolerations": ({"key": "ipu", "operator": "Exists"},)})
    spec = reader_pod(Place(**{**vars(PLACE), "record": record, "node": "node-1"}), "reader-1")["spec"]
    assert spec["imagePullSecrets"] == [{"name": "pull-secret"}]
    assert spec["tolerations"] == [{"key": "ipu", "operator": "Exists"}]
    assert spec["containers"][0]["imagePullPolicy"] == record.pull_policy
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchFields"] == [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]


@pytest.mark.parametrize(
    ("modes", "pods", "node"),
    [
        (["ReadWriteOnce"], [pod()], "node-1"),
        (["ReadWriteOnce"], [pod("Succeeded")], None),
        (["ReadWriteOnce"], [pod("Pending", node=None)], None),
        (["ReadWriteOnce"], [pod(claim_name="other")], None),
        (["ReadWriteOnce"], [], None),
        (["ReadWriteMany"], [pod()], None),
        (["ReadWriteOnce", "ReadWriteMany"], [pod()], None),
        (["ReadWriteOncePod"], [pod("Failed")], None),
    ],
)
def test_a_claim_of_one_node_is_read_where_a_pod_has_it(
    modes: list[str], pods: list[dict[str, Any]], node: str | None
) -> None:
    assert node_of_claim(claim(*modes), pods) == node


def test_a_claim_of_one_pod_that_lives_is_refused() -> None:
    with pytest.raises(CommandError, match="ReadWriteOncePod, and pod trains has it"):
        node_of_claim(claim("ReadWriteOncePod"), [pod()])
