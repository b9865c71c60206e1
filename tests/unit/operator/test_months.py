"""TrainingBudget: what a namespace's runs cost in a month is counted once, whatever is deleted, and holds new runs."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.builders import (
    BEGIN,
    FLAVORS,
    UID,
    at,
    condition,
    decide,
    make_flavor,
    make_job,
    make_snapshot,
    reasons,
    told,
)
from tests.unit.operator.test_budget import attempt
from tests.unit.operator.test_cost import PRICES, price
from tests.unit.operator.test_workers import FakeCluster, make_operator, run_until_idle
from xray_operator.budget_metrics import BudgetMetrics
from xray_operator.core.accounting import currency, run_cost
from xray_operator.core.attempts import Attempt, attempts_to_status, render_time
from xray_operator.core.bill import cost_section, make_bill
from xray_operator.core.months import (
    MOST_ENTRIES,
    amount_since,
    budget_events,
    budget_status,
    keep_books,
    name_of_month,
    read_budget,
)
from xray_operator.core.observed import Observed
from xray_operator.core.readings import queue_age
from xray_operator.core.spec import MonthlyBudget, Price
from xray_operator.core.status import of_run

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 1, tzinfo=UTC)
CENT = price("36")
"""A cent a second."""
SPEC = MonthlyBudget.model_validate({"limit": "100", "currency": "USD"})
Status = dict[str, Any]


def held(begin: datetime, seconds: int, *, over: bool = True, name: str = "pod") -> Attempt:
    bare = attempt(0, seconds, over=over)
    end = begin + timedelta(seconds=seconds) if over else None
    return Attempt(name, begin, end, bare.seconds, bare.failure)


def status_of(*attempts: Attempt, paid: Price | None = CENT, rerun: int = 0) -> Status:
    """What a job's status says of a run with these attempts."""
    bill = make_bill(attempts, make_snapshot().model_copy(update={"price": paid}))
    rows = attempts_to_status(attempts, paid)
    return {"rerun": rerun, "run": {"jobName": "x", "flavor": "vpod4"}, "attempts": rows, "cost": cost_section(bill)}


def job(status: Status, uid: str = UID, name: str = "cxr") -> dict[str, Any]:
    raw = make_job(name).status(status).raw()
    raw["metadata"]["uid"] = uid
    return raw


def make_budget(status: Status | None = None, generation: int = 1, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "monthly", "namespace": "radiology", "uid": "b" * 36, "resourceVersion": "7"}
    return {
        "metadata": metadata | {"generation": generation},
        "spec": {"limit": "100", "currency": "USD"} | spec,
        "status": status or {},
    }


def counted(
    raw: dict[str, Any], jobs: list[dict[str, Any]], now: datetime = NOW, deleted: Collection[str] = ()
) -> Status:
    """The status that the operator writes."""
    spec = read_budget(raw)
    assert spec is not None
    return budget_status(raw, spec, keep_books(spec, raw["status"], jobs, now, deleted), now)


@given(PRICES, st.lists(st.tuples(st.integers(-3000, 3000), st.integers(0, 4000)), min_size=1, max_size=5))
def test_two_months_bear_the_whole_bill_and_the_earlier_one_what_it_was_at_midnight(
    paid: Price, spans: list[tuple[int, int]]
) -> None:
    attempts = [held(MIDNIGHT + timedelta(seconds=begin), seconds) for begin, seconds in spans]
    status = status_of(*attempts, paid=paid)
    before = [
        held(each.started, int((min(each.finished or NOW, MIDNIGHT) - each.started).total_seconds()))
        for each in attempts
        if each.started < MIDNIGHT
    ]
    at_midnight = run_cost(status_of(*before, paid=paid)) if before else Decimal(0)
    total = run_cost(status)
    assert total is not None
    assert amount_since(status, MIDNIGHT) == total - (at_midnight or 0)
    assert amount_since(status, MIDNIGHT - timedelta(days=30)) == total
    assert amount_since(status, MIDNIGHT + timedelta(days=30)) == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9000), st.booleans()), max_size=25))
