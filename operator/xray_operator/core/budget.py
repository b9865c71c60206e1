"""What a run may cost, and when it has to be stopped so that it costs no more. Called by halt, status, admission and run_file.

A stop takes time, and the flavor is held and billed until the pod has ended. So a stop begins while the bill of a run that
ends STOP_SECONDS later, minimum and increments counted, is just within the limit. Nobody stops a run between two
of its attempts; another begins only if the limit pays for one that is stopped at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_UP, Decimal
from typing import Any, Final, Literal

from xray_operator import names
from xray_operator.core.batch_job import GRACE_SECONDS
from xray_operator.core.cost import CENTS, NOTHING, PLACES, amount_of, billed_seconds, read_amount
from xray_operator.core.spec import Budget, Limits, Price

REACTION_SECONDS: Final = 60
"""From the moment at which a stop is due to the pod's SIGTERM: a pass of the resync, the Job controller, the kubelet. The
trainer stops by itself if it has heard nothing by then."""
STOP_SECONDS: Final = REACTION_SECONDS + GRACE_SECONDS
"""From the moment at which a stop is due to the end of what the run holds."""


def is_kept(budget: Budget | None, price: Price | None) -> bool:
    """Whether a run with this price is stopped by its budget."""
    return budget is not None and budget.on_exceed == "CheckpointAndStop" and is_counted(budget, price)


def is_counted(budget: Budget, price: Price | None) -> bool:
    """Whether the budget and the bill are in one currency: no rate of exchange is invented."""
    return price is not None and price.currency == budget.currency


def least_amount(price: Price, on_exceed: str = "CheckpointAndStop") -> Decimal:
    """The least that an attempt can cost; of one that the budget stops, with the time that a stop takes."""
    seconds = STOP_SECONDS if on_exceed == "CheckpointAndStop" else 1
    return amount_of(billed_seconds(seconds, price), price)


def amount_after_stop(billed: int, held: Iterable[int], price: Price) -> Decimal:
    """The price of what was billed before, and of attempts that end STOP_SECONDS after now, or begin now and end by then.

    Args:
        held: seconds of each of these so far.
    """
    return amount_of(billed + sum(billed_seconds(each + STOP_SECONDS, price) for each in held), price)


def longest_attempt(limit: Decimal, price: Price, billed: int = 0) -> int | None:
    """The most seconds that one more attempt may hold the flavor; None: any number.

    Args:
        limit: for all attempts together, a multiple of four places.
        billed: seconds of those before.
    """
    if price.per_hour == 0:
        return None
    affordable = int((limit + PLACES / 2) * 3600 / price.per_hour)  # an amount is rounded to four places
    while amount_of(affordable, price) > limit:
        affordable -= 1
    longest = (affordable - billed) // price.increment_seconds * price.increment_seconds
    return longest if longest >= max(price.minimum_seconds, 1) else 0


def trainer_seconds(limits: Limits, budget: Budget | None, price: Price | None) -> int | None:
    """How long the trainer of a first attempt may run by itself while nobody is there to tell it; None: for ever."""
    longest = longest_attempt(budget.limit, price) if budget and price and is_kept(budget, price) else None
    told = [limits.run_seconds, None if longest is None else max(longest - GRACE_SECONDS, 1)]
    return min((seconds for seconds in told if seconds is not None), default=None)


def budget_section(budget: Budget, cost: Mapping[str, Any]) -> dict[str, Any]:
    """status.budget.

    Args:
        cost: status.cost; empty before there is one.
    """
    section: dict[str, Any] = {"limit": str(budget.limit), "currency": budget.currency}
    total = _counted_total(budget, cost)
    if total is None:
        return section
    left = budget.limit - total
    used = int(total * 100 / budget.limit)
    return section | {"left": str(left), "usedPercent": used, "display": _display(left, budget)}


def _display(left: Decimal, budget: Budget) -> str:
    """What is above is never told as 0.00."""
    limit = budget.limit.quantize(CENTS)
    if left < 0:
        return f"{(-left).quantize(CENTS, ROUND_UP)} {budget.currency} above its {limit}"
    return f"{left.quantize(CENTS)} of {limit} {budget.currency} left"


def judge_budget(budget: Budget, cost: Mapping[str, Any]) -> tuple[Literal["True", "False", "Unknown"], str, str]:
    """(status, reason, message) of the condition BudgetWarning; no figure in it that changes as time goes on."""
    total, limit = _counted_total(budget, cost), f"spec.budget.limit, {budget.limit} {budget.currency}"
    if total is None and cost.get("priced"):
        told = f"the run is priced in {cost.get('currency')}, its budget is in {budget.currency}: it is not kept"
        return "Unknown", names.BUDGET_CURRENCY, f"{told}; correct spec.budget.currency"
    if total is None:
        return "Unknown", names.BUDGET_UNPRICED, "the run's flavor had no price when it started: its budget is not kept"
    if total > budget.limit:
        return "True", names.BUDGET_EXCEEDED, f"more than {limit}, is spent"
    if total * 100 >= budget.limit * budget.warn_at_percent:
        return "True", names.BUDGET_NEARLY_SPENT, f"{budget.warn_at_percent} % of {limit}, are spent"
    return "False", names.WITHIN_BUDGET, ""


def _counted_total(budget: Budget, cost: Mapping[str, Any]) -> Decimal | None:
    """What the run has cost so far; None where that is not known in the budget's currency."""
    if not cost:
        return NOTHING
    return read_amount(cost.get("total")) if cost.get("currency") == budget.currency else None
