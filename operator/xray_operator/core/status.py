"""The status of a job, as one JSON object. Called by reconcile; written whole, if it says anything new."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from xray_operator import names
from xray_operator.core import conditions
from xray_operator.core.attempts import (
    Attempt,
    add_seconds,
    attempt_of,
    attempt_to_status,
    attempts_from_status,
    merge_attempts,
    phase_ends,
    render_time,
)
from xray_operator.core.cost import NOTHING, Cost, make_cost
from xray_operator.core.observed import Job, Observed, Pod, XRayJob, read_time
from xray_operator.core.plan import Snapshot, runs_on
from xray_operator.core.reports import PrepareResult, Progress, TrainResult
from xray_operator.core.situation import Situation, assess

Status = dict[str, Any]


def refused_status(job: XRayJob, reason: str, message: str, now: datetime) -> Status:
    """Of a job that can't start, or go on, as things are; what was recorded of a run that began stays."""
    kept = ("runsOn", "run", "cost", "times", "attempts", "data")
    listed = conditions.refused_conditions(reason, message)
    return {
        "observedGeneration": job.generation,
        "state": names.PENDING,
        "conditions": conditions.render_conditions(listed, job.status.get("conditions", []), job.generation, now),
    } | {section: job.status[section] for section in kept if section in job.status}


def started_status(job: XRayJob, batch_job: Job, observed: Observed, now: datetime) -> Status:
    """Of a job whose Job exists: what is seen now, and what was recorded of things that are gone."""
    situation = assess(batch_job, observed, formerly_evaluating(job.status, observed.pods))
    attempts = _attempts(job.status, observed.pods, situation, now)
    cost = make_cost(add_seconds(attempts), batch_job.snapshot.price)
    told = runs_on(batch_job.snapshot, situation.result.device if situation.result else None)
    data = _data(situation.data) or dict(job.status.get("data", {}))
    situation = replace(situation, message=_message(situation, told, data, cost))
    accepted = f"flavor {batch_job.snapshot.flavor}: {runs_on(batch_job.snapshot)}"
    listed = conditions.started_conditions(situation, accepted, _data_message(data))
    return {
        "observedGeneration": job.generation,
        "state": situation.state,
        "runsOn": told[:256],
        "conditions": conditions.render_conditions(listed, job.status.get("conditions", []), job.generation, now),
        "run": _run(batch_job, situation.pod),
        "cost": _cost(cost),
    } | _present(
        times=_times(job, attempts, situation, now) or job.status.get("times"),
        attempts=[attempt_to_status(attempt) for attempt in attempts],
        data=data,
        trainerStatus=_trainer_status(job.status, observed.progress, situation),
        results=_results(situation.result, job),
    )


def formerly_evaluating(status: Mapping[str, Any], pods: Sequence[Pod]) -> datetime | None:
    """When the latest pod began to evaluate, if an earlier pass learnt it from the trainer's progress."""
    same_pod = bool(pods) and status.get("run", {}).get("podName") == pods[-1].name
    began = status.get("times", {}).get("evaluating", {}).get("startedAt")
    return read_time(began) if same_pod and began else None


def is_worth_writing(old: Mapping[str, Any], new: Status, refresh_seconds: float) -> bool:
    """Whether new says more than old, beyond clocks that have run on for less than refresh_seconds."""
    if _without_clocks(old) != _without_clocks(new):
        return True
    ran_on = new.get("cost", {}).get("heldSeconds", 0) - old.get("cost", {}).get("heldSeconds", 0)
    return dict(old) != new and (ran_on >= refresh_seconds or ran_on < 0)


def _without_clocks(status: Mapping[str, Any]) -> Status:
    ticking = ("estimatedRemainingSeconds", "eta", "metrics", "lastUpdatedTime")
    trainer = {k: v for k, v in status.get("trainerStatus", {}).items() if k not in ticking}
    cost = {k: status.get("cost", {}).get(k) for k in ("priced", "currency", "perHour")}
    attempts = [(row["podName"], row.get("finishedAt")) for row in status.get("attempts", ())]
    listed = [_without_numbers(row) for row in status.get("conditions", ())]
    return dict(status) | {"trainerStatus": trainer, "cost": cost, "attempts": attempts, "conditions": listed}


def _without_numbers(condition: Mapping[str, Any]) -> Status:
    """A refusal may count or name each request; if that were news, writing it would bring the next one at once."""
    if condition.get("reason") != names.CREATION_REFUSED:
        return dict(condition)
    return dict(condition) | {"message": re.sub(r"\S*\d\S*", "#", condition.get("message", ""))}


def _attempts(
    status: Mapping[str, Any], pods: Sequence[Pod], situation: Situation, now: datetime
) -> tuple[Attempt, ...]:
    recorded = attempts_from_status(status.get("attempts", ()))
    latest = pods[-1].name if pods else None
    seen = [attempt_of(p, situation.evaluating_began if p.name == latest else None, now) for p in pods]
    return merge_attempts(recorded, [attempt for attempt in seen if attempt])


def _message(situation: Situation, told: str, data: Mapping[str, Any], cost: Cost) -> str:
    if situation.state in (names.TRAINING, names.EVALUATING):
        return told
    if situation.state != names.SUCCEEDED:
        return situation.message
    result = situation.result
    if result is None:
        return f"{situation.message}; cost {cost.display}"
    images = f" on {data['testImages']} held-out images" if "testImages" in data else ""
    auroc = "not computable" if result.auroc_macro is None else _decimal(result.auroc_macro)
    measured = f"AUROC {auroc} over {result.findings_evaluated} findings{images}"
    return f"{measured}; {told}; cost {cost.display}"


