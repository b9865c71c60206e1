"""The complete list of conditions of a job. kstatus, `kubectl wait`, Helm and GitOps tools read these.

| state                | DataReady | Running | Succeeded | Suspended | Reconciling | Stalled | Ready    |
|----------------------|-----------|---------|-----------|-----------|-------------|---------|----------|
| Pending (may pass)   | Unknown   | False   | Unknown   | False     | True        | False   | Unknown  |
| Pending (refused)    | Unknown   | False   | Unknown   | False     | False       | True    | False    |
| Queued, Preparing    | as it is  | False   | Unknown   | False     | True        | False   | Unknown* |
| Compiling            | True      | True    | Unknown   | False     | False       | False   | True*    |
| Training, Evaluating | True      | True    | Unknown   | False     | False       | False   | True*    |
| Suspended            | as it is  | False   | Unknown   | True      | False       | False   | True     |
| Succeeded            | True      | False   | True      | False     | False       | False   | True     |
| Failed               | as it is  | False   | False     | False     | False       | True    | False    |
| Stopped              | as it is  | False   | Unknown   | False     | False       | True    | False    |

What may pass is what ends without an edit of the job or its flavor (names.PASSING): readers of Stalled would give
up too early. * Ready means by default: started as asked, the way a batch/v1 Job is healthy once it runs;
spec.readyWhen moves it. While a run is being stopped, or replaced by another rerun, Ready is Unknown and nothing is
Stalled; while Ready is Unknown, Reconciling is True. A run whose node is lost keeps its state, with Running and
Ready Unknown and the reason NodeLost.

A run that makes no progress for longer than its limit keeps its state, with Stalled True and Ready False and the reason
NoProgress, as of a Deployment that does not progress; where its pod is ended for that, Ready is Unknown instead. When that
is over, Stalled is False with the reason StallOver.

Running and Ready say where the run is and why. The others do so only where they are what it is about: `Stalled` with
status False has the reason NotStalled and no message, so that nobody reads "out of memory" beside `Suspended`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from xray_operator import names
from xray_operator.core.attempts import render_time
from xray_operator.core.situation import Situation

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Condition:
    """One statement about a job, without its times."""

    type: str
    status: Truth
    reason: str
    message: str


def accepted_condition(told: str, edits: Sequence[str] = (), rerun: int = 0) -> Condition:
    """Accepted=True.

    Args:
        edits: fields that were edited since the run was fixed.
        rerun: of the run.
    """
    if not edits:
        return Condition(names.ACCEPTED, "True", names.ACCEPTED, told)
    return Condition(names.ACCEPTED, "True", names.EDITS_PENDING, f"{tell_edits(edits, rerun)}. {told}")


def tell_edits(edits: Sequence[str], rerun: int) -> str:
    """That edits of the fields of this run wait for the next one."""
    verb = "takes" if len(edits) == 1 else "take"
    return f"{', '.join(edits)}: edited after the start; {verb} effect with rerun {rerun + 1}"


def refused_conditions(reason: str, message: str) -> tuple[Condition, ...]:
    """Of a job that can't start as things are."""
    passes = reason in names.PASSING
    return (
        Condition(names.ACCEPTED, "False", reason, message),
        _quiet(names.DATA_READY, "Unknown"),
        Condition(names.RUNNING, "False", names.PENDING, "the job is not accepted"),
        _quiet(names.SUCCEEDED, "Unknown"),
        _quiet(names.SUSPENDED, "False"),
        Condition(names.RECONCILING, "True", reason, message) if passes else _quiet(names.RECONCILING, "False"),
        _quiet(names.STALLED, "False") if passes else Condition(names.STALLED, "True", reason, message),
        Condition(names.READY, "Unknown" if passes else "False", reason, message),
    )


