"""spec.budget: a run is told of, and stopped so early that its bill stays within the limit."""

from __future__ import annotations

from bisect import bisect_left
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit.operator.builders import (
    BEGIN,
    CONFIG,
    FLAVORS,
    UID,
    at,
    condition,
    decide,
    make_flavor,
    make_job,
    make_pod,
    make_run,
    reasons,
    started,
    told,
)
from tests.unit.operator.test_cost import PRICES, price
from tests.unit.operator.test_halt import PROGRESS, RUNNING, stopped_pod
from tests.unit.operator.test_preparation import ELSE, NAME, data_job, data_pod, decide_first, seen
from xray_operator import names
from xray_operator.core.attempts import Attempt, Failure, render_time
from xray_operator.core.batch_job import GRACE_SECONDS
from xray_operator.core.bill import run_until
from xray_operator.core.budget import (
    REACTION_SECONDS,
    STOP_SECONDS,
    budget_section,
    least_amount,
    longest_attempt,
    trainer_seconds,
)
from xray_operator.core.cost import amount_of, billed_seconds
from xray_operator.core.halt import NO_END, deadline, find_halt
from xray_operator.core.observed import Observed
from xray_operator.core.reconcile import Decision, reconcile
from xray_operator.core.run_file import build_run_file
from xray_operator.core.spec import Budget, Limits, LiveSpec, Price

