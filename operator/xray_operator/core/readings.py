"""What a job's status says of it as it is now, as numbers; None where it says nothing. Called by job_metrics.

A status may be old, or edited by somebody with the right to: what is no number, amount or time counts as not said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from xray_operator import names
from xray_operator.core import accounting
from xray_operator.core.accounting import run_cost, section
from xray_operator.core.conditions import find_condition, went_on_at
from xray_operator.core.cost import UNPRICED
from xray_operator.core.raw import read_time

Raw = Mapping[str, Any]


def state_of(status: Raw) -> str:
    """One of names.STATES; Pending where nobody has looked yet."""
    state = status.get("state")
    return state if state in names.STATES else names.PENDING


def cost(status: Raw) -> float | None:
    """What the run has cost so far."""
    total = run_cost(status)
    return None if total is None else float(total)


def lost_cost(status: Raw) -> float | None:
    """How much of it was lost; 0 for a run that has a price and has lost nothing."""
    return None if run_cost(status) is None else float(accounting.lost_cost(status))


def unpriced_flavors(status: Raw) -> set[str]:
    """Those without a price that a run which is not over holds, or held: its own, and those of preparations that it pays."""
    if state_of(status) in names.FINAL_STATES:
        return set()
    held = section(status, "cost").get("priced") is False and status.get("attempts")
    preparations = (section(status, name) for name in names.PAID_PREPARATIONS)
    prepared = {str(one.get("flavor", "")) for one in preparations if one.get("cost") == UNPRICED}
    return prepared | ({accounting.run_flavor(status)} if held else set())


def progress(status: Raw) -> float | None:
    """Share done of the present phase, from 0 to 1."""
    percentage = section(status, "trainerStatus").get("progressPercentage")
    return percentage / 100 if _is_active(status) and isinstance(percentage, int) else None


def trained(status: Raw, metric: str) -> float | None:
    """A metric of the trainer of a run that trains or evaluates."""
    told = section(status, "trainerStatus").get("metrics")
    rows = _mappings(told) if state_of(status) in names.RUNNING_STATES else ()
    return _number(next((row.get("value") for row in rows if row.get("name") == metric), None))


def prepared_images_per_second(status: Raw) -> float | None:
    """Of a run whose data is being read."""
    rate = section(status, "data").get("imagesPerSecond")
    return _number(rate) if state_of(status) == names.PREPARING else None


def preparation_failures(status: Raw) -> float | None:
    """Pods that have failed to prepare, of a run whose preparation is not over: in Jobs of their own, or as its own pods.

    One that was stopped has not failed, and its Job does not count it.
    """
    ready = find_condition(status, names.DATA_READY).get("status") == "True"
    if ready or state_of(status) not in (names.QUEUED, names.PREPARING):
        return None
    preparations = (section(status, name) for name in names.PAID_PREPARATIONS)
    each = (status, *(one for one in preparations if "finishedAt" not in one))
    rows = [row for part in each for row in _mappings(part.get("attempts"))]
    return len([row for row in rows if "reason" in row and row.get("exitCode") != names.STOPPED_EXIT_CODE])


def stalled(status: Raw) -> float | None:
    """1 for a run that has made no progress for longer than its limit, 0 for any other that holds or prepares."""
    if not _is_active(status):
        return None
    return float(find_condition(status, names.RUNNING).get("reason") == names.NO_PROGRESS)


def checkpoint_age(status: Raw, now: float) -> float | None:
    """Seconds since the newest checkpoint of a run that has something to lose; since its attempt began, if that is later."""
    saved = _moment(section(status, "checkpoint").get("time")) if _is_active(status) else None
    begins = (_moment(row.get("startedAt")) for row in _mappings(status.get("attempts")))
    return None if saved is None else now - max([saved, *(moment for moment in begins if moment is not None)])


def queue_age(status: Raw, created: object, now: float) -> float | None:
    """Seconds for which a run has waited for a node: since it could have had one, its last attempt ended or it went on.
    A job that waits before that, for an obstacle that may pass or for its namespace's budget, does since it isn't Ready.

    Args:
        created: metadata.creationTimestamp.
    """
    state, passes = state_of(status), find_condition(status, names.RECONCILING).get("status") == "True"
    if state != names.QUEUED and not (state == names.PENDING and passes):
        return None
    not_ready = find_condition(status, names.READY).get("lastTransitionTime")
    preparations = (section(status, name) for name in names.PAID_PREPARATIONS)
    ends = (row.get("finishedAt") for row in _mappings(status.get("attempts")))
    begins = (
        created,
        section(status, "run").get("startedAt") or not_ready,
        *(one.get("finishedAt") for one in preparations),
        *ends,
        went_on_at(status),
    )
    known = [moment for moment in map(_moment, begins) if moment is not None]
    return max(now - max(known), 0.0) if known else None


def _is_active(status: Raw) -> bool:
    return state_of(status) in names.ACTIVE_STATES


def _mappings(rows: object) -> Iterable[Raw]:
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _number(text: object) -> float | None:
    try:
        number = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _moment(text: object) -> float | None:
    """In Unix seconds."""
    try:
        return read_time(text).timestamp() if isinstance(text, str) else None
    except ValueError:
        return None
