"""What one status write adds to Prometheus' counters: money, and phases that are over. Called by metrics.

Counters begin at zero with the operator while a run goes on, so they take differences: of the status that the run
had and the one that was written in its place. A status without figures, or with unreadable ones, counts as nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from xray_operator.core.cost import NOTHING
from xray_operator.names import COMPILING, HELD_PHASES, QUEUED, SUCCEEDED, TRAINING

Raw = Mapping[str, Any]


def spent(before: Raw, after: Raw) -> dict[str, Decimal]:
    """What the run's total has grown by, divided among the phases that it grew in.

    A minimum or an increment is billed ahead, so an amount that one phase was billed may move to a later one in the
    status. Counters can't follow: what was counted stays with the phase in which it was billed.

    Returns: phase -> amount >= 0, for every phase; empty if the run has no price.
    """
    old, new = _amounts(_same_run(before, after)), _amounts(after)
    rise = {phase: max(amount - old.get(phase, NOTHING), NOTHING) for phase, amount in new.items()}
    risen, growth = sum(rise.values()), max(sum(new.values()) - sum(old.values()), NOTHING)
    return {phase: growth * each / risen if risen else NOTHING for phase, each in rise.items()}


def finished_phases(before: Raw, after: Raw) -> dict[str, int]:
    """The phases that are over since the run's former status, with the run's seconds in them, all attempts together."""
    known = _left(_same_run(before, after))
    return {phase: seconds for phase, seconds in _left(after).items() if phase not in known}


def run_cost(status: Raw) -> Decimal | None:
    """status.cost.total; None where there is no price, or nothing that is an amount."""
    return _amount(section(status, "cost").get("total"))


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
    seconds: dict[str, int] = {row["name"]: row["seconds"] for row in _phase_rows(status)}
    times = section(status, "times")
    entered = [phase for phase in (QUEUED, *HELD_PHASES) if phase.lower() in times or seconds.get(phase)]
    seconds[QUEUED] = section(times, "queued").get("seconds", 0)
    left = entered if status.get("state") == SUCCEEDED else entered[:-1]
    # a trainer compiles between its steps: it has done with that when it has done with training
    return {phase: seconds.get(phase, 0) for phase in left if phase != COMPILING or TRAINING in left}


def _amounts(status: Raw) -> dict[str, Decimal]:
    rows = {row["name"]: _amount(row.get("amount")) for row in _phase_rows(status)}
    return {phase: amount for phase in HELD_PHASES if (amount := rows.get(phase)) is not None}


def _phase_rows(status: Raw) -> list[Raw]:
    rows: list[Raw] = section(status, "cost").get("phases", [])
    return rows


def _amount(text: object) -> Decimal | None:
    try:
        amount = Decimal(text) if isinstance(text, str) else None
    except InvalidOperation:
        return None
    return amount if amount is not None and amount.is_finite() else None


def section(parent: Raw, name: str) -> Raw:
    """A part of a raw object; nothing, where it is none."""
    section = parent.get(name)
    return section if isinstance(section, Mapping) else {}
