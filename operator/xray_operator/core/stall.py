"""Whether a run that holds its flavor, or whose data is prepared, still moves; and whether its pod is to be ended for that.
Called by status.

A run is stalled when its container answers, and says itself that nothing has moved for longer than the run's limit. A
container that does not answer is not stalled, however long it is silent: nothing is known of it (ProgressUnknown).

Before a trainer's first step it loads libraries and, on IPUs, compiles, which takes minutes to tens of minutes and tells
nothing of itself; so it does before it first evaluates, and the report after the last batch tells nothing either. There
the longer of the two limits holds.

With onStall Restart a stalled trainer's pod is evicted: it has its grace to save what it can, another one goes on from the
newest checkpoint, and the Job does not count the end as a failure of the run (podFailurePolicy: Ignore DisruptionTarget).
Where an attempt has an object of its own, that is deleted. The attempt is marked first (status.attempts, stalledSince), and
the pod is ended in a later pass, if the answer is still the same then: so whoever reads the status knows why it ended. A run is
restarted as often as a Job tries again what may pass by itself; then it stands still, until a limit is raised. Preparations
are only told of: others may wait for them, and they hold nothing dear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from xray_operator import names
from xray_operator.core.attempts import Attempt, Stall
from xray_operator.core.pods import Pod
from xray_operator.core.reports import Progress
from xray_operator.core.situation import Situation
from xray_operator.core.spec import Limits

SILENT_SECONDS: Final = 60
"""A trainer that does not answer for so long is told of; it may only be busy."""


def find_stall(situation: Situation, progress: Progress | None, limits: Limits, now: datetime) -> Stall | None:
    """That the latest pod has made no progress for longer than its limit, by its own word; None without such a word."""
    pod = situation.pod
    began = _working_since(pod, situation.reason) if pod else None
    if began is None or progress is None:
        return None
    limit = "noProgressSeconds" if _moves_steadily(situation.reason, progress) else "firstStepSeconds"
    patience, still = limits.patience(limit), _unmoved_seconds(progress, began, now)
    if patience is None or still < patience:
        return None
    return Stall(limit, now.replace(microsecond=0) - timedelta(seconds=still))


def may_restart(situation: Situation, limits: Limits) -> bool:
    """Whether a pod that stalls in this situation is to be ended: only a trainer's."""
    return limits.on_stall == "Restart" and situation.state in names.RUNNING_STATES


def find_victim(stall: Stall | None, recorded: Sequence[Attempt], pod: Pod | None) -> str:
    """The name of the pod that is to be ended now, if the run needn't stand still; "" if none is.

    Args:
        stall: as the pod has just told it, if it may be ended for that.
        recorded: the attempts as status has them: only what is marked there is ended.
    """
    if stall is None or pod is None or pod.lost:
        return ""
    marked = any(each.pod_name == pod.name and each.stall for each in recorded)
    return pod.name if marked else ""


def watch_progress(
    situation: Situation,
    progress: Progress | None,
    known: datetime | None,
    stall: Stall | None,
    attempts: Sequence[Attempt],
    limits: Limits,
    now: datetime,
) -> Situation:
    """The same, with a word on progress that is missing.

    Args:
        progress: what the pod has just told; None if it did not answer.
        known: when it last made progress, as far as anybody knows.
    """
    pod = situation.pod
    began = _working_since(pod, situation.reason) if pod else None
    if pod is None or began is None:
        return situation
    marked = next((each.stall for each in attempts if each.pod_name == pod.name), None)
    if marked:
        told = f"{marked.told(limits)}; pod {pod.name} is ended, and another goes on from the newest checkpoint"
        return replace(situation, reason=names.NO_PROGRESS, message=told, changing=True)
    if stall is not None:
        told = f"{stall.told(limits)}; see kubectl logs {pod.name}"
        return replace(situation, reason=names.NO_PROGRESS, message=told)
    if progress is None and (now - max(known or began, began)).total_seconds() >= SILENT_SECONDS:
        told = f"pod {pod.name} does not answer on port {pod.port}; the run goes on"
        return replace(situation, reason=names.PROGRESS_UNKNOWN, message=told)
    return situation


def _moves_steadily(reason: str, progress: Progress) -> bool:
    """Whether the container is at work that tells of each of its steps: the first one brings the trainer's first figures."""
    return reason == names.PREPARING or (reason == names.TRAINING and bool(progress.metrics))


def _unmoved_seconds(progress: Progress, began: datetime, now: datetime) -> int:
    """By the container's own clock, which may be another than ours; an older trainer does not tell what time it is there."""
    lived = now - began
    moved = progress.last_updated_time
    still = (progress.time or now) - moved if moved else lived
    return int(min(still, lived).total_seconds())


def _working_since(pod: Pod, reason: str) -> datetime | None:
    """Begin of the container whose progress counts; None where there is nothing to wait for."""
    if reason == names.PREPARING:
        return pod.prepare.started if pod.prepare.running else None
    return pod.train.started if reason in names.RUNNING_STATES and pod.train.running else None
