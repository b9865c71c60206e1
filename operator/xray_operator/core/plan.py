"""spec + what was fixed at the start -> the plan of a run. run_file and manifests write it down.

A run is a snapshot: the spec, the flavor, the price in force, the images and the administrator's pod settings are
taken once, when the run starts, and are kept in its immutable ConfigMap. The plan is a function of that snapshot
alone, so an edit, a restart of the operator, a new price or a new image changes nothing about a run that has begun.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, ValidationError

from xray_operator import names
from xray_operator.config import OperatorConfig, Pod
from xray_operator.core.backends import BackendName, backend_of
from xray_operator.core.cost import price_in_force
from xray_operator.core.partition import Sizing, size_off_ipus
from xray_operator.core.parts import Host, Part, Partition, VipuProxyUrl
from xray_operator.core.spec import FlavorSpec, JobSpec, Price
from xray_operator.errors import RecordError


class RecordedPod(Pod):
    """As configured at the start; what a newer operator recorded beyond this is left alone."""

    model_config = ConfigDict(extra="ignore")


class Preparation(Part):
    """A Job of its own that prepares without accelerators, for every run that needs the same."""

    kind: Literal["data", "model"] = "data"
    job_name: str
    flavor: str
    host: Host = Host()
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    price: Price | None = None


class Snapshot(Part):
    """What is fixed when a run starts."""

    started_at: AwareDatetime
    rerun: int
    spec: JobSpec
    queue_name: str | None = None
    """Of Kueue, from the resource's label: then Kueue decides when the Job may run."""
    queue_priority: str | None = None
    """Kueue's WorkloadPriorityClass, likewise."""
    flavor: str
    backend: BackendName
    accelerators: int = 0
    resource_name: str | None = None
    partition: Partition | None = None
    """That one run at a time may hold."""
    vipu_proxy_url: VipuProxyUrl | None = None
    """Whom to ask whether a partition is free."""
    host: Host = Host()
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    price: Price | None = None
    preparation: Preparation | None = None
    """Of the data; None: the init container prepares in place."""
    model_preparation: Preparation | None = None
    """Of the hub model; None: there is none, or the init container fetches it."""
    sizing: Sizing | None = None
    """None: from before it was fixed, when no IPU trained."""
    prepare_image: str
    train_image: str
    pull_policy: str = "IfNotPresent"
    pod: RecordedPod = RecordedPod()
    digest: str = Field(default="", exclude=True)
    """Of the text that it was read from."""

    @property
    def queue_labels(self) -> dict[str, str]:
        """What Kueue reads on the Job of a run in one of its queues."""
        told = {names.LABEL_QUEUE: self.queue_name, names.LABEL_QUEUE_PRIORITY: self.queue_priority}
        return {label: value for label, value in told.items() if value}

    @property
    def preparations(self) -> tuple[Preparation, ...]:
        """All that have to be over before the run's Job comes into being."""
        return tuple(each for each in (self.preparation, self.model_preparation) if each)

    @property
    def fetches_in_its_pod(self) -> bool:
        """Whether no Job of its own has fetched the hub model. `prepare` does it then; images from before there were such
        Jobs leave it to `train`."""
        return self.spec.model.is_of_hub and self.model_preparation is None

    @property
    def effective(self) -> Sizing:
        """The sizing that the run trains with."""
        return self.sizing or size_off_ipus(self.spec.training)

    @property
    def trains_with(self) -> Literal["torch", "ipu"]:
        """Which of the trainer's backends."""
        return "ipu" if self.effective.ipus_per_replica else "torch"

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, exclude_none=True)


