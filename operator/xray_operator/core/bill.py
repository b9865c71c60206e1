"""The bill of a run and of the preparations that it pays, as the sections of a job's status. Called by status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from xray_operator import names
from xray_operator.core.attempts import (
    Attempt,
    add_seconds,
    attempt_of,
    attempts_from_status,
    attempts_to_status,
    close_attempt,
    is_last,
    merge_attempts,
    render_time,
)
from xray_operator.core.budget import is_kept
from xray_operator.core.cost import NOTHING, Cost, PaidPreparation, amount_of, display_of, read_amount
from xray_operator.core.halt import Halt, deadline, projected_amount, spent_budget
from xray_operator.core.observed import SharedJob, XRayJob
from xray_operator.core.plan import Preparation, Snapshot
from xray_operator.core.pods import Pod
from xray_operator.core.reports import NO_COURSE
from xray_operator.core.sections import PREPARATIONS, Status, present
from xray_operator.core.spec import Price


def make_bill(attempts: Sequence[Attempt], snapshot: Snapshot, paid: Sequence[PaidPreparation] = ()) -> Cost:
    """The bill of a run for these attempts and preparations."""
    seconds, price = add_seconds(attempts), snapshot.price
    return Cost(
        price=price,
        seconds=seconds,
        billed_seconds=sum(attempt.billed_at(price) for attempt in attempts) if price else sum(seconds.values()),
        lost_seconds=sum(attempt.lost for attempt in attempts),
        estimated=any(attempt.estimated for attempt in attempts) or any(each.estimated for each in paid),
        preparations=tuple(paid),
    )


def price_section(price: Price | None) -> Status | None:
    """The entry of the flavor's price list that a run pays by."""
    if price is None:
        return None
    return present(
        effectiveFrom=render_time(price.effective_from),
        currency=price.currency,
        perHour=str(price.per_hour),
        minimumSeconds=price.minimum_seconds,
        incrementSeconds=price.increment_seconds,
        source=price.source,
    )


def cost_section(cost: Cost) -> Status:
    price = cost.price
    return present(
        priced=price is not None,
        currency=price.currency if price else None,
        perHour=str(price.per_hour) if price else None,
        price=price_section(price),
        heldSeconds=cost.held_seconds,
        billedSeconds=cost.billed_seconds if price else None,
        total=str(cost.total) if price else None,
        display=cost.display,
        estimated=cost.estimated or None,
        lostSeconds=cost.lost_seconds or None,
        lostAmount=str(cost.lost_amount) if price and cost.lost_seconds else None,
        phases=_phase_rows(cost),
    )


def _phase_rows(cost: Cost) -> list[Status]:
    amounts = {names.QUEUED: NOTHING} | cost.amounts if cost.price else {}
    rounded_up = cost.billed_seconds - cost.held_seconds
    held = {names.QUEUED: 0, **cost.seconds, names.ROUNDED_UP: rounded_up}
    rows = [
        present(name=phase, seconds=seconds, amount=str(amounts[phase]) if amounts else None)
        for phase, seconds in held.items()
        if seconds or phase not in _RARE
    ]
    for paid in cost.preparations:
        amount = str(paid.amount) if cost.price and paid.amount is not None else None
        rows.append(present(name=paid.phase, seconds=paid.seconds, amount=amount))
    return rows


_RARE: Final = (names.COMPILING, names.ROUNDED_UP)
"""Told of only where there was some."""


def preparation_sections(
    job: XRayJob, snapshot: Snapshot, shared_jobs: Mapping[str, SharedJob], now: datetime, *, left: bool
) -> Mapping[str, Any]:
    """What the preparations of their own have taken, and what they cost; the first owner of each pays.

    Args:
        left: the run has failed: it has no share in what goes on.
    """
    sections = {}
    for preparation in snapshot.preparations:
        name, shared = PREPARATIONS[preparation.kind], shared_jobs.get(preparation.job_name)
        section = _preparation(job, preparation, shared, now)
        sections[name] = _left(job, section, shared, now) if section and left else section
    return sections


def _left(job: XRayJob, section: Mapping[str, Any], shared: SharedJob | None, now: datetime) -> Mapping[str, Any]:
    """Of a run that has failed: it pays up to now, unless others go on with it, of whom the next pays all of it."""
    others = shared is not None and shared.goes_on and shared.is_wanted_beside(job.ref.uid)
    paid_by_others = {name: told for name, told in section.items() if name != "amount"} | {"cost": "shared"}
    return {"finishedAt": render_time(now), **(paid_by_others if others else section)}


