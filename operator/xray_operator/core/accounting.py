"""What one status write adds to Prometheus' counters: money, and phases that are over. Called by metrics.

Counters begin at zero with the operator while a run goes on, so they take differences: of the status that the run
had and the one that was written in its place. A status without figures, or with unreadable ones, counts as nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from pydantic import ValidationError

from xray_operator.core.cost import NOTHING, amount_of, billed_seconds, read_amount
from xray_operator.core.spec import Price
from xray_operator.names import COMPILING, HELD_PHASES, PAID_PREPARATIONS, QUEUED, SUCCEEDED, TRAINING, WORKING_PHASES

Raw = Mapping[str, Any]
SETTLING_SECONDS: Final = 30
"""The word of a container's end comes later than the end. Until then a run is billed as if it went on, and the bill takes
that back; what is counted can't be, so of an attempt that goes on so many seconds wait."""


def spent(before: Raw, after: Raw) -> dict[tuple[str, str], Decimal]:
    """What is certain of the run's total has grown by: on its flavor, divided among the phases that went on there; and on
    the flavor of each preparation that it pays.

    A minimum or an increment is billed ahead, so what was billed while one phase went on may be another's in the status.
    Counters can't follow: what was counted stays with the phase in which it was billed. Nor can they take back what a run
    had paid for a preparation that another run pays in the end.

    Returns: (flavor, phase) -> amount >= 0, for every phase; empty if the run has no price.
    """
    former = _same_run(before, after)
    if run_cost(after) is None:
        return {}
    own, old_own = _certain(after), _certain(former)
    prepared, old_prepared = _certain_prepared(after), _certain_prepared(former)
    growth = {key: max(amount - old_prepared.get(key, NOTHING), NOTHING) for key, amount in prepared.items()}
    weights = _went_on(former, after)
    whole = sum(weights.values())
    return growth | {
        (run_flavor(after), phase): max(own - old_own, NOTHING) * weight / whole if whole else NOTHING
        for phase, weight in weights.items()
    }


def lost(before: Raw, after: Raw) -> Decimal | None:
    """What the run's lost money has grown by; None if it has no price."""
    if run_cost(after) is None:
        return None
    return max(lost_cost(after) - lost_cost(_same_run(before, after)), NOTHING)


def prepared_amounts(status: Raw) -> dict[tuple[str, str], Decimal]:
    """(Flavor, phase) -> what the run pays for each preparation of its own that has a price and a row."""
    rows = {row["name"]: read_amount(row.get("amount")) for row in _phase_rows(status)}
    flavors = {phase: str(section(status, name).get("flavor", "")) for name, phase in PAID_PREPARATIONS.items()}
    return {(flavor, phase): amount for phase, flavor in flavors.items() if (amount := rows.get(phase)) is not None}


def _certain(status: Raw) -> Decimal:
    """The least that the run will have to pay on its own flavor."""
    own = (run_cost(status) or NOTHING) - sum(prepared_amounts(status).values())
    return _without_ahead(own, section(status, "cost"), status.get("attempts", ()))


def _certain_prepared(status: Raw) -> dict[tuple[str, str], Decimal]:
    parts = {phase: section(status, name) for name, phase in PAID_PREPARATIONS.items()}
    return {
        (flavor, phase): _without_ahead(amount, parts[phase], parts[phase].get("attempts", ()))
        for (flavor, phase), amount in prepared_amounts(status).items()
    }


def _without_ahead(amount: Decimal, bill: Raw, attempts: Sequence[Raw]) -> Decimal:
    """The part of an amount that can't be taken back.

    Args:
        bill: has the price, and the seconds that were billed to these attempts.
    """
    goes_on = [row for row in attempts if "finishedAt" not in row]
    price = _price(bill) if goes_on else None
    if price is None:
        return amount
    ahead = 0
    for row in goes_on:
        held = sum(row.get(f"{phase.lower()}Seconds", 0) for phase in HELD_PHASES)
        ahead += billed_seconds(held, price) - billed_seconds(held - SETTLING_SECONDS, price)
    return amount_of(bill.get("billedSeconds", 0) - ahead, price)


def _price(bill: Raw) -> Price | None:
    try:
        return Price.model_validate(section(bill, "price"))
    except ValidationError:
        return None


def _went_on(before: Raw, after: Raw) -> dict[str, int]:
    """By how many seconds each phase has grown; where none has, all its seconds."""
    old, new = _seconds(before), _seconds(after)
    grown = {phase: max(new.get(phase, 0) - old.get(phase, 0), 0) for phase in HELD_PHASES}
    return grown if any(grown.values()) else {phase: new.get(phase, 0) for phase in HELD_PHASES}


def _seconds(status: Raw) -> dict[str, int]:
    return {row["name"]: row["seconds"] for row in _phase_rows(status)}


def finished_phases(before: Raw, after: Raw) -> dict[str, int]:
    """The phases that are over since the run's former status, with the run's seconds in them, all attempts together."""
    known = _left(_same_run(before, after))
    return {phase: seconds for phase, seconds in _left(after).items() if phase not in known}


def run_cost(status: Raw) -> Decimal | None:
    """status.cost.total; None where there is no price, or nothing that is an amount."""
    return read_amount(section(status, "cost").get("total"))


def lost_cost(status: Raw) -> Decimal:
    """status.cost.lostAmount, which is left out where nothing was lost."""
    return read_amount(section(status, "cost").get("lostAmount")) or NOTHING


def run_flavor(status: Raw) -> str:
    """The flavor that the run is on, which spec.flavor may differ from by now; empty before there is a run."""
    return str(section(status, "run").get("flavor", ""))


def currency(status: Raw) -> str:
    return str(section(status, "cost").get("currency", ""))


def _same_run(before: Raw, after: Raw) -> Raw:
    """The former status, unless it was that of an earlier run of the same resource."""
    name = section(after, "run").get("jobName")
    return before if section(before, "run").get("jobName") == name else {}


def _left(status: Raw) -> dict[str, int]:
    """The phases that the run has left for a later one, or by succeeding: a new attempt may enter them again, but
    that they are over has been seen."""
    seconds = _seconds(status)
    times = section(status, "times")
    entered = [phase for phase in (QUEUED, *WORKING_PHASES) if phase.lower() in times or seconds.get(phase)]
    seconds[QUEUED] = section(times, "queued").get("seconds", 0)
    left = entered if status.get("state") == SUCCEEDED else entered[:-1]
    # a trainer compiles between its steps: it has done with that when it has done with training
    return {phase: seconds.get(phase, 0) for phase in left if phase != COMPILING or TRAINING in left}


def _phase_rows(status: Raw) -> list[Raw]:
    rows: list[Raw] = section(status, "cost").get("phases", [])
    return rows


def section(parent: Raw, name: str) -> Raw:
    """A part of a raw object; nothing, where it is none."""
    section = parent.get(name)
    return section if isinstance(section, Mapping) else {}