@dataclass(frozen=True)
class JobRef:
    """Which XRayTrainingJob."""

    namespace: str
    name: str
    uid: str

    def run_name(self, rerun: int, after: str = "") -> str:
        """Name of a run's Job and ConfigMap: at most 36 characters, the longest that gets IPUs.

        It holds the uid, so that a job that was deleted and created again never meets its former children.

        Args:
            after: the pod of the last attempt, where each has a Job of its own: then no two attempts' pods share a name.
        """
        return _hashed_name(self.name, 7, self.namespace, self.name, self.uid, rerun, *([after] if after else []))

    def output_folder(self, spec: JobSpec, trains_with: str) -> str:
        """The run's folder on the output claim.

        It holds no uid, so that a job that was deleted and created again finds what it left; and all settings that
        results depend on, so that it finds nothing else. Settings at their default are left out: a later version
        that knows more of them must find the same folder. A backend can't go on from another's checkpoint.
        """
        settings = spec.model_dump(
            mode="json", exclude_defaults=True, include={"flavor", "model", "dataset", "training", "ipu"}
        )
        for elsewhere in ("cache", "prepare", "prepare_flavor", "verify"):
            settings["dataset"].pop(elsewhere, None)
        if trains_with != "torch":
            settings["trains_with"] = trains_with
        for store in ("s3", "fsspec"):
            settings["dataset"]["source"].get(store, {}).pop("secret_name", None)
        return _hashed_name(self.name, 12, self.namespace, self.name, spec.rerun, json.dumps(settings, sort_keys=True))


@dataclass(frozen=True)
class Plan:
    """Everything that run_file and manifests need."""

    job: JobRef
    snapshot: Snapshot
    stored_size: int
    """Side in pixels of the images in the cache: 8/7 of what the model sees, room to crop."""

    @property
    def spec(self) -> JobSpec:
        return self.snapshot.spec

    @property
    def run_name(self) -> str:
        return self.job.run_name(self.snapshot.rerun)

    @property
    def output_folder(self) -> str:
        return self.job.output_folder(self.snapshot.spec, self.snapshot.trains_with)

    @property
    def partition_key(self) -> str | None:
        """Of the partition that the run holds; None if its flavor has none."""
        return self.snapshot.partition.key if self.snapshot.partition else None

    @property
    def progress_port(self) -> int:
        """Where the run's containers serve /progress: on the host's network no two runs may share one. Should two ever fall
        on the same port of a node, the scheduler lets the second wait."""
        if not self.snapshot.host.host_network:
            return names.PROGRESS_PORT
        digest = hashlib.sha256(f"{self.job.namespace}/{self.run_name}".encode()).digest()
        return names.HOST_PORTS[int.from_bytes(digest[:8]) % len(names.HOST_PORTS)]


def plan_preparations(
    spec: JobSpec, flavor_name: str, flavor: FlavorSpec, claim_uids: Mapping[str, str], image: str, now: datetime
) -> tuple[Preparation, ...]:
    """The Jobs that prepare on this flavor; the same for every run that needs the same.

    A run's data and its hub model have a Job each: runs of the same data may start from different models.

    Args:
        claim_uids: of the claims of the source and of the cache: a claim that was made anew holds other data.
        image: of the container, which decides over the cache's format.
    """

    def plan(kind: Literal["data", "model"], *what: object) -> Preparation:
        return Preparation(
            kind=kind,
            job_name=_hashed_name(f"xray-{kind}", 12, json.dumps([*what, image], sort_keys=True)),
            flavor=flavor_name,
            host=flavor.host,
            node_selector=flavor.node_selector,
            tolerations=flavor.tolerations,
            price=price_in_force(flavor.prices, now),
        )

    dataset = spec.dataset.model_dump(mode="json", exclude={"cache", "prepare", "prepare_flavor", "verify"})
    places = [claim_uids.get(claim, claim) for claim in spec.data_claims().values()]
    data = plan("data", dataset, places)
    if not spec.model.is_of_hub:
        return (data,)
    cache = claim_uids.get(spec.cache_claim, spec.cache_claim)
    return data, plan("model", spec.model.name, spec.model.revision, cache)


