"""What the operator would make of a job, without a cluster: its own decision and its own manifests. Called by render."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from xray_cli.errors import CommandError
from xray_operator import __version__, names
from xray_operator.config import Images, OperatorConfig
from xray_operator.core.attempts import render_time
from xray_operator.core.manifests import build_job, build_shared_job
from xray_operator.core.observed import Observed, Volume, XRayJob, read_volume, read_xray_job
from xray_operator.core.plan import make_plan, read_snapshot
from xray_operator.core.reconcile import reconcile
from xray_operator.core.spec import FlavorSpec, parse_part

Raw = dict[str, Any]

NO_UID: Final = "00000000-0000-0000-0000-000000000000"
"""Of a resource that is not on a cluster yet."""
CHART_CONFIG: Final = OperatorConfig(
    images=Images(
        prepare=f"ghcr.io/xray-operator/trainer-prepare:{__version__}",
        torch=f"ghcr.io/xray-operator/trainer-torch:{__version__}",
    ),
    default_prepare_flavor="prepare-cpu",
)
"""The operator's configuration as the chart writes it where no value is given."""


@dataclass(frozen=True)
class Surroundings:
    """What of a cluster is known from files."""

    flavors: Mapping[str, Any]
    """Specs by name."""
    namespaces: Mapping[str, Mapping[str, str]]
    """Labels by name."""
    claims: Mapping[tuple[str, str], Volume]
    """By namespace and name. Of claims that no file tells of nothing is said: they are taken to be there and to fit."""


@dataclass(frozen=True)
class Refusal:
    """Why the operator would make nothing, as status would show it."""

    state: str
    reason: str
    message: str


def read_surroundings(objects: Iterable[Raw], shipped: Mapping[str, Any], namespace: str) -> Surroundings:
    """The flavors, namespaces, claims and volumes among these objects.

    Args:
        shipped: specs of the flavors that are there if no object is one.
        namespace: of claims that name none.
    """
    by_kind: dict[str, list[Raw]] = {}
    for item in objects:
        by_kind.setdefault(item["kind"], []).append(item)
    volumes = {item["metadata"]["name"]: item for item in by_kind.get("PersistentVolume", ())}
    flavors = {item["metadata"]["name"]: item.get("spec") for item in by_kind.get("AcceleratorFlavor", ())}
    return Surroundings(
        flavors=flavors or shipped,
        namespaces={
            item["metadata"]["name"]: item["metadata"].get("labels") or {} for item in by_kind.get("Namespace", ())
        },
        claims={
            (item["metadata"].get("namespace", namespace), item["metadata"]["name"]): _volume(item, volumes)
            for item in by_kind.get("PersistentVolumeClaim", ())
        },
    )


def complete(raw: Raw, namespace: str, now: datetime) -> Raw:
    """The resource as a cluster would give it, before the operator has written a status; what it has of a cluster stays."""
    given = {
        "namespace": namespace,
        "uid": NO_UID,
        "generation": 1,
        "resourceVersion": "0",
        "creationTimestamp": render_time(now),
    }
    metadata = given | {key: value for key, value in raw["metadata"].items() if value is not None}
    return {key: value for key, value in raw.items() if key != "status"} | {"metadata": metadata}


def render(raw: Raw, around: Surroundings, config: OperatorConfig, now: datetime) -> list[Raw] | Refusal:
    """The children of a job in the order in which the operator makes them: ConfigMap, what prepares, what trains.

    Args:
        raw: of a resource that has run, status tells when its run was fixed and which commit of its model was fetched.
        now: when the run is fixed.
    """
    status = raw.get("status") or {}
    job = read_xray_job(complete(raw, "default", now))
    job = replace(job, live=job.live.model_copy(update={"suspend": False}))  # what there will be when it goes on
    decision = reconcile(job, _observe(job, around), now, config)
    if decision.create is None:
        return _refusal(decision.status or {})
    plan = make_plan(job.ref, read_snapshot(decision.create))
    preparations = [build_shared_job(plan, preparation) for preparation in plan.snapshot.preparations]
    return [decision.create, *preparations, build_job(plan, (status.get("model") or {}).get("commit"))]