def test_a_ledger_that_is_written_anew_from_itself_counts_every_run_once(looks: list[tuple[int, int, bool]]) -> None:
    """Runs grow, are deleted and looked at in any order, by operators that know nothing but the status before."""
    there, cost, status = dict.fromkeys(range(5), True), dict.fromkeys(range(5), 0), dict[str, Any]()
    for number, seconds, deleted in looks:
        if there[number]:
            cost[number] += seconds
        jobs = [job(status_of(held(MIDNIGHT, cost[each])), f"uid-{each}") for each in there if there[each]]
        status = counted(make_budget(status), jobs[::-1])
        there[number] = there[number] and not deleted
    if looks:
        status = counted(make_budget(status), [])
        assert Decimal(status["spent"]) == Decimal(sum(cost.values())) / 100
        assert status["runs"] == sum(each > 0 for each in cost.values())


def test_the_month_turns_by_utc_and_the_ledger_begins_anew() -> None:
    last_second = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
    run = job(status_of(held(last_second - timedelta(seconds=999), 1600)))
    november = counted(make_budget(), [run], last_second)
    assert (november["month"], november["spent"]) == ("2026-11", "16.0000")
    december = counted(make_budget(november), [run], last_second + timedelta(seconds=1))
    assert (december["month"], december["spent"]) == ("2026-12", "6.0000"), "1000 of 1600 s were in November"
    assert name_of_month(last_second.astimezone(UTC)) == "2026-11"
    assert counted(make_budget(december), [], datetime(2027, 1, 1, tzinfo=UTC))["spent"] == "0.0000"


def test_a_rerun_is_an_entry_of_its_own() -> None:
    first = counted(make_budget(), [job(status_of(held(MIDNIGHT, 100)))])
    second = counted(make_budget(first), [job(status_of(held(MIDNIGHT, 50), rerun=1))])
    assert [(row["rerun"], row["amount"]) for row in second["ledger"]] == [(0, "1.0000"), (1, "0.5000")]


def superseded(status: Status, rerun: int, *attempts: Attempt, began: datetime | None = MIDNIGHT) -> Status:
    """What a job's status says when a rerun has taken the place of what it told of."""
    former = status | {"run": status["run"] | ({"startedAt": render_time(began)} if began else {})}
    return status_of(*attempts, rerun=rerun) | {"formerRuns": of_run(former, rerun)["formerRuns"]}


def test_a_budget_that_comes_late_counts_former_runs_too() -> None:
    status = superseded(status_of(held(MIDNIGHT, 100)), 1, held(MIDNIGHT, 50))
    told = counted(make_budget(), [job(status)])
    assert [(row["rerun"], row["amount"]) for row in told["ledger"]] == [(0, "1.0000"), (1, "0.5000")]
    assert counted(make_budget(told), [job(status)]) == told
    assert counted(make_budget(told), [])["spent"] == "1.5000"
    euros = counted(make_budget(currency="EUR"), [job(status)])
    assert (euros["spent"], euros["runs"]) == ("0.0000", 0)


def test_the_last_growth_of_a_run_is_counted_when_another_has_taken_its_place() -> None:
    first = counted(make_budget(), [job(status_of(held(MIDNIGHT, 100, over=False)))])
    status = superseded(status_of(held(MIDNIGHT, 130)), 1, held(MIDNIGHT + timedelta(seconds=200), 50))
    assert counted(make_budget(first), [job(status)])["spent"] == "1.8000"


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(0, 9000))
def test_a_former_run_over_a_months_end_grows_to_what_the_later_month_bears(
    before: int, seen: int, unseen: int
) -> None:
    began = MIDNIGHT - timedelta(seconds=before)
    first = counted(make_budget(), [job(status_of(held(began, before + seen, over=False)))])
    status = superseded(status_of(held(began, before + seen + unseen)), 1, began=began)
    second = counted(make_budget(first), [job(status)])
    assert Decimal(second["spent"]) == Decimal(seen + unseen) / 100
    assert counted(make_budget(second), [job(status)]) == second, "looking twice counts once"
    assert counted(make_budget(), [job(status)])["spent"] == "0.0000", "how much was before is not known"


def test_a_former_run_of_an_earlier_month_is_not_of_this_one() -> None:
    october = MIDNIGHT - timedelta(days=9)
    status = superseded(status_of(held(october, 100)), 1, held(MIDNIGHT, 50), began=october)
    assert counted(make_budget(), [job(status)])["spent"] == "0.5000"
    undated = superseded(status_of(held(october, 100)), 1, held(MIDNIGHT, 50), began=None)
    assert counted(make_budget(), [job(undated)])["spent"] == "0.5000"