def accepted_conditions(situation: Situation, accepted: Condition, data: str, ready_when: str) -> tuple[Condition, ...]:
    """Of a job that is accepted, started or not.

    Args:
        data: what is known of the prepared data, in words.
        ready_when: spec.readyWhen.
    """
    state, reason, message = situation.state, situation.reason, situation.message
    ready = "Unknown" if situation.changing else "False" if reason == names.NO_PROGRESS else _ready(state, ready_when)
    stuck = not situation.changing and (state in (names.FAILED, names.STOPPED) or reason == names.NO_PROGRESS)
    started = ready == "True" and _runs(state) and reason == state

    def told(kind: str, holds: bool) -> Condition:
        return Condition(kind, "True", reason, message) if holds else _quiet(kind, "False")

    return (
        accepted,
        _data_ready(situation, data),
        Condition(names.RUNNING, _running(situation), reason, message),
        _succeeded(situation),
        told(names.SUSPENDED, state == names.SUSPENDED),
        told(names.RECONCILING, ready == "Unknown"),
        told(names.STALLED, stuck),
        Condition(names.READY, ready, names.STARTED if started else reason, message),
    )


def render_conditions(
    conditions: Sequence[Condition], previous: Sequence[Mapping[str, Any]], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """The list for status; a condition keeps its lastTransitionTime while its status stays.

    Args:
        previous: status.conditions as they were. The CRD's default row is no statement of ours: it has no generation.
    """
    former = {row.get("type"): row for row in previous if "observedGeneration" in row}
    return [_render(condition, former.get(condition.type, {}), generation, now) for condition in conditions]


def find_condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """One condition of a status, or an empty mapping."""
    return next((c for c in status.get("conditions", ()) if c.get("type") == kind), {})


def went_on_at(status: Mapping[str, Any]) -> str | None:
    """When the run went on after it had stood still, by a wish or a limit; None if it never did, or stands still."""
    rows = (find_condition(status, kind) for kind in (names.SUSPENDED, names.STALLED))
    stood = [row for row in rows if row.get("status") == "False" and row.get("reason") != names.STALL_OVER]
    went_on = [row["lastTransitionTime"] for row in stood]
    begun = find_condition(status, names.ACCEPTED).get("lastTransitionTime", "")
    return max((moment for moment in went_on if moment > begun), default=None)


_QUIET: Final = {
    names.DATA_READY: "NotPrepared",
    names.SUCCEEDED: "NotFinished",
    names.SUSPENDED: "NotSuspended",
    names.RECONCILING: "UpToDate",
    names.STALLED: "NotStalled",
}
_SUCCEEDED: Mapping[str, Truth] = {names.SUCCEEDED: "True", names.FAILED: "False"}
_READY: Mapping[str, Truth] = {
    names.SUSPENDED: "True",
    names.SUCCEEDED: "True",
    names.FAILED: "False",
    names.STOPPED: "False",
}


def _ready(state: str, ready_when: str) -> Truth:
    if state in _READY:
        return _READY[state]
    enough = ready_when == names.ACCEPTED or (ready_when == names.STARTED and _runs(state))
    return "True" if enough else "Unknown"


def _running(situation: Situation) -> Truth:
    if not _runs(situation.state):
        return "False"
    return "Unknown" if situation.reason == names.NODE_LOST else "True"


def _runs(state: str) -> bool:
    return state in names.RUNNING_STATES


def _quiet(kind: str, status: Truth) -> Condition:
    """A condition that is not what the job is about now."""
    return Condition(kind, status, _QUIET[kind], "")


def _succeeded(situation: Situation) -> Condition:
    status = _SUCCEEDED.get(situation.state)
    if status is None:
        return _quiet(names.SUCCEEDED, "Unknown")
    return Condition(names.SUCCEEDED, status, situation.reason, situation.message)


def _data_ready(situation: Situation, data: str) -> Condition:
    if situation.data_ready:
        return Condition(names.DATA_READY, "True", names.PREPARED, data)
    if situation.pod is not None and situation.state in (names.PREPARING, names.FAILED):
        return Condition(names.DATA_READY, "False", situation.reason, situation.message)
    return _quiet(names.DATA_READY, "False")


def _render(condition: Condition, former: Mapping[str, Any], generation: int, now: datetime) -> dict[str, Any]:
    unmoved = former.get("status") == condition.status and former.get("lastTransitionTime")
    over = condition.reason == _QUIET[names.STALLED] and former.get("reason") in (names.NO_PROGRESS, names.STALL_OVER)
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": names.STALL_OVER if over else condition.reason[:64],
        "message": names.short(condition.message),
        "observedGeneration": generation,
        "lastTransitionTime": unmoved or render_time(now),
    }