def take_snapshot(
    spec: JobSpec,
    flavor: FlavorSpec,
    sizing: Sizing,
    config: OperatorConfig,
    now: datetime,
    queue_name: str | None = None,
    preparations: Iterable[Preparation] = (),
    queue_priority: str | None = None,
) -> Snapshot:
    """Fix what a run that starts now will keep.

    Args:
        preparations: of its own, one of a kind; none: the init container prepares.
    """
    by_kind = {preparation.kind: preparation for preparation in preparations}
    return Snapshot(
        started_at=now.replace(microsecond=0),
        rerun=spec.rerun,
        spec=spec,
        queue_name=queue_name,
        queue_priority=queue_priority if queue_name else None,
        flavor=spec.flavor,
        backend=flavor.backend,
        accelerators=flavor.accelerators,
        resource_name=flavor.resource_name,
        partition=flavor.partition,
        vipu_proxy_url=flavor.vipu_proxy_url,
        host=flavor.host,
        node_selector=flavor.node_selector,
        tolerations=flavor.tolerations,
        price=price_in_force(flavor.prices, now),
        preparation=by_kind.get("data"),
        model_preparation=by_kind.get("model"),
        sizing=sizing,
        prepare_image=config.images.prepare,
        train_image=config.images.ipu if sizing.ipus_per_replica else config.images.torch,
        pull_policy=config.images.pull_policy,
        pod=RecordedPod.model_validate(config.pod.model_dump()),
    )


def read_snapshot(config_map: Any) -> Snapshot:
    """The snapshot in a run's ConfigMap; RecordError if there is none that can be read."""
    where = f"ConfigMap {config_map['metadata']['name']}"
    text = (config_map.get("data") or {}).get(names.SNAPSHOT_FILE)
    try:
        snapshot = Snapshot.model_validate_json(text if isinstance(text, str) else "")
        return snapshot.model_copy(update={"digest": f"sha256:{hashlib.sha256(str(text).encode()).hexdigest()}"})
    except ValidationError as error:
        told = f"unreadable {names.SNAPSHOT_FILE}: {names.counted(error.error_count(), 'problem')}"
        raise RecordError(f"{where}: {told}") from error


def make_plan(job: JobRef, snapshot: Snapshot) -> Plan:
    """The plan of a run; nothing in it depends on anything but the arguments."""
    return Plan(job=job, snapshot=snapshot, stored_size=snapshot.spec.dataset.image_size * 8 // 7)


def edited_fields(recorded: JobSpec, wanted: JobSpec) -> list[str]:
    """Paths of the fields that were edited since the run was fixed and that don't act at once, in order."""
    return sorted(_differences("spec", recorded.fixed(), wanted.fixed()))


def runs_on(snapshot: Snapshot, device: str | None = None, *, over: bool = False) -> str:
    """Which backend trains on what, in words.

    Args:
        device: what the trainer names, once it has: it corrects the expectation.
        over: whether it has trained.
    """
    if snapshot.trains_with == "ipu":
        return _on_ipus(snapshot, device, over)
    used = device or backend_of(snapshot.backend).device
    kind = used.partition(":")[0]
    place = {"cpu": "the CPU", "cuda": "one GPU"}.get(kind, used)
    if over:
        return f"torch backend, ran on {place}{_held(snapshot, 'were', kind)}"
    return f"torch backend on {place}{_held(snapshot, 'are', kind)}"


def _on_ipus(snapshot: Snapshot, device: str | None, over: bool) -> str:
    sizing = snapshot.effective
    replicas = names.counted(sizing.replication_factor, "replica")
    emulated = "emulated " if device and device.startswith("emulated") else ""
    ran = ", ran" if over else ""
    ipus = names.counted(snapshot.accelerators, f"{emulated}IPU")
    return f"ipu backend{ran} on {ipus}: {replicas} of {sizing.ipus_per_replica}"


def _hashed_name(readable: str, characters: int, *key: object) -> str:
    digest = hashlib.sha256("/".join(map(str, key)).encode()).hexdigest()
    return f"{readable[:28].replace('.', '-').rstrip('-')}-{digest[:characters]}"


def _differences(path: str, one: Any, other: Any) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        return [found for key in one | other for found in _differences(f"{path}.{key}", one.get(key), other.get(key))]
    return [] if one == other else [path]


def _held(snapshot: Snapshot, verb: str, used: str) -> str:
    """What a run holds beyond what it uses: the trainer uses one GPU, however many there are."""
    if not snapshot.accelerators:
        return ""
    held = f"{backend_of(snapshot.backend).holdings(snapshot)} of flavor {snapshot.flavor} {verb} held"
    if used == "cpu":
        why = ", for the operator has no IPU image" if backend_of(snapshot.backend).holds_ipus(snapshot) else ""
        return f"; the {held} and not used{why}"
    return f"; {held}" if snapshot.accelerators > 1 else ""