def test_runs_in_another_currency_or_without_a_price_are_told_of_and_not_counted() -> None:
    euros = status_of(held(MIDNIGHT, 100), paid=CENT.model_copy(update={"currency": "EUR"}))
    jobs = [job(euros, "1"), job(status_of(held(MIDNIGHT, 100), paid=None), "2"), job({}, "3")]
    status = counted(make_budget(), jobs)
    assert (status["spent"], status["runs"], status["notCounted"]) == ("0.0000", 0, 2)
    assert currency(euros) == "EUR"
    assert counted(make_budget(currency="EUR"), jobs)["spent"] == "1.0000"


def test_runs_that_were_over_before_the_month_began_are_not_told_as_not_counted() -> None:
    may = datetime(2026, 5, 5, tzinfo=UTC)
    over = job(status_of(held(may, 100), paid=None), "1")
    preparing = {"attempts": attempts_to_status([held(MIDNIGHT, 5)], None)}
    fixed = {"run": {"startedAt": render_time(MIDNIGHT)}}
    for status, wanted in [
        ({}, 0),
        ({"attempts": attempts_to_status([held(may, 100, over=False)], None)}, 1),
        ({"attempts": attempts_to_status([held(MIDNIGHT - timedelta(seconds=9), 10)], None)}, 1),
        ({"preparation": preparing}, 1),
        (fixed, 1),
    ]:
        jobs = [over, job(status_of(held(may, 100), paid=None) | status, "2")]
        assert counted(make_budget(), jobs)["notCounted"] == wanted, status
    assert counted(make_budget(), [over], may)["notCounted"] == 1


def test_an_edited_currency_begins_a_ledger_of_its_own() -> None:
    dollars = counted(make_budget(), [job(status_of(held(MIDNIGHT, 100)))])
    assert counted(make_budget(dollars, currency="EUR"), [])["spent"] == "0.0000"


def test_a_ledger_has_an_end_and_loses_no_money() -> None:
    jobs = [job(status_of(held(MIDNIGHT, 1)), f"uid-{number:04}") for number in range(MOST_ENTRIES)]
    full = counted(make_budget(), jobs)
    assert (len(full["ledger"]), "settled" in full) == (MOST_ENTRIES, False)
    more = counted(make_budget(full), [job(status_of(held(MIDNIGHT, 5)), "one-more")])
    assert len(more["ledger"]) == MOST_ENTRIES
    assert more["settled"] == {"runs": 1, "amount": "0.0100"}
    assert Decimal(more["spent"]) == Decimal(full["spent"]) + Decimal("0.05")
    assert counted(make_budget(more), [])["spent"] == more["spent"]


def many_jobs(count: int = MOST_ENTRIES + 76) -> list[dict[str, Any]]:
    """The amounts are 1, 2, 4 and 8 cents in turn."""
    return [job(status_of(held(MIDNIGHT, 1 << number % 4)), f"uid-{number:04}") for number in range(count)]


def total_of(jobs: list[dict[str, Any]]) -> Decimal:
    return sum((run_cost(raw["status"]) or Decimal(0) for raw in jobs), Decimal(0))


def test_more_jobs_than_a_ledger_has_room_for_are_all_counted() -> None:
    jobs = many_jobs()
    status = counted(make_budget(), jobs)
    assert len(status["ledger"]) == MOST_ENTRIES
    assert (Decimal(status["spent"]), status["runs"]) == (total_of(jobs), len(jobs))
    assert "settled" not in status
    assert counted(make_budget(status), jobs[::-1]) == status


@pytest.mark.parametrize("number", [0, MOST_ENTRIES, MOST_ENTRIES + 75])
def test_a_job_that_was_not_in_the_ledger_is_counted_when_it_is_deleted(number: int) -> None:
    jobs = many_jobs()
    before = counted(make_budget(), jobs)
    gone = jobs[number]["metadata"]["uid"]
    told = counted(make_budget(before), jobs, deleted=[gone])
    assert gone in {row["uid"] for row in told["ledger"]}
    assert (len(told["ledger"]), told["spent"], "settled" in told) == (MOST_ENTRIES, before["spent"], False)
    assert counted(make_budget(told), jobs, deleted=[gone]) == told
    rest = [raw for raw in jobs if raw["metadata"]["uid"] != gone]
    later = counted(make_budget(told), rest)
    assert (len(later["ledger"]), later["spent"], later["runs"]) == (MOST_ENTRIES, before["spent"], len(jobs))
    assert counted(make_budget(later), rest) == later