CENT = {"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "USD", "perHour": "36"}
"""A cent a second."""
FLAVOR = make_flavor(prices=[CENT])
start = partial(decide, Observed(flavors=FLAVORS | {"demo-vpod4": FLAVOR}), now=100)


def run(*pods: Any, **fields: Any) -> Observed:
    return started(*pods, flavor=FLAVOR, **fields)


def dollars(limit: str, **fields: Any) -> dict[str, Any]:
    return {"limit": limit, "currency": "USD"} | fields


def live(limit: Decimal, **fields: Any) -> LiveSpec:
    return LiveSpec.model_validate({"budget": dollars(str(limit), **fields)})


def attempt(number: int, held: int, *, over: bool) -> Attempt:
    begin = BEGIN + timedelta(days=number)
    seconds = dict.fromkeys(names.HELD_PHASES, 0) | {names.TRAINING: held}
    failure = Failure("Stopped", "", 143) if over else None
    return Attempt(f"cxr-{number}", begin, begin + timedelta(seconds=held) if over else None, seconds, failure)


def bill(attempts: list[Attempt], paid: Price) -> Decimal:
    return amount_of(sum(billed_seconds(each.held, paid) for each in attempts), paid)


LIMITS = st.decimals("0.0001", 10**5, places=4)
PREPARED = st.decimals(0, 10**3, places=4)


@given(PRICES, LIMITS, PREPARED, st.data())
def test_a_bill_stays_within_its_limit_however_often_a_run_is_tried(
    paid: Price, limit: Decimal, prepared: Decimal, data: st.DataObject
) -> None:
    """What the operator takes to stop a pod is at most REACTION_SECONDS, and the pod ends within its grace."""
    assume(prepared <= limit)
    attempts: list[Attempt] = []
    for number in range(data.draw(st.integers(1, 6), "attempts")):
        if find_halt(live(limit), attempts, paid, prepared):
            break
        ends = data.draw(st.integers(0, 10**5), "ends by itself")

        def is_due(held: int, number: int = number) -> bool:
            return find_halt(live(limit), [*attempts, attempt(number, held, over=False)], paid, prepared) is not None

        due = bisect_left(range(ends), True, key=is_due)
        stopped = due + data.draw(st.integers(0, REACTION_SECONDS)) + data.draw(st.integers(0, GRACE_SECONDS))
        attempts.append(attempt(number, min(stopped, ends), over=True))
    assert not attempts or bill(attempts, paid) + prepared <= limit


@given(PRICES, LIMITS)
def test_the_stop_comes_no_earlier_than_it_has_to(paid: Price, limit: Decimal) -> None:
    """One increment more, or a stop that takes its time, would be too much."""
    assume(paid.per_hour > 0)
    longest = longest_attempt(limit, paid)
    assert longest is not None
    if longest:
        assert billed_seconds(longest, paid) == longest
        assert amount_of(longest, paid) <= limit
    assert paid.per_hour * (longest + paid.increment_seconds) / 3600 > limit or paid.minimum_seconds > longest
    if longest >= STOP_SECONDS:
        assert not find_halt(live(limit), [attempt(0, longest - STOP_SECONDS, over=False)], paid)


@given(PRICES, LIMITS, st.lists(st.integers(1, 9999), max_size=3), st.integers(0, GRACE_SECONDS))
def test_a_trainer_that_nobody_stops_ends_within_the_limit_by_itself(
    paid: Price, limit: Decimal, former: list[int], grace: int
) -> None:
    attempts = [attempt(number, held, over=True) for number, held in enumerate(former)]
    assume(not find_halt(live(limit), attempts, paid))
    until = deadline(live(limit), paid, BEGIN, attempts)
    if until is None:
        assert amount_of(NO_END, paid) <= limit, "it can never cost so much"
        return
    held = int((until - BEGIN).total_seconds()) + grace
    assert held >= REACTION_SECONDS, "the operator is given the time to do it"
    billed = sum(billed_seconds(seconds, paid) for seconds in [*former, held])
    assert amount_of(billed, paid) <= limit


def test_a_trainer_knows_its_seconds_before_anybody_tells_it() -> None:
    paid = price("36", minimum=60, increment=60)
    budget = live(Decimal("10.30")).budget
    assert trainer_seconds(Limits(), budget, paid) == 1020 - GRACE_SECONDS, "17 whole minutes"
    assert trainer_seconds(Limits(run_seconds=600), budget, paid) == 600
    assert trainer_seconds(Limits(), live(Decimal(9), onExceed="Notify").budget, paid) is None
    assert trainer_seconds(Limits(), budget, None) is None
    file = build_run_file(make_run(make_job().spec(budget=dollars("10.30")), FLAVOR))
    assert file["max_seconds"] == 1030 - GRACE_SECONDS


@pytest.mark.parametrize(
    ("budget", "flavor", "reason", "words"),
    [
        (dollars("1.79"), {}, "BudgetTooLow", ("spec.budget.limit", "1.79 USD", "1.8000 USD", "180 s")),
        (
            dollars("35.99", onExceed="Notify"),
            {"prices": [CENT | {"minimumSeconds": 3600}]},
            "BudgetTooLow",
            ("35.99 USD", "36.0000 USD", "3600 s"),
        ),
        (
            {"limit": "20", "currency": "EUR"},
            {},
            "BudgetCurrency",
            ("spec.budget.currency", '"EUR"', "USD", "demo-vpod4"),
        ),
        (dollars("20"), {"prices": []}, "BudgetUnpriced", ("spec.budget", "demo-vpod4", "platform team")),
    ],
)
def test_a_budget_that_cant_be_kept_is_refused_at_the_start(
    budget: dict[str, Any], flavor: dict[str, Any], reason: str, words: tuple[str, ...]
) -> None:
    decision = decide(Observed(flavors={"demo-vpod4": FLAVOR | flavor}), budget=budget)
    assert decision.create is None
    status, why, message = condition(told(decision), "Accepted")
    assert (status, why) == ("False", reason)
    assert all(word in message for word in words), message
    assert condition(told(decision), "Stalled")[:2] == ("True", reason)


def test_a_limit_of_the_least_that_a_stop_costs_is_taken() -> None:
    assert least_amount(price("36")) == Decimal("1.8000")
    assert start(budget=dollars("1.8")).create is not None
    hour = {"demo-vpod4": FLAVOR | {"prices": [CENT | {"minimumSeconds": 3600}]}}
    assert decide(Observed(flavors=hour), budget=dollars("36")).create is not None
    assert decide(Observed(flavors=hour), budget=dollars("35.9999")).create is None


def test_a_budget_acts_in_a_queue_of_kueue_too() -> None:
    """Whose Jobs are deleted to stand still, for their `suspend` is Kueue's."""
    job = make_job().labelled(**{names.LABEL_QUEUE: "team"}).spec(budget=dollars("4"))
    assert reconcile(job.build(), Observed(flavors=FLAVORS), at(1), CONFIG).create is not None
    due = reconcile(job.build(), run(RUNNING, job=job, progress=PROGRESS), at(231), CONFIG)
    assert due.delete is not None
    assert reconcile(job.build(), run(RUNNING, job=job, progress=PROGRESS), at(230), CONFIG).delete is None


def test_a_run_is_stopped_before_its_limit_and_goes_on_when_that_is_raised() -> None:
    """It holds its flavor from second 10; a stop begins 180 s before 4 dollars, 400 s, are over."""
    budget = dollars("4", warnAtPercent=50)
    assert decide(run(RUNNING, progress=PROGRESS), now=230, budget=budget).suspend is None
    due = decide(run(RUNNING, progress=PROGRESS), now=231, budget=budget)
    assert due.suspend is True
    assert told(due)["state"] == "Training", "the pod still holds the flavor"
    assert condition(told(due), "Ready")[:2] == ("Unknown", "Suspending")
    ended = run(make_pod().scheduled(10).prepared(12, 40).trained(42, 250, 143, ""), suspended=True)
    stopped = decide(ended, status=told(due), now=300, budget=budget)
    status = told(stopped)
    assert (status["state"], condition(status, "Stalled")[1]) == ("Stopped", "BudgetReached")
    assert condition(status, "Ready")[0] == "False"
    assert "4 USD" in condition(status, "Stalled")[2]
    assert [event["reason"] for event in stopped.events if event["type"] == "Warning"] == ["Stopped"]
    too_little = decide(ended, status=status, now=9999, budget=dollars("4.19"))
    assert too_little.suspend is None
    assert told(too_little)["budget"]["left"] == "1.7900"
    raised = decide(ended, status=status, now=9999, budget=dollars("4.20"))
    assert raised.suspend is False
    assert told(raised)["state"] == "Queued"


def test_a_run_whose_last_attempt_left_too_little_begins_no_other() -> None:
    budget = dollars("2.5")
    failed = run(stopped_pod(code=20))
    decision = decide(failed, now=120, budget=budget)
    assert decision.suspend is True, "before its Job makes another pod"
    assert told(decision)["state"] == "Stopped"
    assert decide(failed, now=120, budget=dollars("2.8")).suspend is None


def test_who_has_done_his_work_is_not_stopped() -> None:
    done = make_pod().scheduled(10).prepared(12, 40).trained(42, 110)
    assert decide(run(done), now=120, budget=dollars("1")).suspend is None
    assert told(decide(run(done, end="Complete"), now=120, budget=dollars("1")))["state"] == "Succeeded"


def test_notify_only_tells() -> None:
    budget = dollars("2", onExceed="Notify")
    near = decide(run(RUNNING, progress=PROGRESS), now=170, budget=budget)
    assert condition(told(near), "BudgetWarning")[:2] == ("True", "BudgetNearlySpent")
    assert "BudgetNearlySpent" in reasons(near)
    later = decide(run(RUNNING, progress=PROGRESS), status=told(near), now=205, budget=budget)
    assert "BudgetNearlySpent" not in reasons(later), "once"
    beyond = decide(run(RUNNING, progress=PROGRESS), status=told(near), now=240, budget=budget)
    assert (beyond.suspend, told(beyond)["state"]) == (None, "Training")
    assert condition(told(beyond), "BudgetWarning")[:2] == ("True", "BudgetExceeded")
    assert reasons(beyond) == ["BudgetExceeded"]
    assert told(beyond)["budget"] == {
        "limit": "2",
        "currency": "USD",
        "left": "-0.3000",
        "usedPercent": 115,
        "display": "0.30 USD above its 2.00",
    }


@pytest.mark.parametrize(
    ("total", "display"),
    [
        ("1.9999", "0.00 of 2.00 USD left"),
        ("2.0000", "0.00 of 2.00 USD left"),
        ("2.0001", "0.01 USD above its 2.00"),
        ("2.0101", "0.02 USD above its 2.00"),
        ("8.5000", "6.50 USD above its 2.00"),
    ],
)
def test_what_is_above_the_limit_is_told_as_such_and_never_as_nothing(total: str, display: str) -> None:
    section = budget_section(Budget.model_validate(dollars("2")), {"currency": "USD", "total": total})
    assert section["display"] == display


def test_a_warning_comes_once_for_each_limit() -> None:
    budget = dollars("4", warnAtPercent=25)
    quiet = decide(run(RUNNING, progress=PROGRESS), now=109, budget=budget)
    assert condition(told(quiet), "BudgetWarning") == ("False", "WithinBudget", "")
    warned = decide(run(RUNNING, progress=PROGRESS), status=told(quiet), now=110, budget=budget)
    assert reasons(warned) == ["BudgetNearlySpent"]
    assert "25 %" in condition(told(warned), "BudgetWarning")[2]
    assert decide(run(RUNNING, progress=PROGRESS), status=told(warned), now=111, budget=budget) == Decision()
    raised = decide(run(RUNNING, progress=PROGRESS), status=told(warned), now=111, budget=dollars("400"))
    assert condition(told(raised), "BudgetWarning")[0] == "False"
    without = decide(run(RUNNING, progress=PROGRESS), status=told(warned), now=111)
    assert "budget" not in told(without)
    assert "BudgetWarning" not in [row["type"] for row in told(without)["conditions"]]


@pytest.mark.parametrize(
    ("flavor", "reason"),
    [(make_flavor(prices=[]), "BudgetUnpriced"), (make_flavor(prices=[CENT | {"currency": "EUR"}]), "BudgetCurrency")],
)
def test_a_budget_that_a_live_run_cant_have_is_told_of_and_stops_nothing(flavor: dict[str, Any], reason: str) -> None:
    decision = decide(started(RUNNING, flavor=flavor, progress=PROGRESS), now=9999, budget=dollars("1"))
    assert decision.suspend is None
    assert condition(told(decision), "BudgetWarning")[:2] == ("Unknown", reason)
    assert told(decision)["budget"] == {"limit": "1", "currency": "USD"}


def test_a_trainer_that_stopped_itself_is_stopped_by_its_budget_and_goes_on_in_a_new_job() -> None:
    over = run(stopped_pod(code=16), end="PodFailurePolicy")
    status = told(decide(over, now=300, budget=dollars("2")))
    assert (status["state"], condition(status, "Stalled")[1]) == ("Stopped", "BudgetReached")
    raised = decide(over, status=status, now=400, budget=dollars("20"))
    assert raised.delete is not None
    gone = Observed(snapshot=over.snapshot)
    assert decide(gone, status=status, now=410, budget=dollars("2")).create is None, "not yet raised"
    assert decide(gone, status=status, now=410, budget=dollars("20")).create is not None


def test_what_is_paid_for_preparation_counts_and_preparation_is_stopped_too() -> None:
    """It holds a flavor at 0.36 an hour, a cent in 100 s, from second 10; a stop begins 180 s before the limit."""
    budget = dollars("0.50")
    preparing = data_job(data_pod(prepares=12))
    followed = decide_first(seen(preparing), now=4800, budget=budget)
    assert (followed.delete, told(followed)["state"]) == (None, "Preparing")
    due = decide_first(seen(preparing), told(followed), now=4831, budget=budget)
    assert due.delete is not None
    assert due.delete.name == NAME
    assert (told(due)["state"], condition(told(due), "Stalled")[1]) == ("Stopped", "BudgetReached")
    gone = decide_first(seen(), told(due), now=4900, budget=budget)
    assert (gone.create, gone.delete) == (None, None)
    assert told(gone)["state"] == "Stopped"
    assert Decimal(told(gone)["cost"]["total"]) == Decimal("0.4890"), "until that was seen"
    raised = decide_first(seen(), told(gone), now=5000, budget=dollars("5"))
    assert raised.create is not None
    assert raised.create["metadata"]["name"] == NAME, "the preparation goes on"


def test_a_preparation_that_others_wait_for_is_left_to_them_and_one_that_others_pay_is_no_reason() -> None:
    budget = dollars("0.50")
    ours = decide_first(seen(data_job(data_pod(prepares=12), owners=("0" * 36, ELSE))), now=9999, budget=budget)
    assert (ours.leave, ours.delete) == (None, None), "others pay"
    first = decide_first(seen(data_job(data_pod(prepares=12), owners=(UID, ELSE))), now=9999, budget=budget)
    assert first.leave is not None
    assert first.delete is None


def test_what_preparation_left_of_the_budget_has_to_pay_for_an_attempt() -> None:
    """The run's flavor costs 8.50 an hour: 180 s are 0.425."""
    ready = data_job(data_pod(ends=40), over="Complete")
    status = told(decide_first(seen(ready), now=41, budget=dollars("0.43")))
    least = decide_first(seen(ready), status, now=42, budget=dollars("0.43"))
    assert least.create is not None
    dear = decide_first(seen(ready), status, now=42, budget=dollars("0.425"))
    assert dear.create is None
    assert condition(told(dear), "Stalled")[1] == "BudgetReached"


def test_a_trainer_is_told_by_when_to_end_all_attempts_counted() -> None:
    """A cent a second: of 10 dollars, 100 s are spent; 900 s are left, 120 of them to save a checkpoint."""
    first = told(decide(run(stopped_pod()), now=120, budget=dollars("10")))
    pods = run(stopped_pod(), make_pod("cxr-2", 200).scheduled(210).prepared(212, 240).trains(242))
    assert pods.snapshot is not None
    for spec, expected in [
        ({"budget": dollars("10")}, render_time(at(210 + 780))),
        ({"budget": dollars("10"), "limits": {"runSeconds": 300}}, render_time(at(210 + 200 + 60))),
        ({"budget": dollars("10", onExceed="Notify")}, names.NEVER),
        ({}, names.NEVER),
    ]:
        job = make_job().spec(**spec).status(first).build()
        assert run_until(job, pods.snapshot, pods.pods[-1]) == expected
    assert run_until(make_job().build(), pods.snapshot, run(make_pod()).pods[-1]) == "", "it has no node yet"
