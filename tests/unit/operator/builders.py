"""Objects as Kubernetes gives them, with few words: make_job("cxr").training(epochs=1).build()."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from xray_operator import names
from xray_operator.config import Images, OperatorConfig, Pod
from xray_operator.core import conditions
from xray_operator.core.admission import size_run
from xray_operator.core.attempts import render_time
from xray_operator.core.manifests import build_config_map, build_job
from xray_operator.core.observed import Observed, XRayJob, read_handle, read_job, read_pods, read_xray_job
from xray_operator.core.partition import Sizing
from xray_operator.core.plan import JobRef, Plan, Preparation, Snapshot, make_plan, take_snapshot
from xray_operator.core.reconcile import Decision, reconcile
from xray_operator.core.reports import Progress, read_report
from xray_operator.core.spec import FlavorSpec, JobSpec

EXAMPLES = Path(__file__).resolve().parents[2] / "contract" / "examples"
GOLDEN = Path(__file__).resolve().parents[2] / "golden"
BEGIN = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)
UID = "0b0f4c1e-5f0f-4b54-9a53-2f7b1d1c0001"
JOB_UID = "a5a5a5a5-0000-4000-8000-000000000001"
JOB_NAME = JobRef("radiology", "cxr", UID).run_name(0)
CONFIG = OperatorConfig(
    images=Images(prepare="registry.example/prepare:1", torch="registry.example/torch:1"),
    pod=Pod(image_pull_secrets=("pull-secret",)),
)
WITH_IPUS = CONFIG.model_copy(update={"images": CONFIG.images.model_copy(update={"ipu": "ghcr.io/x/trainer-ipu:1.2"})})
"""Of an operator that has an image for IPUs."""
PRICE = {"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "USD", "perHour": "8.50"}


def at(seconds: float) -> datetime:
    """So many seconds after the job was created."""
    return BEGIN + timedelta(seconds=seconds)


def example(name: str) -> str:
    return (EXAMPLES / name).read_text()


class JobBuilder:
    """An XRayTrainingJob as the API server gives it, defaults of the CRD left to the operator's model."""

    def __init__(self, name: str) -> None:
        self._raw: dict[str, Any] = {
            "apiVersion": names.API_VERSION,
            "kind": names.JOB_KIND,
            "metadata": {
                "name": name,
                "namespace": "radiology",
                "uid": UID,
                "generation": 1,
                "resourceVersion": "100",
                "creationTimestamp": render_time(BEGIN),
            },
            "spec": {
                "flavor": "demo-vpod4",
                "model": {"name": "vit-tiny", "claimName": "models"},
                "dataset": {"source": {"pvc": {"claimName": "nih", "path": "nih"}}, "prepare": "InitContainer"},
                "output": {"claimName": "out"},
            },
        }

    def flavor(self, name: str) -> Self:
        return self.spec(flavor=name)

    def training(self, **fields: Any) -> Self:
        return self.spec(training=fields)

    def spec(self, **fields: Any) -> Self:
        self._raw["spec"] |= fields
        return self

    def labelled(self, **labels: str) -> Self:
        self._raw["metadata"]["labels"] = labels
        return self

    def in_namespace(self, namespace: str, created: float = 0) -> Self:
        """Created there at this second, and none of the usual ones."""
        uid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{namespace}/{self._raw['metadata']['name']}"))
        self._raw["metadata"] |= {"namespace": namespace, "uid": uid, "creationTimestamp": render_time(at(created))}
        return self

    def edited(self, generation: int) -> Self:
        self._raw["metadata"]["generation"] = generation
        return self

    def status(self, status: Any) -> Self:
        self._raw["status"] = status
        return self

    def raw(self) -> dict[str, Any]:
        return copy.deepcopy(self._raw)

    def build(self) -> XRayJob:
        return read_xray_job(self.raw())


def make_job(name: str = "cxr") -> JobBuilder:
    return JobBuilder(name)


def make_flavor(backend: str = "devicePlugin", **fields: Any) -> dict[str, Any]:
    """An AcceleratorFlavor's spec."""
    resource = {"devicePlugin": "graphcore.ai/ipu", "gpu": "nvidia.com/gpu"}.get(backend)
    held = {"accelerators": 4, "resourceName": resource} if resource else {}
    host = {"cpu": "2", "memory": "4Gi", "sharedMemory": "1Gi"}
    return {"backend": backend, "host": host, "prices": [PRICE]} | held | fields


FLAVORS = {"demo-vpod4": make_flavor(), "vpod4-vm": make_flavor()}
"""What the platform team offers."""


