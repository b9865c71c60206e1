"""What is counted with each status write, and what is read from the jobs at each scrape."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.aio.client import ApiClient, Configuration

from tests.unit.operator.builders import CONFIG, at, make_flavor, make_job, make_pod, started, train_result
from tests.unit.operator.test_cost import cost_of as make_cost
from tests.unit.operator.test_workers import FakeCluster, make_operator, run_until_idle
from xray_operator.cluster.client import Cluster
from xray_operator.cluster.paths import resource_of
from xray_operator.core.accounting import finished_phases, spent
from xray_operator.core.bill import cost_section
from xray_operator.core.observed import Observed
from xray_operator.core.reconcile import reconcile
from xray_operator.core.spec import Price
from xray_operator.errors import ClusterError, Conflict, NotFound
from xray_operator.metrics import PHASE_BUCKETS, Metrics

PHASES = ("Preparing", "Training", "Evaluating")
"""That a run on processor cores holds its flavor in."""
PRICE = Price.model_validate({"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "USD", "perHour": "36.00"})
"""A cent a second."""
Status = dict[str, Any]


def status_after(*seconds: int, state: str = "Training", price: Price | None = PRICE, run: str = "cxr-1") -> Status:
    """Status of a run that held its flavor for so many seconds in Preparing, Training, Evaluating."""
    section = cost_section(make_cost(dict(zip(PHASES, seconds, strict=False)), price))
    entered = ("queued", *(phase.lower() for phase in PHASES[: len(seconds)]))
    return {
        "state": state,
        "run": {"jobName": run, "flavor": "vpod4"},
        "times": {name: {} for name in entered} | {"queued": {"seconds": 7}},
        "cost": section,
    }


LIVES = [status_after(10), status_after(10, price=None), {}]


def counted(*statuses: Status, first: Status | None = None) -> Metrics:
    """Metrics of an operator that wrote these statuses one after the other; `first` was there before it."""
    metrics = Metrics("1", list, lambda: 0)
    for before, after in zip([first or {}, *statuses], statuses, strict=False):
        metrics.status_written(make_job().status(before).build(), after)
    return metrics


def cost_of(metrics: Metrics, phase: str) -> float | None:
    labels = {"namespace": "radiology", "flavor": "vpod4", "phase": phase, "currency": "USD"}
    return metrics.registry.get_sample_value("xray_training_cost_total", labels)


def observed(metrics: Metrics, phase: str, flavor: str = "vpod4") -> tuple[float | None, float | None]:
    """How many runs have finished a phase, and their seconds in it."""
    value, labels = metrics.registry.get_sample_value, {"phase": phase, "flavor": flavor}
    name = "xray_training_phase_duration_seconds"
    return value(f"{name}_count", labels), value(f"{name}_sum", labels)


def lived(looks: Iterable[tuple[float, Observed]]) -> list[Status]:
    """The statuses that are written by an operator that sees this, each at its second."""
    written: list[Status] = [{}]
    for second, seen in looks:
        decision = reconcile(make_job().status(written[-1]).build(), seen, at(second), CONFIG)
        written += [decision.status] if decision.status else []
    return written[1:]


def names_of(metrics: Metrics) -> set[str]:
    return {sample.name for family in metrics.registry.collect() for sample in family.samples}


def test_the_counters_of_a_live_run_begin_at_zero_before_it_adds_to_them() -> None:
    live = [make_job(f"cxr-{n}").status(status).raw() for n, status in enumerate(LIVES)]
    metrics = Metrics("1", lambda: live, lambda: 0)
    names_of(metrics)
    assert [cost_of(metrics, phase) for phase in PHASES] == [0, 0, 0]
    assert [observed(metrics, phase) for phase in ("Queued", *PHASES)] == [(0, 0)] * 4
    assert cost_of(metrics, "Queued") is None


def test_no_counter_is_made_for_a_run_that_is_over_or_not_begun() -> None:
    still = [make_job("a").status(status_after(10, state="Succeeded")).raw(), make_job("b").raw()]
    metrics = Metrics("1", lambda: still, lambda: 0)
    assert not {"xray_training_cost_total", "xray_training_phase_duration_seconds_count"} & names_of(metrics)


def test_money_is_counted_in_the_phase_that_spent_it() -> None:
    metrics = counted(status_after(), status_after(10), status_after(10, 30), status_after(10, 30, 5))
    assert [cost_of(metrics, phase) for phase in PHASES] == pytest.approx([0.10, 0.30, 0.05])


def test_lost_money_is_counted_as_the_status_tells_it() -> None:
    def losing(amount: str, run: str = "cxr-1") -> Status:
        status = status_after(10, 30, run=run)
        status["cost"] |= {"lostAmount": amount} if amount else {}
        return status

    labels = {"namespace": "radiology", "flavor": "vpod4", "currency": "USD"}
    lives = [losing(amount) for amount in ("0.2000", "0.1900", "0.3000")]
    metrics = counted(*lives, losing("0.5000", "cxr-2"), first=losing("0.1000"))
    total = metrics.registry.get_sample_value("xray_training_lost_cost_total", labels)
    assert total == pytest.approx(0.10 + 0.11 + 0.50), "a restarted operator counts only what is lost since"


def test_a_life_with_two_attempts_is_counted_as_its_status_tells_it() -> None:
    flavor = make_flavor(prices=[{"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "USD", "perHour": "9.99"}])
    failed = make_pod("cxr-1").scheduled(10).prepared(12, 40).trained(42, 100, code=21, message="")
    second = train_result(evaluating=190)
    looks = [
        (3, [make_pod("cxr-1")]),
        (20, [make_pod("cxr-1").scheduled(10).prepares(12)]),
        (60, [make_pod("cxr-1").scheduled(10).prepared(12, 40).trains(42)]),
        (101, [failed]),
        (115, [failed, make_pod("cxr-2", 105).scheduled(110).prepares(112)]),
        (150, [failed, make_pod("cxr-2", 105).scheduled(110).prepared(112, 120).trains(122)]),
        (210, [failed, make_pod("cxr-2", 105).scheduled(110).prepared(112, 120).trained(122, 200, message=second)]),
    ]
    last = looks[-1][0]
    statuses = lived(
        (time, started(*pods, end="Complete" if time == last else "", flavor=flavor)) for time, pods in looks
    )
    metrics = counted(*statuses)
    family = next(f for f in metrics.registry.collect() if f.name == "xray_training_cost")
    assert {sample.labels["flavor"] for sample in family.samples} == {"demo-vpod4"}
    assert sum(sample.value for sample in family.samples) == pytest.approx(float(statuses[-1]["cost"]["total"]))
    phases = ("Queued", "Preparing", "Training", "Evaluating")
    assert [observed(metrics, phase, "demo-vpod4") for phase in phases] == [(1, 10), (1, 28), (1, 126), (1, 10)]


def test_what_a_bill_takes_back_at_the_end_of_a_pod_was_not_counted() -> None:
    """The look at second 115 comes between the pod's end, at 100, and the word of it."""
    flavor = make_flavor(prices=[{"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "USD", "perHour": "3600"}])
    pods = [make_pod("cxr-1").scheduled(10).prepared(12, 40) for _ in range(3)]
    looks = [(60, pods[0].trains(42), ""), (115, pods[1].trains(42), ""), (116, pods[2].trained(42, 100), "Complete")]
    statuses = lived((time, started(pod, end=end, flavor=flavor)) for time, pod, end in looks)
    totals = [status["cost"]["total"] for status in statuses]
    assert totals == ["50.0000", "105.0000", "90.0000"], "the bill itself says what is known"
    family = next(f for f in counted(*statuses).registry.collect() if f.name == "xray_training_cost")
    assert sum(sample.value for sample in family.samples) == pytest.approx(90)


def test_a_priced_run_has_its_series_before_it_spends() -> None:
    """Prometheus sees no increase in a value that it meets for the first time."""
    assert [cost_of(counted(status_after()), phase) for phase in PHASES] == [0, 0, 0]


def test_a_restarted_operator_does_not_count_again_what_the_status_had() -> None:
    metrics = counted(status_after(10, 30), first=status_after(10, 20))
    assert cost_of(metrics, "Training") == pytest.approx(0.10)
    assert cost_of(metrics, "Preparing") == 0
    assert observed(metrics, "Preparing") == (None, None)


def test_a_new_run_of_the_same_job_starts_at_its_own_cost() -> None:
    ended = status_after(10, 30, 5, state="Succeeded")
    metrics = counted(status_after(10, 30), ended, status_after(4, run="cxr-2"), status_after(4, 2, run="cxr-2"))
    assert cost_of(metrics, "Preparing") == pytest.approx(0.14)
    assert cost_of(metrics, "Training") == pytest.approx(0.32)
    assert observed(metrics, "Preparing") == (2, 14)


def test_a_run_without_a_price_has_no_cost_series() -> None:
    metrics = counted(status_after(10, price=None), status_after(10, 30, price=None))
    assert "xray_training_cost_total" not in names_of(metrics)
    assert observed(metrics, "Preparing") == (1, 10)


def test_what_was_billed_ahead_stays_with_its_phase_and_nothing_is_counted_twice() -> None:
    hourly = PRICE.model_copy(update={"increment_seconds": 3600})
    first_hour = counted(status_after(10, price=hourly), status_after(10, 3000, price=hourly))
    assert cost_of(first_hour, "Preparing") == 36
    assert cost_of(first_hour, "Training") == 0
    second_hour = counted(status_after(10, 3600, price=hourly), first=status_after(10, 3000, price=hourly))
    assert cost_of(second_hour, "Training") == pytest.approx(36, abs=0.1)


seconds_of_a_life = st.lists(
    st.tuples(*[st.integers(0, 5000)] * 3), min_size=1, max_size=6
)  # what each write adds to each phase


@given(seconds_of_a_life, st.integers(1, 4000), st.integers(1, 4000))
def test_what_is_counted_adds_up_to_the_cost_whenever_it_is_written(
    steps: Iterable[tuple[int, int, int]], minimum: int, increment: int
) -> None:
    price = PRICE.model_copy(update={"minimum_seconds": minimum, "increment_seconds": increment})
    held, before, total = [0, 0, 0], dict[str, Any](), Decimal(0)
    for step in steps:
        held = [have + more for have, more in zip(held, step, strict=True)]
        after = status_after(*held, price=price)
        growth = spent(before, after)
        assert all(amount >= 0 for amount in growth.values())
        total += sum(growth.values())
        assert total == pytest.approx(Decimal(after["cost"]["total"]), abs=Decimal("1e-20"))
        before = after


def test_a_phase_is_over_when_the_next_begins_and_the_last_with_success() -> None:
    begun, training = status_after(12), status_after(12, 30)
    assert finished_phases({}, begun) == {"Queued": 7}
    assert finished_phases(begun, training) == {"Preparing": 12}
    assert finished_phases(training, status_after(12, 30, state="Failed")) == {}
    succeeded = status_after(12, 30, 5, state="Succeeded")
    assert finished_phases(training, succeeded) == {"Training": 30, "Evaluating": 5}
    assert finished_phases(succeeded, succeeded) == {}


def test_hours_are_told_to_within_a_half() -> None:
    """Prometheus guesses between two bounds: a wait of two hours in a bucket up to four was told as more than three."""
    hours = [bound for bound in PHASE_BUCKETS if 3600 <= bound <= 12 * 3600]
    assert (hours[0], hours[-1]) == (3600, 12 * 3600)
    assert max(upper / lower for lower, upper in pairwise(hours)) <= 1.5


def test_a_phase_that_a_new_attempt_enters_again_is_finished_once() -> None:
    again = status_after(15, 30)
    again["times"].pop("training")
    metrics = counted(status_after(10, 30), again, status_after(15, 40), status_after(15, 40, 5))
    assert observed(metrics, "Preparing") == (1, 10)
    assert observed(metrics, "Training") == (1, 40)


@pytest.mark.parametrize("error", [Conflict("x", 409, ""), ClusterError("x", 500, "")])
async def test_only_a_status_that_was_written_counts(error: ClusterError) -> None:
    cluster = FakeCluster()
    raw = make_job().status(status_after(10)).raw()
    operator = make_operator(cluster, raw)
    operator.index.flavors = {}  # its status has to be written: the flavor is gone
    written: list[str] = []
    operator.metrics.status_written = lambda job, _: written.append(job.ref.name)  # type: ignore[method-assign, assignment]
    cluster.errors["PUT"] = error
    operator.queue.add(raw["metadata"]["uid"])
    await run_until_idle(operator)
    assert (cluster.calls[-1], written) == ("PUT status", [])
    del cluster.errors["PUT"]
    operator.queue.add(raw["metadata"]["uid"])
    await run_until_idle(operator)
    assert written == ["cxr"]


@pytest.mark.parametrize(
    ("path", "resource", "one"),
    [
        ("/apis/xray.training/v1alpha1", "apiresources", False),
        ("/api/v1/namespaces/a", "namespaces", True),
        ("/api/v1/namespaces/a/configmaps", "configmaps", False),
        ("/api/v1/namespaces/a/persistentvolumeclaims/b", "persistentvolumeclaims", True),
        ("/apis/xray.training/v1alpha1/acceleratorflavors", "acceleratorflavors", False),
        ("/apis/batch/v1/namespaces/a/jobs/b", "jobs", True),
        ("/apis/xray.training/v1alpha1/namespaces/a/xraytrainingjobs/b/status", "xraytrainingjobs/status", True),
    ],
)
def test_a_request_is_counted_under_the_resource_that_rbac_names(path: str, resource: str, one: bool) -> None:
    assert resource_of(path) == (resource, one)


async def test_every_request_is_counted_with_its_answer_or_the_lack_of_one() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({}, status=404 if request.path.endswith("absent") else 200)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    cluster = Cluster(ApiClient(Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")), 5)
    metrics = Metrics("1", list, lambda: 0)
    cluster.answered = metrics.request_answered
    pods = "/api/v1/namespaces/a/pods"
    await cluster.get(pods)
    await cluster.create(pods, {})
    with pytest.raises(NotFound):
        await cluster.get(f"{pods}/absent")
    await runner.cleanup()
    with pytest.raises(ClusterError):
        await cluster.replace(f"{pods}/b/status", {})
    await cluster.close()
    family = next(f for f in metrics.registry.collect() if f.name == "xray_training_api_requests")
    assert [(s.labels["verb"], s.labels["resource"], s.labels["code"], s.value) for s in family.samples] == [
        ("list", "pods", "200", 1),
        ("create", "pods", "200", 1),
        ("get", "pods", "404", 1),
        ("update", "pods/status", "<error>", 1),
    ]


def test_what_a_preparation_costs_is_counted_on_its_own_flavor() -> None:
    def preparing(amount: str, **fields: Any) -> Status:
        status = status_after()
        status["cost"]["phases"] += [{"name": "DataPreparation", "seconds": 1, "amount": amount}]
        status["cost"]["total"] = amount
        return status | {"preparation": {"flavor": "cpu", **fields}}

    metrics = counted(preparing("0.0100"), preparing("0.0300"), preparing("0.0000", cost="shared"))
    labels = {"namespace": "radiology", "flavor": "cpu", "phase": "DataPreparation", "currency": "USD"}
    value = metrics.registry.get_sample_value
    assert value("xray_training_cost_total", labels) == pytest.approx(0.03), "a counter can't take back"
    live = Metrics("1", lambda: [make_job().status(preparing("0.0100")).raw()], lambda: 0)
    names_of(live)
    assert live.registry.get_sample_value("xray_training_cost_total", labels) == 0, "there before it is added to"