def test_more_reruns_than_a_ledger_has_room_for_are_all_counted() -> None:
    """Two jobs that begin anew each hour: what their status has forgotten is settled."""
    jobs, status, total = [job(status_of(), "one"), job(status_of(), "two")], dict[str, Any](), Decimal(0)
    reruns = MOST_ENTRIES // 2 + 20
    for rerun in range(reruns):
        for raw in jobs:
            former = raw["status"] | {"run": raw["status"]["run"] | {"startedAt": render_time(MIDNIGHT)}}
            new = status_of(held(MIDNIGHT + timedelta(hours=rerun), 1 + rerun % 7), rerun=rerun)
            raw["status"] = new | {"formerRuns": of_run(former, rerun).get("formerRuns", [])}
        total += total_of(jobs)
        if rerun % 5 == 0 or rerun > reruns - 15:
            status = counted(make_budget(status), jobs)
            assert (Decimal(status["spent"]), status["runs"]) == (total, 2 * (rerun + 1))
    assert len(status["ledger"]) == MOST_ENTRIES
    assert counted(make_budget(status), jobs) == status
    assert counted(make_budget(status), [])["spent"] == status["spent"]


def test_a_warning_and_a_spent_month_are_told_once() -> None:
    raw = make_budget()
    for seconds, wanted in [
        (7999, []),
        (8000, ["BudgetNearlySpent"]),
        (9000, []),
        (10000, ["BudgetSpent"]),
        (11000, []),
    ]:
        status = counted(raw, [job(status_of(held(MIDNIGHT, seconds)))])
        assert [event["reason"] for event in budget_events(raw, status, NOW)] == wanted, seconds
        raw = make_budget(status)
    assert condition(raw["status"], "BudgetWarning")[:2] == ("True", "BudgetSpent")
    assert condition(raw["status"], "Ready")[0] == "True"
    assert raw["status"]["display"] == "110.00 of 100.00 USD"
    assert (raw["status"]["used"], raw["status"]["left"]) == ("110%", "-10.0000")
    raised = make_budget(raw["status"], limit="1000", generation=2)
    status = counted(raised, [job(status_of(held(MIDNIGHT, 11000)))])
    assert condition(status, "BudgetWarning")[0] == "False"
    assert status["observedGeneration"] == 2


def wants_to_begin(*budgets: dict[str, Any], neighbours: list[dict[str, Any]] | None = None) -> Observed:
    spent = neighbours if neighbours is not None else [job(status_of(held(BEGIN, 10000)), "other")]
    return Observed(flavors=FLAVORS, budgets=budgets, neighbours=spent)


def test_a_new_run_waits_while_the_month_is_spent_and_begins_when_the_limit_is_raised() -> None:
    decision = decide(wants_to_begin(make_budget()), now=20000)
    assert decision.create is None
    status = told(decision)
    assert status["state"] == "Queued"
    assert condition(status, "Accepted")[0] == "True"
    why = condition(status, "Ready")
    assert why[:2] == ("Unknown", "MonthlyBudgetSpent")
    assert "TrainingBudget monthly" in why[2]
    assert "100 USD" in why[2]
    assert condition(status, "Stalled")[0] == "False"
    assert reasons(decision) == ["Accepted", "MonthlyBudgetSpent"]
    assert decide(wants_to_begin(make_budget()), status=status, now=30000).status is None, "no news"
    assert decide(wants_to_begin(make_budget(limit="100.0001")), status=status, now=30000).create is not None
    next_month = 86400 * 9
    assert decide(wants_to_begin(make_budget()), status=status, now=next_month).create is not None


def test_a_rerun_that_is_held_has_waited_since_it_was_wanted_and_not_since_its_job_was_created() -> None:
    over = {
        "state": "Succeeded",
        "rerun": 0,
        "run": {"jobName": "cxr-1"},
        "conditions": [
            {"type": "Ready", "status": "True", "observedGeneration": 1, "lastTransitionTime": render_time(at(900))}
        ],
    }
    status = told(decide(wants_to_begin(make_budget()), status=over, now=20000, rerun=1))
    assert status["state"] == "Queued"
    assert queue_age(status, render_time(at(0)), at(20040).timestamp()) == 40


@pytest.mark.parametrize(
    "budget", [make_budget(onExceed="Notify"), make_budget(currency="EUR"), make_budget(limit="nonsense")]
)
def test_a_budget_that_notifies_or_is_in_another_currency_holds_nothing(budget: dict[str, Any]) -> None:
    assert decide(wants_to_begin(budget), now=20000).create is not None


