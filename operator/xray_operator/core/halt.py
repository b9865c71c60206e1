"""Whether a run has to stand still: by the wish of its owner, or at one of its limits. Called by status and reconcile.

A run stands still by its Job's `suspend`: the pods end with a checkpoint, and nothing is held. It goes on when the
reason has gone, because somebody cleared spec.suspend or raised the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xray_operator import names
from xray_operator.core.attempts import Attempt, add_seconds
from xray_operator.core.spec import Limits, LiveSpec


@dataclass(frozen=True)
class Halt:
    """Why a run stands still; the state that it is in then."""

    state: str
    reason: str
    message: str


def find_halt(live: LiveSpec, attempts: Sequence[Attempt], waited_seconds: float = 0) -> Halt | None:
    """Why the run has to stand still, or None.

    Args:
        waited_seconds: how long it has been waiting for a node.
    """
    if live.suspend:
        return Halt(names.SUSPENDED, names.SUSPENDED, "suspended by spec.suspend; set it to false to go on")
    return _run_limit(live.limits, attempts) or _queue_limit(live.limits, waited_seconds)


def _run_limit(limits: Limits, attempts: Sequence[Attempt]) -> Halt | None:
    held = sum(add_seconds(attempts).values())
    if limits.run_seconds is None or held < limits.run_seconds:
        return None
    told = f"held its flavor for {held} s; limits.runSeconds is {limits.run_seconds}: raise it to go on"
    return Halt(names.STOPPED, names.RUN_LIMIT_REACHED, told)


def _queue_limit(limits: Limits, waited_seconds: float) -> Halt | None:
    if limits.queue_seconds is None or waited_seconds < limits.queue_seconds:
        return None
    # the seconds that have passed are left out: they would make news of every pass
    told = (
        f"it had no node or partition in time; limits.queueSeconds is {limits.queue_seconds}: raise it to go on waiting"
    )
    return Halt(names.STOPPED, names.QUEUE_LIMIT_REACHED, told)
