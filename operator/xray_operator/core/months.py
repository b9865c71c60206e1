"""What the runs of a namespace cost in a month: the status of a TrainingBudget. Called by gather and workers.

The bill of a run is in its status, so what it has cost in a month follows from that alone, whoever looks and however
often. The ledger in the budget's status is there for what is deleted meanwhile. A run that goes over a month's end has
cost in the earlier month what its bill was at midnight UTC, and in the later one what has come since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain
from typing import Any, Final

from xray_operator import names
from xray_operator.core.accounting import currency, run_cost, section
from xray_operator.core.attempts import attempts_from_status
from xray_operator.core.conditions import Condition, render_conditions
from xray_operator.core.cost import CENTS, NOTHING, amount_of, billed_seconds, read_amount
from xray_operator.core.events import Milestone, Subject, build_event
from xray_operator.core.halt import Halt
from xray_operator.core.raw import read_time
from xray_operator.core.sections import PREPARATIONS, Status, present
from xray_operator.core.spec import MonthlyBudget, Price, parse_part

MOST_ENTRIES: Final = 1024
"""In a ledger of about 150 bytes each. Beyond them, those that no status tells any more are settled in one sum; then
those that a status tells by itself are not written down."""

Raw = Mapping[str, Any]
Key = tuple[str, int]
"""Uid and rerun."""


@dataclass(frozen=True)
class Entry:
    """What one run has cost in the month."""

    uid: str
    rerun: int
    name: str
    amount: Decimal
    before: Decimal | None = None
    """What it had cost when the month began; None of a run that began later."""


@dataclass(frozen=True)
class Books:
    """A month of a namespace in one currency."""

    month: str
    entries: tuple[Entry, ...]
    """Of the ledger."""
    beside: tuple[Entry, ...] = ()
    """Those for which it has no room."""
    settled_runs: int = 0
    settled: Decimal = NOTHING
    not_counted: int = 0

    @property
    def spent(self) -> Decimal:
        return sum((entry.amount for entry in (*self.entries, *self.beside)), self.settled)

    @property
    def runs(self) -> int:
        return self.settled_runs + len(self.entries) + len(self.beside)


def name_of_month(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m")


def amount_since(status: Raw, moment: datetime) -> Decimal:
    """What the bill of a run has grown by since then; all of it, if the run began later."""
    if _began_since(section(status, "run"), moment):
        return run_cost(status) or NOTHING
    return max((run_cost(status) or NOTHING) - _bill_at(status, moment), NOTHING)


def keep_books(
    spec: MonthlyBudget, former: Raw, jobs: Iterable[Raw], now: datetime, deleted: Collection[str] = ()
) -> Books:
    """The month's entries: of jobs that are there as their status tells, of others as they were written down.

    Args:
        former: the budget's status.
        jobs: raw XRayTrainingJobs of the namespace, in any order.
        deleted: uids of those of them that are gone: nobody knows for how long they will be told of, so all is written down.
    """
    month = name_of_month(now)
    begin = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    kept = former if (former.get("month"), former.get("currency")) == (month, spec.currency) else {}
    entries = {(entry.uid, entry.rerun): entry for entry in map(_read_entry, kept.get("ledger", ()))}
    present, told, not_counted = dict[str, int](), set[Key](), 0
    for job in sorted(jobs, key=lambda raw: (raw["metadata"].get("creationTimestamp", ""), raw["metadata"]["uid"])):
        status = section(job, "status")
        present[job["metadata"]["uid"]] = status.get("rerun", 0)
        not_counted += "run" in status and currency(status) != spec.currency and _is_of_month(status, begin)
        for entry in _told_entries(job, spec.currency, begin, entries):
            key = entry.uid, entry.rerun
            if entry.amount or key in entries:
                entries[key] = entry
            if entry.before is None or entry.rerun == present[entry.uid]:
                told.add(key)
    settled = section(kept, "settled")
    books = Books(month, tuple(entries.values()), (), settled.get("runs", 0), _amount(settled), not_counted)
    return _leave_out(_settle(books, told, present), told, present, deleted)


def find_hold(price: Price | None, budgets: Iterable[Raw], jobs: Collection[Raw], now: datetime) -> Halt | None:
    """The TrainingBudget for which a run that has not started has to wait; None if it may start.

    Args:
        price: of the run's flavor; budgets in other currencies don't concern it.
        budgets: raw, of the namespace.
        jobs: its raw XRayTrainingJobs.
    """
    for raw in budgets:
        spec = read_budget(raw)
        if spec is None or price is None or spec.on_exceed != "HoldNew" or spec.currency != price.currency:
            continue
        books = keep_books(spec, section(raw, "status"), jobs, now)
        if books.spent >= spec.limit:
            limit, name = f"{spec.limit} {spec.currency}", raw["metadata"]["name"]
            told = f"the {limit} of TrainingBudget {name} for {books.month} are spent"
            ends = "the run starts when its limit is raised or the month turns (UTC)"
            return Halt(names.QUEUED, names.MONTH_SPENT, f"{told}; {ends}")
    return None


def read_budget(raw: Raw) -> MonthlyBudget | None:
    """The spec of a raw TrainingBudget; None if it was stored under other rules."""
    spec = parse_part(MonthlyBudget, raw.get("spec"), "spec", names.SPEC_INVALID)
    return None if isinstance(spec, list) else spec


def budget_status(raw: Raw, spec: MonthlyBudget, books: Books, now: datetime) -> Status:
    """The whole status of a TrainingBudget."""
    metadata, used = raw["metadata"], int(books.spent * 100 / spec.limit)
    former = section(raw, "status").get("conditions", [])
    shown = f"{books.spent.quantize(CENTS)} of {spec.limit.quantize(CENTS)} {spec.currency}"
    return {
        "observedGeneration": metadata["generation"],
        "month": books.month,
        "currency": spec.currency,
        "spent": str(books.spent),
        "left": str(spec.limit - books.spent),
        "used": f"{used}%"[:16],
        "display": shown,
        "runs": books.runs,
        "notCounted": books.not_counted,
        "conditions": render_conditions(_conditions(spec, books), former, metadata["generation"], now),
    } | present(
        ledger=[_entry_row(entry) for entry in books.entries],
        settled={"runs": books.settled_runs, "amount": str(books.settled)} if books.settled_runs else None,
    )


def budget_events(raw: Raw, status: Status, now: datetime) -> tuple[dict[str, Any], ...]:
    """Events that this status tells and the former one has not: once for each month and limit."""
    metadata, spec = raw["metadata"], raw["spec"]
    subject = Subject(
        names.BUDGET_KIND, metadata["namespace"], metadata["name"], metadata["uid"], metadata["resourceVersion"]
    )
    row, former = _warning(status), _warning(section(raw, "status"))
    same_month = section(raw, "status").get("month") == status["month"]
    if row["status"] != "True" or (same_month and former == row):
        return ()
    key = f"{row['reason']} {status['month']} {spec['limit']} {spec['currency']}"
    return (build_event(subject, Milestone(key, "Warning", row["reason"], row["message"]), now),)


def _told_entries(job: Raw, wanted: str, begin: datetime, written: Mapping[Key, Entry]) -> Iterator[Entry]:
    """Of the runs of a job whose bill is in this currency. The row of a former one doesn't tell what it had cost when the month
    began: that is known only if it was written down."""
    status, metadata = section(job, "status"), job["metadata"]
    for row in status.get("formerRuns", ()):
        key, bill = (metadata["uid"], row["rerun"]), section(row, "bill")
        before = written[key].before if key in written else None
        total = read_amount(bill.get("total"))
        if bill.get("currency") != wanted or total is None:
            continue
        if _began_since(row, begin):
            yield Entry(*key, metadata["name"], total)
        elif before is not None:
            yield Entry(*key, metadata["name"], max(total - before, NOTHING), before)
    if currency(status) == wanted:
        amount = amount_since(status, begin)
        late = _began_since(section(status, "run"), begin)
        before = None if late else (run_cost(status) or NOTHING) - amount
        yield Entry(metadata["uid"], status.get("rerun", 0), metadata["name"], amount, before)


def _began_since(run: Raw, moment: datetime) -> bool:
    """Args: run: status.run, or a row of formerRuns."""
    begun = run.get("startedAt")
    return isinstance(begun, str) and read_time(begun) >= moment


def _is_of_month(status: Raw, begin: datetime) -> bool:
    """Whether the run began, or held anything, since then."""
    prepared = [section(status, name).get("attempts", ()) for name in PREPARATIONS.values()]
    attempts = attempts_from_status([*status.get("attempts", ()), *chain.from_iterable(prepared)])
    lasting = any(each.finished is None or each.finished > begin for each in attempts)
    return lasting or _began_since(section(status, "run"), begin)


def _bill_at(status: Raw, moment: datetime) -> Decimal:
    """What the bill of a run was, or would have been if the run had ended then."""
    bill = _billed_at(status.get("attempts", ()), section(section(status, "cost"), "price"), moment)
    for name in PREPARATIONS.values():
        prepared = section(status, name)
        price = section(prepared, "price")
        if "amount" in prepared and price.get("currency") == currency(status):
            bill += _billed_at(prepared.get("attempts", ()), price, moment)
    return bill


def _billed_at(rows: Iterable[Raw], told: Raw, moment: datetime) -> Decimal:
    price = parse_part(Price, told, "price", names.SPEC_INVALID)
    if isinstance(price, list):
        return NOTHING
    billed = 0
    for attempt in attempts_from_status(list(rows)):
        if attempt.finished and attempt.finished <= moment:
            billed += attempt.billed_at(price)
        else:
            held = int((moment - attempt.started).total_seconds())
            billed += min(billed_seconds(held, price), attempt.billed_at(price))
    return amount_of(billed, price)


def _settle(books: Books, told: Collection[Key], present: Mapping[str, int]) -> Books:
    """As many entries as there is room for; the oldest go of those that no status will tell again.

    Args:
        told: entries that a status tells by itself.
        present: rerun of each job that is there, by uid.
    """
    past = [each for each in books.entries if each.uid not in present or each.rerun < present[each.uid]]
    gone = [each for each in past if (each.uid, each.rerun) not in told][: _surplus(books)]
    return replace(
        books,
        entries=_without(books.entries, gone),
        settled_runs=books.settled_runs + len(gone),
        settled=sum((each.amount for each in gone), books.settled),
    )


def _leave_out(books: Books, told: Collection[Key], present: Mapping[str, int], deleted: Collection[str]) -> Books:
    """As many entries as there is room for; those go that their job's status will tell for longest, of these the newest."""
    spare = [each for each in books.entries if (each.uid, each.rerun) in told and each.uid not in deleted]
    spare.sort(key=lambda each: each.rerun - present[each.uid])
    beside = spare[len(spare) - min(_surplus(books), len(spare)) :]
    return replace(books, entries=_without(books.entries, beside), beside=tuple(beside))