def make_snapshot(
    flavor: dict[str, Any] | None = None,
    job: JobBuilder | None = None,
    config: OperatorConfig = CONFIG,
) -> Snapshot:
    built = (job or make_job()).build()
    typed = FlavorSpec.model_validate(flavor or make_flavor())
    return fix_run(JobSpec.model_validate(built.spec), typed, config, built.queue_name)


def fix_run(
    spec: JobSpec,
    flavor: FlavorSpec,
    config: OperatorConfig = CONFIG,
    queue_name: str | None = None,
    preparations: Sequence[Preparation] = (),
) -> Snapshot:
    """What is fixed for a run that may start."""
    sizing = size_run(spec, flavor, config)
    assert isinstance(sizing, Sizing), sizing
    return take_snapshot(spec, flavor, sizing, config, at(1), queue_name, preparations)


def make_run(
    job: JobBuilder | None = None, flavor: dict[str, Any] | None = None, config: OperatorConfig = CONFIG
) -> Plan:
    return make_plan((job or make_job()).build().ref, make_snapshot(flavor, job, config))


class PodBuilder:
    """A pod of the run; seconds count from the job's creation."""

    def __init__(self, name: str, created: float) -> None:
        self._raw: dict[str, Any] = {
            "metadata": {
                "name": name,
                "creationTimestamp": render_time(at(created)),
                "ownerReferences": [{"uid": JOB_UID, "name": JOB_NAME, "controller": True}],
            },
            "status": {"phase": "Pending", "conditions": []},
        }

    def scheduled(self, seconds: float) -> Self:
        return self._condition("PodScheduled", "True", lastTransitionTime=render_time(at(seconds)))

    def unschedulable(self, message: str) -> Self:
        return self._condition("PodScheduled", "False", reason="Unschedulable", message=message)

    def deleted(self, seconds: float, grace: int) -> Self:
        """By a request at this second: the API server writes when the grace will be over."""
        marked = render_time(at(seconds + grace))
        self._raw["metadata"] |= {"deletionTimestamp": marked, "deletionGracePeriodSeconds": grace}
        return self

    def disrupted(self, seconds: float) -> Self:
        self._raw["status"] |= {"phase": "Failed", "reason": "Evicted"}
        return self._condition("DisruptionTarget", "True", lastTransitionTime=render_time(at(seconds)))

    def on_node(self, name: str) -> Self:
        self._raw["spec"] = {"nodeName": name}
        return self

    def ready(self, *, containers: bool, pod: bool, since: float) -> Self:
        """What the kubelet says of the containers, and what is said of the pod."""
        self._condition("ContainersReady", str(containers), lastTransitionTime=render_time(at(since)))
        return self._condition("Ready", str(pod), lastTransitionTime=render_time(at(since)))

    def evicted(self, seconds: float, reason: str, message: str = "") -> Self:
        """By a controller, which asks the kubelet to end it, or ends it itself."""
        fields = {"reason": reason, "message": message, "lastTransitionTime": render_time(at(seconds))}
        return self._condition("DisruptionTarget", "True", **fields)

    def prepare_waits(self, reason: str, message: str = "") -> Self:
        return self._container("init", "prepare", {"waiting": {"reason": reason, "message": message}})

    def prepares(self, started: float, ip: str = "10.0.0.7") -> Self:
        self._raw["status"]["podIP"] = ip
        return self._container("init", "prepare", {"running": {"startedAt": render_time(at(started))}})

    def prepared(self, started: float, finished: float, code: int = 0, message: str | None = None) -> Self:
        told = example("prepare-result.json") if message is None else message
        if code:
            self._raw["status"]["phase"] = "Failed"
        return self._container("init", "prepare", ended(started, finished, code, told))

    def trains(self, started: float) -> Self:
        self._raw["status"] |= {"phase": "Running", "podIP": "10.0.0.7"}
        return self._container("", "train", {"running": {"startedAt": render_time(at(started))}})

    def trained(self, started: float, finished: float, code: int = 0, message: str | None = None) -> Self:
        told = train_result() if message is None else message
        self._raw["status"]["phase"] = "Failed" if code else "Succeeded"
        return self._container("", "train", ended(started, finished, code, told))

    def beside(self, started: float, finished: float | None = None) -> Self:
        """A container that an admission webhook has put in."""
        running = {"running": {"startedAt": render_time(at(started))}}
        state = running if finished is None else ended(started, finished, 0, "")
        self._raw["status"]["initContainerStatuses"].append({"name": "mesh-proxy", "state": state})
        return self

    def phase(self, phase: str) -> Self:
        self._raw["status"]["phase"] = phase
        return self

    def owned_by(self, uid: str) -> Self:
        self._raw["metadata"]["ownerReferences"][0]["uid"] = uid
        return self

    def raw(self) -> dict[str, Any]:
        return copy.deepcopy(self._raw)

    def _condition(self, kind: str, status: str, **fields: str) -> Self:
        self._raw["status"]["conditions"].append({"type": kind, "status": status, **fields})
        return self

    def _container(self, kind: str, name: str, state: dict[str, Any]) -> Self:
        field = "initContainerStatuses" if kind == "init" else "containerStatuses"
        self._raw["status"][field] = [{"name": name, "state": state}]
        return self


