"""spec + what was fixed at the start -> the plan of a run. run_file and manifests write it down.

A run is a snapshot: the flavor, the price in force and the images are taken once, when the run starts, and
are stored with its children. The plan is a function of the (immutable) spec and that snapshot alone, so a
restart of the operator, a new price or a new image changes nothing about a run that has begun.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, Field, ValidationError

from xray_operator.config import OperatorConfig
from xray_operator.core.cost import price_in_force
from xray_operator.core.spec import FlavorSpec, Host, JobSpec, Part, Price
from xray_operator.errors import RecordError
from xray_operator.names import child_name

LARGEST_DEFAULT_MICRO_BATCH = 32
"""Fits ViT-base at 224 pixels into 16 GB of memory; more gains little."""


class Snapshot(Part):
    """What is fixed when a run starts. Kept as an annotation on the ConfigMap and the Job."""

    started_at: AwareDatetime
    flavor: str
    backend: Literal["cpu", "gpu", "devicePlugin"]
    accelerators: int = 0
    resource_name: str | None = None
    host: Host = Host()
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    price: Price | None = None
    prepare_image: str
    train_image: str
    pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, exclude_none=True)


@dataclass(frozen=True)
class JobRef:
    """Which XRayTrainingJob."""

    namespace: str
    name: str
    uid: str

    @property
    def child_name(self) -> str:
        return child_name(self.namespace, self.name, self.uid)


@dataclass(frozen=True)
class Plan:
    """Everything that run_file and manifests need."""

    job: JobRef
    spec: JobSpec
    snapshot: Snapshot
    micro_batch_size: int
    gradient_accumulation_steps: int
    stored_size: int
    """Side in pixels of the images in the cache: 8/7 of what the model sees, room to crop."""

    @property
    def output_folder(self) -> str:
        return self.job.child_name


def take_snapshot(name: str, flavor: FlavorSpec, config: OperatorConfig, now: datetime) -> Snapshot:
    """Fix what a run that starts now will keep."""
    return Snapshot(
        started_at=now.replace(microsecond=0),
        flavor=name,
        backend=flavor.backend,
        accelerators=flavor.accelerators,
        resource_name=flavor.resource_name,
        host=flavor.host,
        node_selector=flavor.node_selector,
        tolerations=flavor.tolerations,
        price=price_in_force(flavor.prices, now),
        prepare_image=config.images.prepare,
        train_image=config.images.torch,
        pull_policy=config.images.pull_policy,
        image_pull_secrets=config.pod.image_pull_secrets,
    )


def read_snapshot(text: object, where: str) -> Snapshot:
    """The snapshot that a child carries; RecordError if it is not one."""
    try:
        return Snapshot.model_validate_json(text if isinstance(text, str) else "")
    except ValidationError as error:
        raise RecordError(f"{where}: unreadable snapshot: {error.error_count()} problems") from error


def make_plan(job: JobRef, spec: JobSpec, snapshot: Snapshot) -> Plan:
    """The plan of a run; nothing in it depends on anything but the arguments."""
    batch = spec.training.global_batch_size
    micro = spec.training.micro_batch_size or largest_divisor(batch, LARGEST_DEFAULT_MICRO_BATCH)
    return Plan(
        job=job,
        spec=spec,
        snapshot=snapshot,
        micro_batch_size=micro,
        gradient_accumulation_steps=batch // micro,
        stored_size=spec.dataset.image_size * 8 // 7,
    )


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of number that is at most limit (both at least 1)."""
    return next(d for d in range(min(number, limit), 0, -1) if number % d == 0)


def runs_on(snapshot: Snapshot, device: str | None = None) -> str:
    """Which backend trains on what, in words.

    Args:
        device: what the trainer's result names, when there is one: it corrects the expectation.
    """
    used = device or ("cuda" if snapshot.backend == "gpu" else "cpu")
    kind = used.partition(":")[0]
    place = {"cpu": "the CPU", "cuda": "one GPU"}.get(kind, used)
    if device is None:
        return f"torch backend on {place}{_held(snapshot, 'are', kind)}"
    return f"torch backend, ran on {place}{_held(snapshot, 'were', kind)}"


def _held(snapshot: Snapshot, verb: str, used: str) -> str:
    """What a run holds beyond what it uses: the trainer uses one GPU, however many there are."""
    if not snapshot.accelerators:
        return ""
    held = f"{snapshot.accelerators} {snapshot.resource_name} of flavor {snapshot.flavor} {verb} held"
    if snapshot.backend != "gpu" or used == "cpu":
        return f"; the {held} and not used"
    return f"; {held}" if snapshot.accelerators > 1 else ""
