"""(job, what is there, now, configuration) -> what to do. The one place that decides; nothing here acts.

A run begins in two steps, each of which can be the last before a crash: first the ConfigMap, which holds the
snapshot; then the Job, built from the snapshot that the ConfigMap holds, whoever made it. The Job is the mark
that the run has started; everything after that is observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from xray_operator import names
from xray_operator.config import OperatorConfig
from xray_operator.core.admission import find_flavor, objections
from xray_operator.core.conditions import find_condition
from xray_operator.core.events import build_events
from xray_operator.core.manifests import build_config_map, build_job
from xray_operator.core.observed import Observed, XRayJob
from xray_operator.core.plan import make_plan, take_snapshot
from xray_operator.core.spec import JobSpec, Problem, parse_part
from xray_operator.core.status import Status, is_worth_writing, refused_status, started_status


@dataclass(frozen=True)
class Decision:
    """What to do, in this order: create, post events, write status."""

    create: dict[str, Any] | None = None
    """A ConfigMap (then decide again with its snapshot) or a Job."""
    events: tuple[dict[str, Any], ...] = ()
    status: Status | None = None


def reconcile(job: XRayJob, observed: Observed, now: datetime, config: OperatorConfig) -> Decision:
    """Decide about one job. The same arguments give the same decision."""
    if _is_settled(job, observed):
        return Decision()
    if observed.unreadable:
        told = f"{observed.unreadable}; put the annotation {names.SNAPSHOT} back, or create the job anew"
        return _tell(job, refused_status(job, names.RECORD_UNREADABLE, told, now), now, config)
    if observed.job is not None:
        return _tell(job, started_status(job, observed.job, observed, now), now, config)
    return _start(job, observed, now, config)


def _is_settled(job: XRayJob, observed: Observed) -> bool:
    """A finished run is never looked at again, so that what becomes of its pods changes nothing.

    Only a result that has not been read may still come, while the Job is there.
    """
    if job.status.get("state") not in names.FINAL_STATES:
        return False
    unread = find_condition(job.status, names.SUCCEEDED).get("reason") == names.RESULT_UNREAD
    return observed.job is None or not unread


def _start(job: XRayJob, observed: Observed, now: datetime, config: OperatorConfig) -> Decision:
    spec = parse_part(JobSpec, job.spec, "spec", names.SPEC_INVALID)
    if isinstance(spec, list):
        return _refuse(job, spec, now, config)
    if observed.snapshot is not None and not observed.taken and observed.refused is None:
        return Decision(create=build_job(make_plan(job.ref, spec, observed.snapshot)))
    flavor = find_flavor(spec, observed)
    if isinstance(flavor, list):
        return _refuse(job, flavor, now, config)
    if problems := objections(job.ref.namespace, spec, flavor, observed, config):
        return _refuse(job, problems, now, config)
    snapshot = take_snapshot(spec.flavor, flavor, config, now)
    return Decision(create=build_config_map(make_plan(job.ref, spec, snapshot)))


def _refuse(job: XRayJob, problems: Sequence[Problem], now: datetime, config: OperatorConfig) -> Decision:
    told = "; ".join(map(str, problems))
    lasting = [problem for problem in problems if problem.reason not in names.PASSING]
    return _tell(job, refused_status(job, (lasting or problems)[0].reason, told, now), now, config)


def _tell(job: XRayJob, status: Status, now: datetime, config: OperatorConfig) -> Decision:
    if not is_worth_writing(job.status, status, config.status_refresh_seconds):
        return Decision()
    return Decision(events=build_events(job, status, now), status=status)