RUN_PARTS: Final[Mapping[tuple[str, ...], type]] = {
    **{("status", section): dict for section in ("run", "model")},
    ("status", "run", "startedAt"): datetime,
    ("status", "model", "commit"): str,
}
"""What of a status is read here, if it is there."""


def fixed_at(raw: Raw) -> datetime | None:
    """When the run was fixed that spec asks for; None if it was not."""
    status = raw.get("status") or {}
    began = (status.get("run") or {}).get("startedAt")
    same = status.get("rerun", 0) == raw["spec"].get("rerun", 0)
    return datetime.fromisoformat(began) if began and same else None


def assumptions(raw: Raw, around: Surroundings) -> Iterator[str]:
    """What was taken to be so because no file tells it."""
    metadata, spec = raw["metadata"], raw["spec"]
    if "uid" not in metadata:
        yield "the resource is on no cluster yet: names and labels that hold its uid will be others there"
    if spec.get("suspend"):
        yield "spec.suspend is true: the operator makes these when it no longer is"
    if metadata["namespace"] not in around.namespaces and _wanted_labels(spec, around.flavors):
        yield f"namespace {metadata['namespace']} is taken to have the labels that its flavors ask for"


def unknown_fields(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """Paths of the fields that the CRD doesn't know, as kubectl apply would refuse them."""
    if isinstance(value, Mapping) and "properties" in schema:
        known = schema["properties"]
        for name, inner in value.items():
            if name in known:
                yield from unknown_fields(inner, known[name], f"{path}.{name}")
            else:
                yield f"{path}.{name}"
    if isinstance(value, Sequence) and not isinstance(value, str) and "items" in schema:
        for place, inner in enumerate(value):
            yield from unknown_fields(inner, schema["items"], f"{path}[{place}]")


def _observe(job: XRayJob, around: Surroundings) -> Observed:
    wanted = _wanted_labels(job.spec, around.flavors)
    claims = {name: volume for (namespace, name), volume in around.claims.items() if namespace == job.ref.namespace}
    return Observed(
        flavors=around.flavors,
        namespace_labels=around.namespaces.get(job.ref.namespace, wanted),
        volumes=claims,
    )


def _wanted_labels(spec: Raw, flavors: Mapping[str, Any]) -> dict[str, str]:
    """What the flavors that are offered ask of a namespace, all of them together where the job's is not known."""
    asked: dict[str, str] = {}
    for name, raw in flavors.items():
        flavor = parse_part(FlavorSpec, raw, name, names.FLAVOR_INVALID)
        if isinstance(flavor, FlavorSpec) and flavor.namespace_selector and name in _named(spec):
            asked |= flavor.namespace_selector.match_labels
    return asked


def _named(spec: Raw) -> tuple[Any, ...]:
    dataset = spec.get("dataset")
    return spec.get("flavor"), dataset.get("prepareFlavor") if isinstance(dataset, dict) else None


def _volume(claim: Raw, volumes: Mapping[str, Raw]) -> Volume:
    spec = claim.get("spec") or {}
    name = claim["metadata"]["name"]
    try:
        volume = read_volume({**claim, "spec": spec}, volumes.get(spec.get("volumeName", "")))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CommandError(
            f"PersistentVolumeClaim {name}, or its volume, is not as a cluster gives it: {error}"
        ) from error
    return replace(volume, uid=volume.uid or name)


def _refusal(status: Mapping[str, Any]) -> Refusal:
    conditions = {row["type"]: row for row in status.get("conditions", ())}
    told = conditions.get(names.ACCEPTED, {})
    return Refusal(str(status.get("state")), str(told.get("reason")), str(told.get("message")))
