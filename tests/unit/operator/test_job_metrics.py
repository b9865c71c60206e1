"""What a scrape reads of the jobs as they are: it follows their status, and goes with them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.unit.operator.builders import at, make_job
from tests.unit.operator.test_metrics import Status, status_after
from xray_operator import names
from xray_operator.core.attempts import render_time
from xray_operator.job_metrics import JOB_GAUGES
from xray_operator.metrics import Metrics

NAME = {"namespace": "radiology", "name": "cxr"}
ON_FLAVOR = NAME | {"flavor": "vpod4"}
MONEY = ON_FLAVOR | {"currency": "USD"}
NOW = 600


def running(reason: str) -> dict[str, Any]:
    return {"type": names.RUNNING, "status": "True", "reason": reason}


TELLS = {
    "progressPercentage": 40,
    "metrics": [
        {"name": "loss", "value": "0.2207"},
        {"name": "images_per_second", "value": "93.5"},
        {"name": "validation_auroc_macro", "value": "0.7681"},
    ],
}
TRAINING = status_after(10, 30) | {
    "trainerStatus": TELLS,
    "checkpoint": {"step": 6, "time": render_time(at(585))},
    "conditions": [running("Training")],
}
TRAINING["cost"] |= {"lostSeconds": 12, "lostAmount": "0.1200"}
UNPRICED = status_after(10, price=None) | {"attempts": [{"podName": "cxr-pod"}]}
PREPARING: Status = {
    "state": "Preparing",
    "preparation": {"attempts": [{"podName": "a", "reason": "Killed"}, {"podName": "b"}]},
    "modelPreparation": {"finishedAt": render_time(at(9)), "attempts": [{"podName": "c", "reason": "Killed"}]},
    "data": {"images": 21034, "imagesPerSecond": "94.1"},
    "conditions": [running("AttemptFailed")],
}
QUEUED: Status = {"state": "Queued", "run": {"jobName": "cxr-1", "flavor": "vpod4", "startedAt": render_time(at(1))}}
ENDED = TRAINING | {"state": "Succeeded"}


def metrics_of(*statuses: Any) -> Metrics:
    """Of jobs with these statuses, the first one called cxr."""
    jobs = [make_job(f"cxr{n or ''}").status(status).raw() for n, status in enumerate(statuses)]
    return Metrics("1", lambda: jobs, lambda: 0, lambda: at(NOW).timestamp())


def value(status: Any, metric: str, labels: dict[str, str]) -> float | None:
    return metrics_of(status).registry.get_sample_value(f"xray_training_{metric}", labels)


@pytest.mark.parametrize(
    ("metric", "labels", "status", "wanted"),
    [
        ("run_cost", MONEY, TRAINING, 0.4),
        ("run_cost", MONEY, ENDED, 0.4),
        ("run_lost_cost", MONEY, TRAINING, 0.12),
        ("run_lost_cost", MONEY, status_after(10), 0),
        ("unpriced", ON_FLAVOR, UNPRICED, 1),
        ("progress_ratio", NAME, TRAINING, 0.4),
        ("stalled", NAME, TRAINING, 0),
        ("stalled", NAME, TRAINING | {"conditions": [running("NoProgress")]}, 1),
        ("stalled", NAME, PREPARING, 0),
        ("checkpoint_age_seconds", NAME, TRAINING, 15),
        ("images_per_second", NAME, TRAINING, 93.5),
        ("loss", NAME, TRAINING, 0.2207),
        ("validation_auroc_macro", NAME, TRAINING, 0.7681),
        ("preparation_images_per_second", NAME, PREPARING, 94.1),
        ("preparation_failures", NAME, PREPARING, 1),
        ("queue_age_seconds", NAME, QUEUED, 599),
    ],
)
def test_a_figure_is_that_of_the_status(metric: str, labels: dict[str, str], status: Status, wanted: float) -> None:
    assert value(status, metric, labels) == wanted


@pytest.mark.parametrize("status", [ENDED, TRAINING | {"state": "Suspended"}, {"state": "Pending"}, {}])
def test_a_run_that_does_not_go_on_has_nothing_but_its_money(status: Status) -> None:
    told = {
        family.name
        for family in metrics_of(status).registry.collect()
        for sample in family.samples
        if "name" in sample.labels
    }
    assert told <= {"xray_training_run_cost", "xray_training_run_lost_cost"}


def test_a_run_without_a_price_is_told_of_until_it_is_over_and_only_once_it_holds_its_flavor() -> None:
    assert value(UNPRICED | {"state": "Suspended"}, "unpriced", ON_FLAVOR) == 1
    assert value(UNPRICED | {"state": "Failed"}, "unpriced", ON_FLAVOR) is None
    assert value(status_after(price=None), "unpriced", ON_FLAVOR) is None
    assert value(TRAINING, "unpriced", ON_FLAVOR) is None


def test_a_flavor_without_a_price_that_only_prepared_is_told_of_with_the_run_that_pays_for_it() -> None:
    """Its total is known to be too small, and nobody else tells the platform team."""
    labels, prepared = NAME | {"flavor": "prepare-cpu"}, {"flavor": "prepare-cpu", "cost": "unpriced"}
    assert value(TRAINING | {"preparation": prepared}, "unpriced", labels) == 1
    assert value(TRAINING | {"modelPreparation": prepared}, "unpriced", labels) == 1
    assert value(TRAINING | {"preparation": prepared}, "unpriced", ON_FLAVOR) is None
    assert value(ENDED | {"preparation": prepared}, "unpriced", labels) is None
    assert value(TRAINING | {"preparation": prepared | {"cost": "shared"}}, "unpriced", labels) is None
    assert value(TRAINING | {"preparation": prepared | {"cost": "0.10 USD"}}, "unpriced", labels) is None


@pytest.mark.parametrize(
    ("more", "waited"),
    [
        ({}, 599),
        ({"preparation": {"finishedAt": render_time(at(100))}}, 500),
        ({"attempts": [{"podName": "cxr-pod", "finishedAt": render_time(at(400))}]}, 200),
        (
            {
                "conditions": [
                    {"type": "Accepted", "status": "True", "lastTransitionTime": render_time(at(1))},
                    {"type": "Suspended", "status": "False", "lastTransitionTime": render_time(at(550))},
                ]
            },
            50,
        ),
        ({"state": "Training"}, None),
    ],
)
def test_the_queue_s_clock_begins_when_the_run_could_have_had_a_node(more: Status, waited: float | None) -> None:
    assert value(QUEUED | more, "queue_age_seconds", NAME) == waited


def since(kind: str, status: str, second: float) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": "Any", "lastTransitionTime": render_time(at(second))}


def test_a_run_that_goes_on_from_an_old_checkpoint_can_lose_no_more_than_it_has_done_since() -> None:
    attempts = [{"podName": "a", "startedAt": render_time(at(5))}, {"podName": "b", "startedAt": render_time(at(560))}]
    resumed = TRAINING | {"attempts": attempts, "checkpoint": {"step": 6, "time": render_time(at(100))}}
    assert value(resumed, "checkpoint_age_seconds", NAME) == 40
    assert value(TRAINING | {"attempts": attempts}, "checkpoint_age_seconds", NAME) == 15


def test_a_job_waits_also_for_an_obstacle_that_may_pass_and_for_no_other() -> None:
    passes = [since("Ready", "Unknown", 100), since("Reconciling", "True", 100)]
    lasts = [since("Ready", "False", 100), since("Reconciling", "False", 100)]
    assert value({"state": "Pending", "conditions": passes}, "queue_age_seconds", NAME) == 500
    assert value({"state": "Pending", "conditions": lasts}, "queue_age_seconds", NAME) is None


def test_a_preparation_that_was_stopped_has_not_failed() -> None:
    stopped = {"podName": "a", "reason": "Stopped", "exitCode": names.STOPPED_EXIT_CODE}
    assert value(QUEUED | {"attempts": [stopped, stopped]}, "preparation_failures", NAME) == 0
    assert value(PREPARING | {"preparation": {"attempts": [stopped]}}, "preparation_failures", NAME) == 0


def test_failures_of_a_preparation_in_the_run_s_own_pod_count_until_its_data_is_there() -> None:
    failed = QUEUED | {"attempts": [{"podName": "cxr-pod", "reason": "TransportFailed"}]}
    assert value(failed, "preparation_failures", NAME) == 1
    ready = [{"type": "DataReady", "status": "True", "reason": "Prepared"}]
    assert value(failed | {"conditions": ready}, "preparation_failures", NAME) is None


def test_jobs_are_counted_by_state_and_the_flavor_that_they_want_and_nonsense_is_pending() -> None:
    count = metrics_of(TRAINING, TRAINING, {"state": "x"}, {}).registry.get_sample_value
    labels = {"namespace": "radiology", "flavor": "demo-vpod4"}
    assert count("xray_training_jobs", labels | {"state": "Training"}) == 2
    assert count("xray_training_jobs", labels | {"state": "Pending"}) == 2


def test_a_deleted_job_leaves_no_series_of_its_own() -> None:
    """By all families that there are, whatever they are called."""
    jobs = [make_job("cxr").status(s).raw() for s in (TRAINING, UNPRICED, PREPARING, QUEUED)]
    metrics = Metrics("1", lambda: jobs, lambda: 0, lambda: at(NOW).timestamp())

    def told() -> set[str]:
        samples = [sample for family in metrics.registry.collect() for sample in family.samples]
        return {sample.name for sample in samples if sample.labels.get("name") or sample.name == "xray_training_jobs"}

    each = {"xray_training_jobs", "xray_training_unpriced", *(gauge.name for gauge in JOB_GAUGES)}
    assert told() == each, "each of them was there"
    jobs.clear()
    assert told() == set()


def test_every_gauge_of_a_job_names_it() -> None:
    assert [gauge.name for gauge in JOB_GAUGES if gauge.labels[:2] != ("namespace", "name")] == []


@pytest.mark.parametrize(
    "status",
    [
        None,
        "x",
        {"cost": None, "trainerStatus": [], "run": 3},
        {"state": "Training", "conditions": 3, "attempts": "x"},
        {"cost": {"total": "a lot", "currency": "USD"}},
        {"cost": {"total": "NaN", "currency": "USD"}},
        {"cost": {"total": 3}},
        {"state": "Stopped", "cost": {"priced": 0}, "attempts": [{}]},
        {"state": ["Training"]},
        {"state": "Suspended", "trainerStatus": {"metrics": [3]}},
    ],
)
def test_a_status_that_is_nonsense_spoils_no_scrape(status: Any) -> None:
    metrics = metrics_of(TRAINING, status)
    told = {s.labels["name"] for f in metrics.registry.collect() for s in f.samples if "name" in s.labels}
    assert told == {"cxr"}


@pytest.mark.parametrize(
    ("metric", "status"),
    [
        ("progress_ratio", {"state": "Training", "trainerStatus": {"progressPercentage": "40"}}),
        ("checkpoint_age_seconds", {"state": "Training", "checkpoint": {"time": "soon"}}),
        ("loss", {"state": "Training", "trainerStatus": {"metrics": {"name": "loss"}}}),
        *(("loss", TRAINING | {"trainerStatus": {"metrics": [{"name": "loss", "value": v}]}}) for v in ("x", "nan", 3)),
        ("preparation_images_per_second", {"state": "Preparing", "data": {"imagesPerSecond": 94}}),
    ],
)
def test_what_is_no_number_is_not_told(metric: str, status: Status) -> None:
    assert value(status, metric, NAME) is None


def test_no_figure_is_no_number() -> None:
    for status in (TRAINING, UNPRICED, PREPARING, QUEUED):
        samples = [s for f in metrics_of(status).registry.collect() for s in f.samples if "name" in s.labels]
        assert all(math.isfinite(sample.value) for sample in samples)
