"""Every field of a status that the operator writes is in the CRD, within its bounds; and every field of the CRD is written.

The API server drops fields that it does not know without a word, and refuses a whole status for one that is too long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.contract.schemas import crd_schema, walk
from tests.unit.operator.builders import (
    CONFIG,
    FLAVORS,
    PRICE,
    WITH_IPUS,
    at,
    example,
    make_flavor,
    make_job,
    make_pod,
    make_progress,
    started,
    told,
    train_result,
)
from tests.unit.operator.test_estimate import finished
from tests.unit.operator.test_ipu_jobs import attempt, look
from tests.unit.operator.test_model_preparation import (
    DATA_READY,
    FIXED,
    MODEL_READY,
    decide_model,
    pod_of,
    seen_both,
    shared,
)
from tests.unit.operator.test_months import make_budget
from tests.unit.operator.test_preparation import PREPARED, decide_first, finished_answer, found, seen
from xray_operator.core.history import read_finished_runs
from xray_operator.core.months import Books, Entry, budget_status
from xray_operator.core.observed import Observed, Unreadable
from xray_operator.core.reconcile import reconcile
from xray_operator.core.spec import MonthlyBudget, Price

SCHEMA = crd_schema("XRayTrainingJob", "status")
TRAINING = make_pod().scheduled(10).prepared(12, 40).trains(42)
CHECKPOINT = {"step": 6, "time": "2026-11-22T10:00:30Z"}
RESULT = train_result(adopted=True, resumed_from_step=6)
SITUATIONS = {
    "refused": Observed(),
    "queued": started(make_pod().unschedulable("0/3 nodes: no ipu " + "x" * 9000)),
    "preparing": started(make_pod().scheduled(10).prepares(12), progress=make_progress("progress-preparing.json")),
    "training": started(TRAINING, progress=make_progress(checkpoint=CHECKPOINT)),
    "training on IPUs": started(
        TRAINING, job=make_job().spec(model={"name": "google/vit-base-patch16-224-in21k"}), config=WITH_IPUS
    ),
    "failed": started(
        make_pod().scheduled(10).prepared(12, 40, 11, example("error-result.json")), end="BackoffLimitExceeded"
    ),
    "succeeded": started(make_pod().scheduled(10).prepared(12, 40).trained(42, 110, message=RESULT), end="Complete"),
}

Status = dict[str, Any]


def write(observed: Observed, former: Status | None = None, **spec: Any) -> Status:
    """The status that one pass writes."""
    decision = reconcile(make_job().spec(**spec).status(former).build(), observed, at(200), CONFIG)
    assert decision.status is not None
    return decision.status


def statuses() -> dict[str, Status]:
    written = {name: write(observed) for name, observed in SITUATIONS.items()}
    rerun = started(TRAINING, job=make_job().spec(rerun=1))
    again = write(rerun, former=written["succeeded"], rerun=1)
    vanished = write(started(), former=written["training"])
    silent = started(TRAINING, progress=make_progress(last_updated_time="2026-11-22T10:00:45Z", time=None))
    phases = [
        {"name": "Compiling", "started_at": "2026-11-22T10:00:45Z", "finished_at": "2026-11-22T10:01:00Z"},
        {"name": "Training", "started_at": "2026-11-22T10:01:00Z"},
    ]
    compiled = started(TRAINING, progress=make_progress(phases=phases), config=WITH_IPUS)
    sourced = make_flavor(prices=[PRICE | {"source": "contract 7", "minimumSeconds": 100}])
    killed = make_pod().scheduled(10).prepared(12, 40).trained(42, 80, 137, "")
    return written | {
        "killed, and billed longer than held": write(started(killed, flavor=sourced)),
        "vanished": vanished,
        "preparations failed, and vanished": vanished_preparations(),
        "run again": again,
        "run again after it had vanished": write(rerun, former=vanished, rerun=1),
        "ends for a rerun": write(SITUATIONS["training"], rerun=1),
        "stops for spec.suspend": write(SITUATIONS["training"], suspend=True),
        "suspended": write(started(suspended=True), former=written["training"], suspend=True),
        "suspended before the start": write(
            Observed(flavors=FLAVORS, finished=read_finished_runs([finished()])), suspend=True
        ),
        "stopped at a limit": write(started(suspended=True), limits={"queueSeconds": 60}),
        "has a budget": write(SITUATIONS["training"], budget={"limit": "20", "currency": "USD"}),
        "has compiled": write(compiled),
        "makes no progress": write(silent, limits={"noProgressSeconds": 30}),
        "is restarted": write(silent, limits={"noProgressSeconds": 30, "onStall": "Restart"}),
        "waits for the training pod": told(decide_first(seen(PREPARED), now=41)),
        "finished already, says its preparation": adopted(),
        "waits for the pod of an IPUJob": told(look(attempt())),
        "waits for data and model": told(decide_model(seen_both(), now=30)),
        "has data and model": told(decide_model(seen_both(data=DATA_READY, model=MODEL_READY), now=46)),
        "gone": write(Observed(unreadable=Unreadable("ConfigMap cxr: gone")), former=written["training"]),
    }


def adopted() -> Status:
    preparing = told(decide_first(seen(PREPARED), now=41))
    status = told(decide_first(found(finished_answer(preparing["run"]["folder"])), now=41))
    assert status["state"] == "Succeeded"
    return status


def vanished_preparations() -> Status:
    """One pod of each preparation was killed, another is gone."""
    price = Price.model_validate(PRICE | {"source": "contract 7"})
    both = {part: getattr(FIXED, part).model_copy(update={"price": price}) for part in PREPARED_BY}
    shown = {}
    for kind, each in zip(("data", "model"), both.values(), strict=True):
        pods = pod_of(each).prepared(12, 20, 137, "x"), make_pod(f"{kind}-2", 21).scheduled(22)
        shown[kind] = shared(each, *pods), shared(each, pods[0])
    snapshot = FIXED.model_copy(update=both)
    first, second = ({kind: pair[look] for kind, pair in shown.items()} for look in (0, 1))
    known = told(decide_model(replace(seen_both(**first), snapshot=snapshot), now=30))
    return told(decide_model(replace(seen_both(**second), snapshot=snapshot), known, now=60))


PREPARED_BY = ("preparation", "model_preparation")
STATUSES = statuses()


def mistakes(schema: dict[str, Any], value: Any, path: str) -> Iterator[str]:
    """What the API server would drop or refuse."""
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    if type(value) is not kinds[schema["type"]]:
        yield f"{path}: {value!r} is no {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    longest = schema.get("maxLength", schema.get("maxItems"))
    if longest is not None and len(value) > longest:
        yield f"{path}: longer than {longest}"
    if isinstance(value, list):
        for row in value:
            yield from mistakes(schema["items"], row, f"{path}[]")
    if isinstance(value, dict):
        yield from (f"{path}.{name} is required" for name in schema.get("required", ()) if name not in value)
        for name, inner in value.items():
            known = schema["properties"].get(name)
            yield from mistakes(known, inner, f"{path}.{name}") if known else [f"{path}.{name} is not in the CRD"]


def paths(value: Any, path: str) -> Iterator[str]:
    """Every field that a status has."""
    yield path
    for row in value if isinstance(value, list) else ():
        yield from paths(row, f"{path}[]")
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield from paths(inner, f"{path}.{name}")


@pytest.mark.parametrize("situation", STATUSES)
def test_a_status_fits_the_crd(situation: str) -> None:
    assert list(mistakes(SCHEMA, STATUSES[situation], "status")) == []


def test_every_field_of_the_crd_is_written_in_some_situation() -> None:
    written = {path for status in STATUSES.values() for path in paths(status, "status")}
    assert {path for path, _ in walk(SCHEMA, "status")} == written


def test_the_status_of_a_monthly_budget_fits_its_crd_and_has_every_field() -> None:
    schema = crd_schema("TrainingBudget", "status")
    books = Books("2026-11", (Entry("u" * 36, 1, "cxr", Decimal("1.2"), Decimal("0.3")),), (), 1, Decimal("3.4"))
    raw = make_budget()
    status = budget_status(raw, MonthlyBudget.model_validate(raw["spec"]), books, at(0))
    assert list(mistakes(schema, status, "status")) == []
    assert set(paths(status, "status")) == {path for path, _ in walk(schema, "status")}
    assert [c["type"] for c in status["conditions"]] == ["Ready", "Reconciling", "Stalled", "BudgetWarning"]


@pytest.mark.parametrize("situation", STATUSES)
def test_every_condition_that_the_crd_names_is_there_in_its_order(situation: str) -> None:
    described = SCHEMA["properties"]["conditions"]["description"]
    always, beside = re.fullmatch(r"(.*); with a budget (\w+) too\.", described).groups()
    told = [c["type"] for c in STATUSES[situation]["conditions"]]
    assert told == [*always.split(", "), *([beside] if "budget" in STATUSES[situation] else [])]


def test_a_mistake_is_found() -> None:
    wrong = {
        "state": "Sleeping",
        "cost": {"total": 1},
        "runsOn": "x" * 257,
        "conditions": [{"type": "Ready"}],
        "more": 1,
    }
    found = sorted(mistake.partition(":")[0] for mistake in mistakes(SCHEMA, wrong, "status"))
    missing = [
        f"status.conditions[].{name} is required" for name in ("lastTransitionTime", "message", "reason", "status")
    ]
    assert found == [*missing, "status.cost.total", "status.more is not in the CRD", "status.runsOn", "status.state"]
