"""What doctor makes of the objects of a cluster."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import yaml

from tests.integration.life import claim
from tests.integration.life import flavor as usual_flavor
from xray_cli.findings import (
    Finding,
    State,
    judge_crd,
    judge_flavors,
    judge_lines,
    judge_operators,
    judge_rights,
    judge_storage,
    known_schema,
    quantity,
)
from xray_cli.rights import Right
from xray_cli.shipped import known_crds

NOW = datetime(2026, 11, 22, tzinfo=UTC)
JOBS = "xraytrainingjobs.xray.training"


def test_crds_are_held_against_those_that_are_known() -> None:
    known = known_crds()[JOBS]
    assert judge_crd(known, known_schema(known)).state is State.OK
    assert judge_crd(known, None).state is State.MISSING
    other = copy.deepcopy(known_schema(known))
    spec: dict[str, Any] = other["properties"]["spec"]["properties"]
    spec["dataset"]["properties"]["colour"] = {"type": "string"}
    newer = judge_crd(known, other)
    assert (newer.state, newer.message) == (
        State.WARNING,
        "newer than this kubectl-xray, which doesn't know spec.dataset.colour",
    )
    del spec["training"]["properties"]["epochs"]
    older = judge_crd(known, other)
    assert older.state is State.WARNING
    assert older.message.startswith("older than this kubectl-xray, without spec.training.epochs; kubectl apply")


def test_a_right_is_missing_only_where_no_run_begins_without() -> None:
    rights = (Right("get", "pods"), Right("list", "pods"), Right("get", "pods/log"))
    assert judge_rights("look", rights, (), needed=True) == Finding(
        "right to look", State.OK, "get, list pods; get pods/log"
    )
    assert judge_rights("look", rights, rights[1:], needed=False) == Finding(
        "right to look", State.WARNING, "you may not list pods; get pods/log"
    )
    assert judge_rights("look", rights, rights[:1], needed=True).state is State.MISSING


GOOD = {"images": {"prepare": "p", "torch": "t"}}
ELSEWHERE = GOOD | {"namespaces": ["other", "more"]}


def operator(
    available: str | None = "True", config: dict[str, Any] | None = None, namespace: str = "system"
) -> tuple[dict[str, Any], str | None]:
    """A Deployment, and its configuration, if it is for the user to read."""
    conditions = [{"type": "Available", "status": available, "message": "no pod"}] if available else []
    metadata = {"name": "xray", "namespace": namespace, "labels": {"app.kubernetes.io/version": "1.2.3"}}
    return {"metadata": metadata, "status": {"conditions": conditions}}, yaml.safe_dump(config) if config else None


@pytest.mark.parametrize(
    ("operators", "state", "told"),
    [
        (None, State.UNKNOWN, "you may not list deployments"),
        ([], State.MISSING, "no Deployment has the label"),
        ([operator()], State.OK, "system/xray, version 1.2.3"),
        ([operator("False")], State.MISSING, "system/xray is not available: no pod"),
        ([operator(None)], State.MISSING, "no word of it yet"),
    ],
)
def test_an_operator_has_to_be_available(operators: list[Any] | None, state: State, told: str) -> None:
    (found,) = judge_operators(operators, "chest", ["cpu"])
    assert found.state is state
    assert told in found.message


@pytest.mark.parametrize(
    ("config", "state", "told"),
    [
        (ELSEWHERE, State.MISSING, "namespace chest is not served; other, more are"),
        ({"images": {"torch": "t"}}, State.MISSING, "no job is accepted"),
        (GOOD | {"defaultPrepareFlavor": "none"}, State.WARNING, "defaultPrepareFlavor none is not there"),
        (GOOD | {"colour": "red"}, State.WARNING, "not of this version"),
    ],
)
def test_a_configuration_that_keeps_runs_back_is_told(config: dict[str, Any], state: State, told: str) -> None:
    _, found = judge_operators([operator(config=config)], "chest", ["cpu"])
    assert (found.check, found.state) == ("configuration of system/xray", state)
    assert told in found.message


@pytest.mark.parametrize("flavors", [["cpu"], None])
def test_of_a_good_configuration_nothing_is_told(flavors: list[str] | None) -> None:
    config = GOOD | {"namespaces": ["chest"], "defaultPrepareFlavor": "cpu"}
    assert [each.check for each in judge_operators([operator(config=config)], "chest", flavors)] == ["operator"]


@pytest.mark.parametrize("other", [operator("False", namespace="far"), operator(config=ELSEWHERE, namespace="far")])
def test_one_operator_that_serves_the_namespace_is_enough(other: tuple[dict[str, Any], str | None]) -> None:
    here = operator(config=GOOD | {"namespaces": ["chest"]})
    for found in (judge_operators(pair, "chest", ["cpu"]) for pair in ([other, here], [here, other])):
        assert {each.state for each in found} == {State.OK, State.WARNING}
        (told,) = (each for each in found if each.state is State.WARNING)
        assert "far/xray" in told.check + told.message
    away = operator("False", GOOD)
    assert {each.state for each in judge_operators([other, away], "chest", ["cpu"])} >= {State.MISSING}


def flavor(**spec: Any) -> dict[str, Any]:
    made = usual_flavor("vpod4")
    made["spec"] |= spec
    return made


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name} | labels}}


def vpod_flavor(name: str, **labels: str) -> dict[str, Any]:
    made = flavor(backend="vipuPartition", partition={"host": "10.3.0.1", "id": "vpod4"}, nodeSelector={"vpod": "here"})
    del made["spec"]["resourceName"]
    made["metadata"]["name"] = name
    made["spec"]["namespaceSelector"] = {"matchLabels": labels}
    return made


EVERYWHERE, CHEST, WARD = GOOD, GOOD | {"namespaces": ["chest"]}, GOOD | {"namespaces": ["ward"]}
NAMESPACES = [namespace("chest", vpod="allowed"), namespace("ward", vpod="allowed"), namespace("kube-system")]


@pytest.mark.parametrize(
    ("configs", "namespaces", "told"),
    [
        ((CHEST, WARD), None, "a/xray sees chest; b/xray sees ward"),
        ((CHEST, EVERYWHERE), None, "a/xray sees chest; b/xray sees all namespaces"),
        ((CHEST, EVERYWHERE), NAMESPACES, "a/xray sees chest; b/xray sees chest, ward"),
        ((CHEST, WARD), NAMESPACES, "a/xray sees chest; b/xray sees ward"),
        ((CHEST, WARD), [*NAMESPACES[:1], namespace("ward")], None),
        ((CHEST, EVERYWHERE), [*NAMESPACES[:1], namespace("ward")], None),
        ((CHEST,), None, None),
        ((CHEST, CHEST), None, None),
        ((EVERYWHERE, EVERYWHERE), NAMESPACES, None),
        ((CHEST, None), None, None),
        ((CHEST, GOOD | {"colour": "red"}), None, None),
    ],
)
def test_operators_that_do_not_see_each_others_runs_cannot_share_a_partition(
    configs: Any, namespaces: Any, told: str | None
) -> None:
    operators = [operator(config=config, namespace=name) for name, config in zip("ab", configs, strict=False)]
    vpod = vpod_flavor("vpod4", vpod="allowed")
    assert judge_lines(operators, [flavor()], namespaces) == judge_lines(None, [vpod], namespaces) == []
    why = f"two runs may hold its partition at once, for the operators see different namespaces: {told}; let "
    fix = "each namespaceSelector match namespaces of one and the same operator"
    expected = [Finding("flavor vpod4", State.WARNING, why + fix)] if told else []
    assert judge_lines(operators, [flavor(), vpod], namespaces) == expected


def test_flavors_of_one_partition_are_judged_together() -> None:
    operators = [operator(config=CHEST, namespace="a"), operator(config=WARD, namespace="b")]
    namespaces = [namespace("chest", team="chest"), namespace("ward", team="ward")]
    pair = [vpod_flavor(f"vpod-{team}", team=team) for team in ("chest", "ward")]
    assert [each.check for each in judge_lines(operators, pair, namespaces)] == ["flavor vpod-chest, vpod-ward"]
    pair[1]["spec"]["partition"]["id"] = "another"
    assert judge_lines(operators, pair, namespaces) == []


def node(name: str = "node-1", ipus: int = 8, **spec: Any) -> dict[str, Any]:
    room = {"cpu": "3900m", "memory": "16Gi"} | ({"graphcore.ai/ipu": str(ipus)} if ipus else {})
    return {"metadata": {"name": name, "labels": {"a": "b"}}, "spec": spec, "status": {"allocatable": room}}


def holder(ipus: int, phase: str = "Running", on: str = "node-1") -> dict[str, Any]:
    container = {"resources": {"requests": {"graphcore.ai/ipu": str(ipus)}}}
    return {"spec": {"nodeName": on, "containers": [container, {}]}, "status": {"phase": phase}}


TAINT = {"key": "ipu", "value": "only", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("spec", "nodes", "told"),
    [
        ({}, [node()], "1 node fits; 8 graphcore.ai/ipu, 5 free; 8.50 USD an hour"),
        (
            {},
            [node(), node("node-2"), node("node-3", ipus=0)],
            "2 nodes fit; 16 graphcore.ai/ipu, 13 free; 8.50 USD an hour",
        ),
        ({"prices": []}, [node()], "1 node fits; 8 graphcore.ai/ipu, 5 free; unpriced"),
        ({"nodeSelector": {"a": "b"}}, [node()], "1 node fits; 8"),
        ({"tolerations": [{"key": "ipu", "operator": "Exists"}]}, [node(taints=[TAINT])], "1 node fits; 8"),
        ({"tolerations": [{"key": "ipu", "value": "only"}]}, [node(taints=[TAINT])], "1 node fits; 8"),
        ({"tolerations": [{"operator": "Exists"}]}, [node(taints=[TAINT])], "1 node fits; 8"),
        ({}, [node(taints=[TAINT | {"effect": "PreferNoSchedule"}])], "1 node fits; 8"),
        (
            {"backend": "cpu", "accelerators": None, "resourceName": None},
            [node(ipus=0)],
            "1 node fits; 8.50 USD an hour",
        ),
    ],
)
def test_a_flavor_that_can_be_used(spec: dict[str, Any], nodes: list[dict[str, Any]], told: str) -> None:
    made = flavor(**spec)
    made["spec"] = {key: value for key, value in made["spec"].items() if value is not None}
    pods = [holder(3), holder(4, "Succeeded"), holder(1, on="elsewhere")]
    (found,) = judge_flavors([made], {}, nodes, pods, NOW)
    assert (found.check, found.state) == ("flavor vpod4", State.OK)
    assert found.message.startswith(told)


@pytest.mark.parametrize(
    ("spec", "nodes", "told"),
    [
        ({}, [], "no node fits"),
        ({}, [node(ipus=0)], "no graphcore.ai/ipu where 4 are asked for"),
        ({}, [node(ipus=2)], "2 graphcore.ai/ipu where 4 are asked for"),
        ({"host": {"cpu": "4"}}, [node()], "3900m cpu where 4 are asked for"),
        ({"host": {"memory": "17G"}}, [node()], ""),
        ({"host": {"memory": "18G"}}, [node()], "16Gi memory where 18G are asked for"),
        ({"nodeSelector": {"a": "c"}}, [node()], "no label a=c"),
        ({}, [node(unschedulable=True)], "cordoned"),
        ({}, [node(taints=[TAINT])], "taint ipu"),
        ({"tolerations": [{"key": "ipu", "value": "other"}]}, [node(taints=[TAINT])], "taint ipu"),
        (
            {"tolerations": [{"key": "ipu", "operator": "Exists", "effect": "NoExecute"}]},
            [node(taints=[TAINT])],
            "taint ipu",
        ),
        ({"namespaceSelector": {"matchLabels": {"team": "chest"}}}, [node()], "which lacks the label team=chest"),
        ({"accelerators": 0}, [node()], "spec.accelerators: 0 is refused"),
    ],
)
def test_a_flavor_that_can_not(spec: dict[str, Any], nodes: list[dict[str, Any]], told: str) -> None:
    found = judge_flavors([flavor(**spec)], {"team": "other"}, nodes, [], NOW)
    if not told:
        assert [each.state for each in found] == [State.OK]
        return
    assert [each.state for each in found] == [State.WARNING, State.MISSING]
    assert told in found[0].message
    assert found[1].message == "none of them can be used; the platform team looks after them"


def test_what_may_not_be_seen_is_unknown_and_no_obstacle() -> None:
    (found,) = judge_flavors([flavor()], None, None, None, NOW)
    assert found == Finding("flavor vpod4", State.UNKNOWN, "8.50 USD an hour; you may not list nodes")
    (found,) = judge_flavors([flavor()], None, [node()], None, NOW)
    assert found.message == "1 node fits; 8 graphcore.ai/ipu; 8.50 USD an hour"


def test_without_any_flavor_no_job_runs() -> None:
    assert judge_flavors([], {}, [node()], [], NOW) == [
        Finding("flavors", State.MISSING, "there is none: no job can run")
    ]


def with_mode(name: str, mode: str) -> dict[str, Any]:
    made = claim("chest", name)
    made["spec"]["accessModes"] = [mode]
    return made


def storage_class(name: str, default: bool) -> dict[str, Any]:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {"metadata": {"name": name, "annotations": annotations}}


@pytest.mark.parametrize(
    ("claims", "classes", "state", "told"),
    [
        ([with_mode("out", "ReadWriteMany")], [], State.OK, "out (ReadWriteMany)"),
        (
            [with_mode("out", "ReadWriteOnce")],
            [],
            State.OK,
            "none is ReadWriteMany, so each run is prepared and trained on",
        ),
        (
            [with_mode("nih", "ReadOnlyMany")],
            [storage_class("fast", True)],
            State.WARNING,
            "storage class fast makes one",
        ),
        ([], [storage_class("fast", False)], State.MISSING, "storage classes: fast, none of them by default"),
        ([], [], State.MISSING, "there is no storage class"),
        ([], None, State.MISSING, "no claim that can be written to"),
    ],
)
def test_a_run_needs_a_claim_for_its_results(
    claims: list[dict[str, Any]], classes: list[dict[str, Any]] | None, state: State, told: str
) -> None:
    (found,) = judge_storage(claims, classes)
    assert (found.check, found.state) == ("claims", state)
    assert told in found.message


def test_what_is_wrong_with_a_claim_is_told() -> None:
    lost, going, block = (with_mode(name, "ReadWriteMany") for name in ("lost", "going", "block"))
    lost["status"] = {"phase": "Lost"}
    going["metadata"]["deletionTimestamp"] = "2026-11-22T10:00:00Z"
    block["spec"]["volumeMode"] = "Block"
    told = {each.check: each.message for each in judge_storage([lost, going, block], [])[:-1]}
    assert told == {
        "claim lost": "has lost its volume",
        "claim going": "is being deleted",
        "claim block": "has volumeMode Block; a run needs Filesystem",
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [("4", "4"), (4, "4"), ("500m", "0.5"), ("1.5Gi", "1610612736"), ("2k", "2000"), ("3e3", "3000"), ("1E", "1e18")],
)
def test_quantities(text: object, value: str) -> None:
    assert quantity(text) == Decimal(value)
