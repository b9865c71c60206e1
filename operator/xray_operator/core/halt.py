"""Whether a run has to stand still: by the wish of its owner, or at one of its limits. Called by status and reconcile.

A run stands still by its Job's `suspend`: the pods end with a checkpoint, and nothing is held. It goes on when the
reason has gone, because somebody cleared spec.suspend or raised the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from xray_operator import names
from xray_operator.core.attempts import Attempt, add_seconds
from xray_operator.core.batch_job import BACKOFF_LIMIT, GRACE_SECONDS
from xray_operator.core.budget import (
    REACTION_SECONDS,
    amount_after_stop,
    is_kept,
    least_amount,
    longest_attempt,
)
from xray_operator.core.cost import NOTHING
from xray_operator.core.spec import Budget, Limits, LiveSpec, Price

NO_END: Final = 10**9
"""More seconds than anything runs, and fewer than a date can hold."""


@dataclass(frozen=True)
class Halt:
    """Why a run stands still; the state that it is in then."""

    state: str
    reason: str
    message: str


def find_halt(
    live: LiveSpec,
    attempts: Sequence[Attempt],
    price: Price | None = None,
    prepared: Decimal = NOTHING,
    waited_seconds: float = 0,
) -> Halt | None:
    """Why the run has to stand still, or None.

    Args:
        price: of the run.
        prepared: what it pays for preparations.
        waited_seconds: how long it has been waiting for a node.
    """
    if live.suspend:
        return Halt(names.SUSPENDED, names.SUSPENDED, "suspended by spec.suspend; set it to false to go on")
    limits = live.limits
    reached = _run_limit(limits, attempts) or _restart_limit(limits, attempts) or _queue_limit(limits, waited_seconds)
    if reached is None and live.budget and price and must_stop(live.budget, price, attempts, prepared):
        return spent_budget(live.budget, price, "another attempt")
    return reached


def must_stop(
    budget: Budget | None, price: Price | None, attempts: Sequence[Attempt], prepared: Decimal = NOTHING
) -> bool:
    """Whether the budget says that a run has to end now, or that it may not begin another attempt."""
    if budget is None or price is None or not is_kept(budget, price):
        return False
    if attempts and attempts[-1].finished and not attempts[-1].failure:
        return False  # it has done its work: its Job will say so
    return prepared + projected_amount(attempts, price) > budget.limit


def projected_amount(attempts: Sequence[Attempt], price: Price) -> Decimal:
    """The price of these attempts if the one that goes on is stopped now; if one has to follow, with such a one."""
    billed = sum(attempt.billed_at(price) for attempt in attempts if attempt.finished)
    live = [each.held for each in attempts if not each.finished]
    done = attempts and attempts[-1].finished and not attempts[-1].failure
    return amount_after_stop(billed, live if live or done else [0], price)


def deadline(
    live: LiveSpec, price: Price | None, begin: datetime, former: Sequence[Attempt], prepared: Decimal = NOTHING
) -> datetime | None:
    """When the trainer has to stop by itself, which is after the operator should have stopped it; None: never.

    Args:
        begin: of the attempt that goes on.
        former: the attempts before it.
    """
    told = []
    if live.limits.run_seconds is not None:
        told.append(live.limits.run_seconds - sum(attempt.held for attempt in former) + REACTION_SECONDS)
    if live.budget and price and is_kept(live.budget, price):
        billed = sum(attempt.billed_at(price) for attempt in former)
        longest = longest_attempt(live.budget.limit - prepared, price, billed)
        told += [] if longest is None else [longest - GRACE_SECONDS]
    seconds = min(told, default=NO_END)
    return begin + timedelta(seconds=max(seconds, 0)) if seconds < NO_END else None


def spent_budget(budget: Budget, price: Price, what: str) -> Halt:
    """What is left of the budget pays for no more of this."""
    limit, least = (f"{amount} {budget.currency}" for amount in (budget.limit, least_amount(price)))
    told = f"spec.budget.limit, {limit}, pays for no more: {what} costs {least} at least; raise it to go on"
    return Halt(names.STOPPED, names.BUDGET_REACHED, told)


def _run_limit(limits: Limits, attempts: Sequence[Attempt]) -> Halt | None:
    held = sum(add_seconds(attempts).values())
    if limits.run_seconds is None or held < limits.run_seconds:
        return None
    told = f"held its flavor for {held} s; limits.runSeconds is {limits.run_seconds}: raise it to go on"
    return Halt(names.STOPPED, names.RUN_LIMIT_REACHED, told)


def restarts_are_used_up(attempts: Sequence[Attempt], limits: Limits) -> bool:
    """Whether a run that does not move is to be ended for that, and was as often as its Job tries again what may pass."""
    if limits.on_stall != "Restart":
        return False
    return sum(_has_stalled(attempt, limits) for attempt in attempts) > BACKOFF_LIMIT


def _has_stalled(attempt: Attempt, limits: Limits) -> bool:
    """For longer than its limit is now: a raised one forgives."""
    patience = limits.patience(attempt.stall.limit) if attempt.stall else None
    if attempt.stall is None or patience is None:
        return False
    return attempt.finished is None or (attempt.finished - attempt.stall.since).total_seconds() >= patience


def _restart_limit(limits: Limits, attempts: Sequence[Attempt]) -> Halt | None:
    if not restarts_are_used_up(attempts, limits):
        return None
    stalls = [attempt.stall for attempt in attempts if attempt.stall and _has_stalled(attempt, limits)]
    told = (
        f"{stalls[-1].told(limits)}, in {len(stalls)} attempts; see train.log in the run's folder: raise the limit, or set "
        "limits.onStall to Notify, to go on from the newest checkpoint"
    )
    return Halt(names.STOPPED, names.RESTART_LIMIT_REACHED, told)


def _queue_limit(limits: Limits, waited_seconds: float) -> Halt | None:
    if limits.queue_seconds is None or waited_seconds < limits.queue_seconds:
        return None
    # the seconds that have passed are left out: they would make news of every pass
    told = (
        f"it had no node or partition in time; limits.queueSeconds is {limits.queue_seconds}: raise it to go on waiting"
    )
    return Halt(names.STOPPED, names.QUEUE_LIMIT_REACHED, told)