def _data_message(data: Mapping[str, Any]) -> str:
    if not data:
        return "prepared; the counts could not be read"
    return (
        f"{data['images']} images of {data['patients']} patients: {data['trainImages']} to train, "
        f"{data['validationImages']} to validate, {data['testImages']} held out; {data['rejected']} rejected"
    )


def _data(result: PrepareResult | None) -> Status | None:
    if result is None:
        return None
    return {
        "archives": result.archives,
        "images": result.images,
        "patients": result.patients,
        "rejected": result.rejected,
        "trainImages": result.train_images,
        "validationImages": result.validation_images,
        "testImages": result.test_images,
        "digest": result.digest,
        "splitDigest": result.split_digest,
    }


def _results(result: TrainResult | None, job: XRayJob) -> Status | None:
    if result is None:
        return None
    return _present(
        aurocMacro=_decimal(result.auroc_macro),
        findingsEvaluated=result.findings_evaluated,
        loss=_decimal(result.loss),
        lossFloor=_decimal(result.loss_floor),
        findings=[
            _present(name=finding.name, auroc=_decimal(finding.auroc), positives=finding.positives)
            for finding in result.findings
        ],
        claimName=job.spec["output"]["claimName"],
        folder=job.ref.child_name,
        modelDigest=result.model_digest,
    )


def _run(batch_job: Job, pod: Pod | None) -> Status:
    snapshot: Snapshot = batch_job.snapshot
    return _present(
        jobName=batch_job.name,
        podName=pod.name if pod else None,
        startedAt=render_time(snapshot.started_at),
        prepareImage=snapshot.prepare_image,
        trainImage=snapshot.train_image,
    )


def _cost(cost: Cost) -> Status:
    price = cost.price
    amounts = {names.QUEUED: NOTHING} | dict(cost.amounts) if price else {}
    phases = [
        _present(name=phase, seconds=seconds, amount=str(amounts[phase]) if price else None)
        for phase, seconds in {names.QUEUED: 0, **cost.seconds}.items()
    ]
    return _present(
        priced=price is not None,
        currency=price.currency if price else None,
        perHour=str(price.per_hour) if price else None,
        heldSeconds=cost.held_seconds,
        billedSeconds=cost.billed_seconds if price else None,
        total=str(cost.total) if price else None,
        display=cost.display,
        phases=phases,
    )


def _times(job: XRayJob, attempts: Sequence[Attempt], situation: Situation, now: datetime) -> Status | None:
    """Queued ends with the first attempt; the other phases are those of the latest pod."""
    pod = situation.pod
    times = {"queued": _span(job.created, attempts[0].started if attempts else None)}
    if pod is None or pod.scheduled is None:
        return times if not job.status.get("times", {}).get("preparing") else None
    prepared, trained, ended = phase_ends(pod, situation.evaluating_began, now)
    over = pod.ended or pod.train.finished
    times["preparing"] = _span(pod.scheduled, pod.prepare.finished or over)
    if pod.prepare.exit_code == 0:
        times["training"] = _span(prepared, trained if situation.evaluating_began or over else None)
        if situation.evaluating_began:
            times["evaluating"] = _span(trained, ended if over else None)
    return times


def _span(begin: datetime, end: datetime | None) -> Status:
    if end is None:
        return {"startedAt": render_time(begin)}
    seconds = max(int(end.timestamp()) - int(begin.timestamp()), 0)
    return {"startedAt": render_time(begin), "finishedAt": render_time(end), "seconds": seconds}


def _trainer_status(status: Mapping[str, Any], progress: Progress | None, situation: Situation) -> Status | None:
    """The latest that is known; no answer changes nothing, and success is all of it."""
    known = _known_progress(status, situation.pod) if progress is None else _progress(progress)
    if situation.state == names.SUCCEEDED:
        known |= {"progressPercentage": 100, "progress": "100%"}
    if situation.state in names.FINAL_STATES:
        known = {k: v for k, v in known.items() if k not in ("estimatedRemainingSeconds", "eta")}
    return known or None


def _known_progress(status: Mapping[str, Any], pod: Pod | None) -> Status:
    """What an earlier pass learnt, unless it was of a pod that is dead or of the container before."""
    another_pod = pod is not None and status.get("run", {}).get("podName") != pod.name
    another_container = pod is not None and pod.train.started and status.get("state") == names.PREPARING
    return {} if another_pod or another_container else dict(status.get("trainerStatus", {}))


def _progress(progress: Progress) -> Status:
    percentage, remaining = progress.progress_percentage, progress.estimated_remaining_seconds
    return _present(
        progressPercentage=percentage,
        progress=None if percentage is None else f"{percentage}%",
        estimatedRemainingSeconds=remaining,
        eta=None if remaining is None else _duration(remaining),
        metrics=[metric.model_dump() for metric in progress.metrics],
        lastUpdatedTime=render_time(progress.last_updated_time) if progress.last_updated_time else None,
    )


def _duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m"[:16]
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"[:16]


def _present(**fields: Any) -> Status:
    return {name: value for name, value in fields.items() if value is not None and value not in ([], {})}
