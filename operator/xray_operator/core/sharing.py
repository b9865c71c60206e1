"""What finished runs share: data and models are prepared once, and whoever comes later finds them done within seconds.

A preparation that was found done says nothing of what preparing takes. So one counts of each set, the longest. Called by
estimate, and by courses' callers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xray_operator import names
from xray_operator.core.attempts import Attempt
from xray_operator.core.history import FinishedPreparation, FinishedRun, Workload


def prepared_alone(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The same runs, each with the longest preparation among them of what it needs, as if nobody had come before it."""
    longest: dict[tuple[object, ...], FinishedPreparation] = {}
    in_place: dict[tuple[object, ...], int] = {}
    for run in runs:
        for job in run.preparations:
            what = what_of(job, run.workload)
            longest[what] = max(longest.get(what, job), job, key=lambda each: sum(each.held))
        own = set_of(run.workload)
        in_place[own] = max(in_place.get(own, 0), _preparing(run))
    return [
        replace(
            run,
            preparations=tuple(longest[what_of(job, run.workload)] for job in run.preparations),
            attempts=_with_preparing(run, in_place[set_of(run.workload)]),
        )
        for run in runs
    ]


def what_of(job: FinishedPreparation, workload: Workload) -> tuple[object, ...]:
    """Equal for Jobs that have prepared the same for their runs on the same flavor."""
    of_data = job.phase == names.DATA_PREPARATION
    needed = (workload.data, workload.images, workload.image_size) if of_data else (workload.model,)
    return job.phase, job.flavor, *needed


def set_of(did: Workload) -> tuple[object, ...]:
    """Equal for runs that read the same prepared data, of whose preparation one counts."""
    return did.data, did.images, did.image_size, did.prepare_flavor or (did.flavor, "in place")


def _preparing(run: FinishedRun) -> int:
    return sum(attempt.seconds[names.PREPARING] for attempt in run.attempts)


def _with_preparing(run: FinishedRun, seconds: int) -> tuple[Attempt, ...]:
    """Its attempts; the first has prepared as long as makes it so many seconds together, where the run prepares in place."""
    first, *rest = run.attempts
    if run.workload.prepare_flavor is not None:
        return run.attempts
    first_seconds = first.seconds[names.PREPARING] + seconds - _preparing(run)
    return (replace(first, seconds={**first.seconds, names.PREPARING: first_seconds}), *rest)