def make_pod(name: str = "cxr-pod", created: float = 2) -> PodBuilder:
    return PodBuilder(name, created)


def ended(started: float, finished: float, code: int, message: str, reason: str = "") -> dict[str, Any]:
    times = {"startedAt": render_time(at(started)), "finishedAt": render_time(at(finished))}
    return {"terminated": {"exitCode": code, "message": message, "reason": reason, **times}}


def train_result(evaluating: float = 100, **fields: Any) -> str:
    """result.json with the begin of evaluation at this second."""
    phase = {"name": "Evaluating", "started_at": render_time(at(evaluating)), "finished_at": None}
    return json.dumps(json.loads(example("result.json")) | {"phases": [phase]} | fields)


def make_progress(name: str = "progress.json", **fields: Any) -> Progress:
    """What a pod tells: one of the examples, with these fields."""
    progress = read_report(Progress, json.dumps(json.loads(example(name)) | fields))
    assert progress is not None
    return progress


def started(
    *pods: PodBuilder,
    end: str = "",
    flavor: dict[str, Any] | None = None,
    job: JobBuilder | None = None,
    suspended: bool = False,
    deleting: bool = False,
    gone: Sequence[PodBuilder] = (),
    job_gone: bool = False,
    job_created: float = 1,
    started_at: float = 1,
    config: OperatorConfig = CONFIG,
    **fields: Any,
) -> Observed:
    """What is seen of a run whose Job exists.

    Args:
        end: Complete, or the reason of Failed.
        gone: pods that were deleted.
        job_gone: the Job was deleted too.
        job_created, started_at: when the Job and its record were made.
    """
    plan = make_run(job, flavor, config)
    plan = replace(
        plan, snapshot=plan.snapshot.model_copy(update={"started_at": at(started_at), "digest": "sha256:00ff"})
    )
    raw = build_job(plan)
    raw["metadata"] |= {"uid": JOB_UID, "creationTimestamp": render_time(at(job_created))}
    raw["spec"]["suspend"] = suspended or raw["spec"]["suspend"]
    if deleting:
        raw["metadata"]["deletionTimestamp"] = render_time(at(1))
    if end:
        kind, reason = ("Complete", "CompletionsReached") if end == "Complete" else ("Failed", end)
        raw["status"] = {"conditions": [{"type": kind, "status": "True", "reason": reason}]}
    handle = read_handle(raw, plan.job)
    assert handle is not None
    seen = replace(read_job(raw, handle, plan.snapshot), gone=job_gone)
    shown = read_pods([pod.raw() for pod in pods], handle, [pod.raw() for pod in gone])
    return Observed(job=seen, snapshot=plan.snapshot, pods=shown, **fields)


def stored_job(job: JobBuilder | None = None) -> dict[str, Any]:
    """The run's Job as the API server gives it."""
    raw = build_job(make_run(job))
    raw["metadata"] |= {"uid": JOB_UID, "resourceVersion": "101", "creationTimestamp": render_time(at(1))}
    return raw


def created_config_map(flavor: dict[str, Any] | None = None) -> dict[str, Any]:
    return build_config_map(make_run(flavor=flavor))


def decide(
    observed: Observed,
    status: Any = None,
    now: float = 200,
    generation: int = 1,
    config: OperatorConfig = CONFIG,
    **spec: Any,
) -> Decision:
    """What the operator does about the usual job, with these fields of its spec, at this second."""
    job = make_job().spec(**spec).status(status).edited(generation).build()
    return reconcile(job, observed, at(now), config)


def told(decision: Decision) -> dict[str, Any]:
    """The status that is written."""
    assert decision.status is not None
    return decision.status


def reasons(decision: Decision) -> list[str]:
    """Of the events that are posted."""
    return [event["reason"] for event in decision.events]


def condition(status: dict[str, Any], kind: str) -> tuple[str, str, str]:
    """(status, reason, message) of one condition."""
    found = next(c for c in status["conditions"] if c["type"] == kind)
    return found["status"], found["reason"], found["message"]


def condition_table() -> dict[str, dict[str, str]]:
    """State -> condition -> its status, as the docstring of core.conditions has them."""
    lines = [line.strip("|").split("|") for line in (conditions.__doc__ or "").splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line] for line in lines]
    return {state.strip(): dict(zip(header[1:], row[1:], strict=True)) for row in rows for state in row[0].split(", ")}
