"""Parts of `describe` that no run of the integration tests shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from xray_cli.description import Page, age_between, attempts, cost, describe_job, former_runs, results, timeline

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
PIPE = Page(None, NOW)


@pytest.mark.parametrize(
    ("seconds", "age"),
    [
        (-5, "0s"),
        (119, "119s"),
        (120, "2m"),
        (184, "3m4s"),
        (720, "12m"),
        (3 * 3600 + 60, "3h1m"),
        (9 * 3600, "9h"),
        (2 * 86400, "2d"),
        (3 * 86400 + 7200, "3d2h"),
        (120 * 86400, "120d"),
    ],
)
def test_ages_are_kubectls(seconds: int, age: str) -> None:
    assert age_between(NOW - timedelta(seconds=seconds), NOW) == age


def attempt(pod: str, seconds: int, **more: Any) -> dict[str, Any]:
    return {"podName": pod, "startedAt": "2026-11-22T10:00:00Z", "trainingSeconds": seconds, **more}


def test_each_attempt_has_its_part_of_the_bill_and_what_of_it_was_lost() -> None:
    killed = {"reason": "Killed", "exitCode": 137, "message": "killed", "finishedAt": "2026-11-22T11:00:00Z"}
    bill = {"billedSeconds": 300, "amount": "0.7083", "lostSeconds": 40, "lostAmount": "0.0944"}
    rows = [attempt("a", 208, **killed, **bill), attempt("b", 9, estimated=True, amount="0.0213", unsavedSeconds=3)]
    lines = attempts({"attempts": rows}, PIPE)
    assert lines[1].split()[3:] == ["208s", "0.7083", "0.0944", "Killed", "137"]
    assert lines[2].split()[3:] == ["about", "9s", "0.0213", "goes", "on"]
    assert "killed" in lines[3]
    unpriced = attempts({"attempts": [attempt("a", 1)]}, PIPE)
    assert unpriced[0].split() == ["ATTEMPT", "POD", "STARTED", "HELD", "ENDED"]


def test_the_bill_has_the_preparation_that_the_run_pays_in_its_phases_and_names_one_that_it_does_not() -> None:
    phases = [{"name": "DataPreparation", "seconds": 6300, "amount": "0.3500"}]
    section = {"priced": True, "currency": "USD", "perHour": "8.50", "total": "0.3500", "heldSeconds": 0}
    status = {
        "cost": {**section, "lostAmount": "0.0944", "phases": phases},
        "budget": {"limit": "5", "currency": "USD", "display": "2.52 of 5.00 USD left"},
        "preparation": {"cost": "0.35 USD", "amount": "0.3500"},
        "modelPreparation": {"cost": "shared"},
    }
    told = [line.split() for line in cost(status, PIPE)]
    assert told[1] == ["DataPreparation", "6300s", "0.3500"]
    assert told[2:] == [
        ["Held:", "0s", "(8.50", "USD", "per", "hour)"],
        ["Total:", "0.3500", "USD"],
        ["Budget:", "2.52", "of", "5.00", "USD", "left"],
        ["Lost:", "0.0944", "USD,", "in", "Training"],
        ["Model", "preparation:", "shared"],
    ]


def test_phases_in_their_order() -> None:
    span = {"startedAt": "2026-11-22T10:00:00Z", "finishedAt": "2026-11-22T10:00:00Z", "seconds": 0}
    status = {
        "times": {"compiling": {"startedAt": "2026-11-22T10:00:05Z"}, "preparing": span, "queued": span},
        "preparation": {"startedAt": "2026-11-22T09:00:00Z", "cost": "shared", "flavor": "cpu", "seconds": 3},
    }
    assert [line.split() for line in timeline(status, PIPE)[1:]] == [
        ["Data", "preparation", "2026-11-22T09:00:00Z", "goes", "on", "shared", "cpu"],
        ["Queued", "2026-11-22T10:00:00Z", "0"],
        ["Preparing", "2026-11-22T10:00:00Z", "0"],
        ["Compiling", "2026-11-22T10:00:05Z", "goes", "on"],
    ]


def test_an_auroc_with_its_interval() -> None:
    found = {"aurocMacro": "0.7681", "aurocInterval": ["0.7512", "0.7801"], "findingsEvaluated": 14, "images": 25596}
    found["aurocFloor"] = "0.6012"
    assert results({"results": found | {"findings": []}}, PIPE) == [
        "  AUROC:        0.7681 [0.7512, 0.7801], mean of 14 findings on 25,596 held-out images",
        "  AUROC floor:  0.6012, without looking at a film",
    ]
    assert results({"results": {"adopted": True}}, PIPE)[0] == "  AUROC:    not computable"


def test_earlier_runs() -> None:
    rows = [{"rerun": 0, "state": "Failed"}, {"rerun": 1, "state": "Succeeded", "aurocMacro": "0.7", "cost": "1 USD"}]
    assert former_runs({"formerRuns": rows}, PIPE) == [
        "  RERUN   STATE       AUROC   COST",
        "  0       Failed",
        "  1       Succeeded   0.7     1 USD",
    ]


def test_a_job_that_nobody_has_looked_at() -> None:
    spec: dict[str, Any] = {
        "flavor": "cpu",
        "model": {"name": "own", "claimName": "models"},
        "dataset": {"source": {"http": {}}},
        "output": {"claimName": "out"},
    }
    metadata = {"name": "cxr", "namespace": "chest", "creationTimestamp": "2026-11-22T11:59:00Z"}
    lines = describe_job({"metadata": metadata, "spec": spec}, [], PIPE)
    assert lines == [
        "Name:       cxr",
        "Namespace:  chest",
        "State:      Pending",
        "Created:    2026-11-22T11:59:00Z (60s ago)",
        "",
        "Asked:",
        "  Flavor:      cpu",
        "  Model:       own on claim models",
        "  Data:        http",
        "  Results to:  claim out",
    ]


def test_texts_are_wrapped_beside_their_names() -> None:
    assert Page(40, NOW).pairs([("Because", "one two three four five six seven eight"), ("None", "")]) == [
        "Because:  one two three four five six",
        "          seven eight",
    ]


def test_a_job_that_has_not_begun_says_what_it_will_probably_cost() -> None:
    projected = {"source": "history (3 runs)", "p50Seconds": 2035, "display": "about 4.80 USD, p90 7.17 USD"}
    (line,) = cost({"cost": {"projected": projected}}, PIPE)
    told = "Projected: about 4.80 USD, p90 7.17 USD in 33 min 55 s, from history (3 runs)"
    assert " ".join(line.split()) == told