def _surplus(books: Books) -> int:
    return max(len(books.entries) - MOST_ENTRIES, 0)


def _without(entries: Iterable[Entry], some: Iterable[Entry]) -> tuple[Entry, ...]:
    left_out = {(each.uid, each.rerun) for each in some}
    return tuple(each for each in entries if (each.uid, each.rerun) not in left_out)


def _conditions(spec: MonthlyBudget, books: Books) -> list[Condition]:
    limit, held = f"{spec.limit} {spec.currency}", ""
    if spec.on_exceed == "HoldNew":
        held = "; runs that have not started wait until limit is raised or the month turns"
    warning = Condition(names.BUDGET_WARNING, "False", names.WITHIN_BUDGET, "")
    if books.spent >= spec.limit:
        told = f"the {limit} of {books.month} are spent{held}"
        warning = Condition(names.BUDGET_WARNING, "True", names.BUDGET_SPENT, told)
    elif books.spent * 100 >= spec.limit * spec.warn_at_percent:
        told = f"{spec.warn_at_percent} % of the {limit} of {books.month} are spent"
        warning = Condition(names.BUDGET_WARNING, "True", names.BUDGET_NEARLY_SPENT, told)
    return [
        Condition(names.READY, "True", "Counting", f"the runs of {books.month} that are priced in {spec.currency}"),
        Condition(names.RECONCILING, "False", "UpToDate", ""),
        Condition(names.STALLED, "False", "NotStalled", ""),
        warning,
    ]


def _warning(status: Raw) -> Raw:
    rows = [row for row in status.get("conditions", ()) if row.get("type") == names.BUDGET_WARNING]
    told = rows[0] if rows else {}
    return {name: told.get(name) for name in ("status", "reason", "message")}


def _read_entry(row: Raw) -> Entry:
    return Entry(row["uid"], row["rerun"], row["name"], _amount(row), read_amount(row.get("before")))


def _entry_row(entry: Entry) -> Status:
    row = {"uid": entry.uid, "rerun": entry.rerun, "name": entry.name, "amount": str(entry.amount)}
    return row | present(before=None if entry.before is None else str(entry.before))


def _amount(row: Raw) -> Decimal:
    return read_amount(row.get("amount")) or NOTHING