def test_of_several_budgets_each_that_is_spent_holds() -> None:
    decision = decide(wants_to_begin(make_budget(limit="9999"), make_budget()), now=20000)
    assert decision.create is None


def test_a_run_without_a_price_is_not_held() -> None:
    observed = Observed(
        flavors={"demo-vpod4": make_flavor(prices=[])},
        budgets=(make_budget(),),
        neighbours=[job(status_of(held(BEGIN, 10000)), "other")],
    )
    assert decide(observed, now=20000).create is not None


def test_nothing_that_has_begun_is_held() -> None:
    begun = Observed(snapshot=make_snapshot(), budgets=(make_budget(),), neighbours=wants_to_begin().neighbours)
    assert decide(begun, now=20000).create is not None


async def test_the_operator_writes_the_ledger_also_of_a_job_that_was_just_deleted() -> None:
    cluster = FakeCluster()
    operator = make_operator(cluster)
    operator.clock = lambda: NOW
    raw = make_budget()
    operator.index.budgets = {raw["metadata"]["uid"]: [raw]}
    operator.index.job_is_gone(job(status_of(held(MIDNIGHT, 100))))
    operator.job_changed("elsewhere")
    await run_until_idle(operator)
    assert cluster.writes() == []
    operator.job_changed("radiology")
    await run_until_idle(operator)
    assert cluster.written["spent"] == "1.0000"
    raw["status"] = cluster.written
    operator.job_changed("radiology")
    await run_until_idle(operator)
    assert cluster.writes() == ["PUT status"], "no news, no write"


async def test_the_operator_writes_a_deleted_job_into_a_ledger_that_is_full() -> None:
    cluster, raw, jobs = FakeCluster(), make_budget(), many_jobs()
    operator = make_operator(cluster)
    operator.clock = lambda: NOW
    operator.index.budgets = {raw["metadata"]["uid"]: [raw]}
    operator.index.jobs = {each["metadata"]["uid"]: [each] for each in jobs[:-1]}
    operator.index.job_is_gone(jobs[-1])
    operator.job_changed("radiology")
    await run_until_idle(operator)
    assert len(cluster.written["ledger"]) == MOST_ENTRIES
    assert cluster.written["ledger"][-1]["uid"] == jobs[-1]["metadata"]["uid"]


def test_the_warning_is_that_of_the_budget_s_own_percentage() -> None:
    run = job(status_of(held(MIDNIGHT, 2500)))
    run["status"]["budget"] = {"limit": "100", "currency": "USD", "left": "75"}
    run["status"]["conditions"] = [{"type": "BudgetWarning", "status": "True"}]
    early, late = (
        make_budget(counted(make_budget(warnAtPercent=each), [run]), warnAtPercent=each) for each in (25, 26)
    )
    late["metadata"]["name"] = "late"
    warned = {
        (sample.name, sample.labels["name"]): sample.value
        for family in BudgetMetrics(lambda: [run], lambda: [early, late]).collect()
        for sample in family.samples
        if sample.name.endswith("_warning")
    }
    assert warned == {
        ("xray_training_budget_warning", "cxr"): 1,
        ("xray_training_namespace_budget_warning", "monthly"): 1,
        ("xray_training_namespace_budget_warning", "late"): 0,
    }


def test_what_is_left_is_a_series_until_the_budget_is_deleted() -> None:
    budgets = [make_budget(counted(make_budget(), [job(status_of(held(MIDNIGHT, 250)))]))]
    told_of = {"budget": {"limit": "20", "currency": "USD", "left": "17.5"}}
    jobs = [job(status_of() | told_of)]
    samples = {
        sample.name: (sample.labels, sample.value)
        for family in BudgetMetrics(lambda: jobs, lambda: budgets).collect()
        for sample in family.samples
    }
    labels = {"namespace": "radiology", "currency": "USD"}
    assert samples == {
        "xray_training_budget_limit": (labels | {"name": "cxr"}, 20),
        "xray_training_budget_left": (labels | {"name": "cxr"}, 17.5),
        "xray_training_namespace_budget_limit": (labels | {"name": "monthly"}, 100),
        "xray_training_namespace_budget_left": (labels | {"name": "monthly"}, 97.5),
        "xray_training_budget_warning": (labels | {"name": "cxr"}, 0),
        "xray_training_namespace_budget_warning": (labels | {"name": "monthly"}, 0),
    }
    assert not [sample for family in BudgetMetrics(list, list).collect() for sample in family.samples]
