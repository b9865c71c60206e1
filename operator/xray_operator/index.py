"""What the watches have shown. kopf keeps the views up to date; the gatherer and the metrics read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from xray_operator import names
from xray_operator.core.history import FinishedRun, read_finished_run

Raw = Mapping[str, Any]
Found = Mapping[Any, Iterable[Raw]]

MOST_GONE_JOBS: Final = 64
"""Until the budgets of their namespace have them in their ledgers, which is within seconds."""
MOST_GONE_PODS: Final = 8
"""Per job; status has recorded the older ones long since."""


@dataclass
class Index:
    """Read-only views, and the last that was seen of pods that were deleted."""

    jobs: Found = field(default_factory=dict)
    """XRayTrainingJobs by uid."""
    batch_jobs: Found = field(default_factory=dict)
    """Jobs by the uid of the XRayTrainingJob on their label."""
    pods: Found = field(default_factory=dict)
    """Pods by the same."""
    flavors: Found = field(default_factory=dict)
    """AcceleratorFlavors by name."""
    _finished: dict[str, tuple[str, FinishedRun | None]] = field(default_factory=dict)
    budgets: Found = field(default_factory=dict)
    """TrainingBudgets by uid."""
    _gone_jobs: dict[str, Raw] = field(default_factory=dict)
    _gone_pods: dict[str, dict[str, Raw]] = field(default_factory=dict)

    def job(self, uid: str) -> Raw | None:
        return next(iter(self.jobs.get(uid, ())), None)

    def all_jobs(self) -> list[Raw]:
        return _all(self.jobs)

    def jobs_to_pay(self, namespace: str) -> list[Raw]:
        """XRayTrainingJobs of a namespace, with the last that was seen of some that were deleted: they are paid for as well."""
        here = {raw["metadata"]["uid"]: raw for raw in self.all_jobs()}
        return [raw for raw in ({**self._gone_jobs, **here}).values() if raw["metadata"]["namespace"] == namespace]

    def deleted_jobs(self) -> list[str]:
        """Uids of those of them that were deleted."""
        return list(self._gone_jobs)

    def job_is_gone(self, raw: Raw) -> None:
        """A job was deleted; a budget's ledger takes over what it has cost."""
        self._gone_jobs[raw["metadata"]["uid"]] = raw
        if len(self._gone_jobs) > MOST_GONE_JOBS:
            self._gone_jobs.pop(next(iter(self._gone_jobs)))

    def budget(self, uid: str) -> Raw | None:
        return next(iter(self.budgets.get(uid, ())), None)

    def all_budgets(self) -> list[Raw]:
        return _all(self.budgets)

    def budgets_of(self, namespace: str) -> list[Raw]:
        return [raw for raw in self.all_budgets() if raw["metadata"]["namespace"] == namespace]

    def all_pods(self) -> list[Raw]:
        return _all(self.pods)

    def in_line(self, partition: str) -> list[str]:
        """Uids of the XRayTrainingJobs whose Jobs wait for this partition."""
        jobs = [raw for raw in _all(self.batch_jobs) if raw["spec"].get("suspend")]
        labels = [raw["metadata"]["labels"] for raw in jobs]
        return [each[names.LABEL_JOB_UID] for each in labels if each.get(names.LABEL_PARTITION) == partition]

    def flavor_specs(self) -> dict[str, Any]:
        return {name: raw.get("spec") for name in self.flavors for raw in self.flavors.get(name, ())}

    def flavor_statuses(self) -> dict[str, Any]:
        return {name: raw.get("status") for name in self.flavors for raw in self.flavors.get(name, ())}

    def finished_runs(self) -> list[FinishedRun]:
        """Of the jobs that have succeeded; each version of one is read once."""
        done = [raw for raw in self.all_jobs() if (raw.get("status") or {}).get("state") == names.SUCCEEDED]
        self._finished = {raw["metadata"]["uid"]: self._finished_run(raw) for raw in done}
        return [run for _, run in self._finished.values() if run]

    def _finished_run(self, raw: Raw) -> tuple[str, FinishedRun | None]:
        version = raw["metadata"]["resourceVersion"]
        known = self._finished.get(raw["metadata"]["uid"])
        return known if known and known[0] == version else (version, read_finished_run(raw))

    def versions(self, kind: str, namespace: str | None) -> dict[str, int]:
        """The resourceVersion of each object that was shown, by uid."""
        views = {names.JOB_KIND: self.jobs, "Job": self.batch_jobs, "Pod": self.pods}
        shown = [raw["metadata"] for raw in _all(views[kind])]
        return {m["uid"]: int(m["resourceVersion"]) for m in shown if namespace in (None, m["namespace"])}

    def gone_pods(self, uid: str) -> list[Raw]:
        """The last that was seen of deleted pods of a job: how they ended, for the bill."""
        return list(self._gone_pods.get(uid, {}).values())

    def pod_is_gone(self, uid: str, raw: Raw) -> None:
        """A pod of this job was deleted; a job that is deleted or has finished has no use for it."""
        job = self.job(uid)
        if job is None or (job.get("status") or {}).get("state") in names.FINAL_STATES:
            return
        kept = self._gone_pods.setdefault(uid, {})
        kept[raw["metadata"]["name"]] = raw
        if len(kept) > MOST_GONE_PODS:
            kept.pop(next(iter(kept)))

    def forget_gone_pods(self, uid: str) -> None:
        """The job is deleted, or all that its pods cost is written down."""
        self._gone_pods.pop(uid, None)


def _all(found: Found) -> list[Raw]:
    return [raw for key in list(found) for raw in found.get(key, ())]