def _preparation(
    job: XRayJob, preparation: Preparation, shared: SharedJob | None, now: datetime
) -> Mapping[str, Any] | None:
    former: Mapping[str, Any] = job.status.get(PREPARATIONS[preparation.kind], {})
    attempts = () if "finishedAt" in former and not shared else _preparing(former, preparation, shared, now)
    if not attempts:
        return former or None
    payer = _pays(job, former, shared)
    price, billed = preparation.price, None
    if price is not None:
        billed = sum(attempt.billed_at(price) for attempt in attempts)
    amount = amount_of(billed, price) if price and billed is not None and payer else None
    return present(
        jobName=preparation.job_name,
        flavor=preparation.flavor,
        startedAt=render_time(attempts[0].started),
        finishedAt=render_time(shared.ended) if shared and shared.ended else None,
        seconds=sum(attempt.held for attempt in attempts),
        billedSeconds=billed,
        amount=None if amount is None else str(amount),
        cost=display_of(amount, price) if payer else "shared",
        price=price_section(price),
        estimated=any(attempt.estimated for attempt in attempts) or None,
        attempts=[
            {name: told for name, told in row.items() if name in _PREPARING or (payer and name == "amount")}
            for row in attempts_to_status(attempts, price)
        ],
    )


_PREPARING: Final = frozenset(
    [
        *("podName", "startedAt", "finishedAt", "reason", "message", "exitCode"),
        *("idleSeconds", "preparingSeconds", "billedSeconds", "estimated"),
    ]
)
"""What a row of an attempt tells of a pod that only prepares."""


def _preparing(
    former: Mapping[str, Any], preparation: Preparation, shared: SharedJob | None, now: datetime
) -> tuple[Attempt, ...]:
    """The pods of a preparation, with those that are gone since an earlier pass saw them."""
    seen = [each for pod in (shared.pods if shared else ()) if (each := attempt_of(pod, NO_COURSE, now))]
    pods, rows = (shared.pods if shared else ()), attempts_from_status(former.get("attempts", ()))
    here, known = {attempt.pod_name for attempt in seen}, [row.pod_name for row in rows]
    complete = shared is not None and shared.complete
    recorded = [
        each
        if each.finished or each.pod_name in here
        else close_attempt(each, names.PREPARING, now, failed=not (complete and is_last(each.pod_name, pods, known)))
        for each in rows
    ]
    return merge_attempts(recorded, seen, preparation.price)


def find_preparing_halt(
    job: XRayJob,
    snapshot: Snapshot,
    pending: Sequence[Preparation],
    status: Mapping[str, Any],
    shared_jobs: Mapping[str, SharedJob],
) -> Halt | None:
    """Why the preparations of a run may not go on: its budget pays for no more of them.

    Args:
        pending: those that are not over.
        status: with what they have cost so far.
    """
    budget, currency = job.live.budget, snapshot.price.currency if snapshot.price else None
    amount, priced = NOTHING, [each for each in snapshot.preparations if each.price and each.price.currency == currency]
    for each in priced:
        section = status.get(PREPARATIONS[each.kind], {})
        attempts = attempts_from_status(section.get("attempts", ()))
        if each.price and each in pending and _pays(job, section, shared_jobs.get(each.job_name)):
            amount += projected_amount(attempts, each.price)
        else:
            amount += read_amount(section.get("amount")) or NOTHING
    if budget is None or not is_kept(budget, snapshot.price) or amount <= budget.limit:
        return None
    return next((spent_budget(budget, each.price, "preparing") for each in priced if each.price), None)


def _pays(job: XRayJob, section: Mapping[str, Any], shared: SharedJob | None) -> bool:
    """Whether a run pays for a preparation, or will if it goes on."""
    if shared is not None and shared.owners:
        return shared.owners[0].get("uid") == job.ref.uid
    return section.get("cost") != "shared"


def prepared_amount(status: Mapping[str, Any], snapshot: Snapshot) -> Decimal:
    """What a run pays for its preparations, as far as that is known in its currency."""
    return sum((each.amount or NOTHING for each in paid_preparations(status, snapshot)), NOTHING)


def run_until(job: XRayJob, snapshot: Snapshot, pod: Pod) -> str:
    """What the trainer of this pod is told (names.RUN_UNTIL)."""
    if pod.scheduled is None:
        return ""
    rows = attempts_from_status(job.status.get("attempts", ()))
    former = [row for row in rows if row.pod_name != pod.name]
    prepared = prepared_amount(job.status, snapshot)
    begin = min(pod.scheduled, pod.claim.made) if pod.claim else pod.scheduled
    end = deadline(job.live, snapshot.price, begin, former, prepared)
    return render_time(end) if end else names.NEVER


def paid_preparations(
    sections: Mapping[str, Mapping[str, Any] | None], snapshot: Snapshot
) -> tuple[PaidPreparation, ...]:
    """What the run has paid for the preparations of which it is the payer.

    A run's two flavors are priced in one currency, or it doesn't start; one that an older operator has started may be
    on others: those amounts are told beside the total.
    """
    currency = snapshot.price.currency if snapshot.price else None
    paid = []
    for preparation in snapshot.preparations:
        name = PREPARATIONS[preparation.kind]
        section = sections.get(name) or {"cost": "shared"}
        if section.get("cost") != "shared":
            same = preparation.price is not None and preparation.price.currency == currency
            amount = read_amount(section.get("amount")) if same else None
            phase, seconds = names.PAID_PREPARATIONS[name], section.get("seconds", 0)
            paid.append(PaidPreparation(phase, seconds, amount, section.get("estimated", False)))
    return tuple(paid)
