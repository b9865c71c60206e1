"""What the watches have shown. kopf keeps the views up to date; the gatherer and the metrics read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from xray_operator import names

Raw = Mapping[str, Any]
Found = Mapping[Any, Iterable[Raw]]

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
    _gone_pods: dict[str, dict[str, Raw]] = field(default_factory=dict)

    def job(self, uid: str) -> Raw | None:
        return next(iter(self.jobs.get(uid, ())), None)

    def all_jobs(self) -> list[Raw]:
        return _all(self.jobs)

    def all_pods(self) -> list[Raw]:
        return _all(self.pods)

    def in_line(self, partition: str) -> list[str]:
        """Uids of the XRayTrainingJobs whose Jobs wait for this partition."""
        jobs = [raw for raw in _all(self.batch_jobs) if raw["spec"].get("suspend")]
        labels = [raw["metadata"]["labels"] for raw in jobs]
        return [each[names.LABEL_JOB_UID] for each in labels if each.get(names.LABEL_PARTITION) == partition]

    def flavor_specs(self) -> dict[str, Any]:
        return {name: raw.get("spec") for name in self.flavors for raw in self.flavors.get(name, ())}

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
