"""XRayTrainingJob.spec, AcceleratorFlavor.spec and TrainingBudget.spec as typed values; called by reconcile.

The CRDs have the same rules and answer first; here they hold for resources stored under older rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import AwareDatetime, BaseModel, Field, ValidationError, model_validator

from xray_operator.core.backends import BackendName, backend_of
from xray_operator.core.backends.base import PARTITION_SIZES
from xray_operator.core.ipu_config import parse_overrides
from xray_operator.core.parts import Host, ObjectName, Part, Partition, VipuProxyUrl

ClaimName = ObjectName
RelativePath = Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9._/-]+$")]
Share = Annotated[Decimal, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, le=2147483647)]
LabelMap = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=16)]
Overrides = Annotated[dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=16)]
MOST_LAYERS: Final = 48
LayerCount = Annotated[int, Field(ge=1, le=MOST_LAYERS)]
Column = Annotated[str, Field(min_length=1, max_length=128)]
FlavorName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Money = Annotated[Decimal, Field(gt=0, decimal_places=4)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Finding = Annotated[str, Field(min_length=1, max_length=64)]

HUB_ID: Final = re.compile(r"(\b[A-Za-z0-9_.-]{1,96}\b/)?\b[A-Za-z0-9_.-]{1,96}\b")
"""As huggingface_hub's validate_repo_id, which would refuse others in the pod."""

FINDINGS: Final = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
"""The 14 findings of ChestX-ray14 in alphabetical order, as its labels file spells them."""


P = TypeVar("P", bound="Part")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what is there, what would be right, and a word for programs."""

    reason: str
    path: str
    """Empty for what is in no field: then value names an object."""
    value: object
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.value)} {self.expected}" if self.path else f"{self.value} {self.expected}"


class VitConfig(Part):
    hidden_size: int = Field(ge=16, le=1280)
    layers: LayerCount
    heads: int = Field(ge=1, le=16)
    patch_size: int = Field(ge=4, le=32)

    @model_validator(mode="after")
    def _equal_heads(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError("hiddenSize must be divisible by heads")
        return self


def _is_hub_id(name: str) -> bool:
    return bool(HUB_ID.fullmatch(name)) and not (".." in name or "--" in name or name.endswith(".git"))


class Model(Part):
    name: str | None = Field(default=None, min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._/-]+$")
    revision: str | None = Field(default=None, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    claim_name: ClaimName | None = None
    config: VitConfig | None = None

    @model_validator(mode="after")
    def _one_way_to_start(self) -> Self:
        if (self.name is None) == (self.config is None):
            raise ValueError("give either name (pre-trained weights) or config (train from scratch)")
        if self.claim_name and (not self.name or self.name.startswith("/") or ".." in self.name):
            raise ValueError("with claimName, name must be a relative path inside the claim, without '..'")
        if self.name and not self.claim_name and not _is_hub_id(self.name):
            raise ValueError(f'"{self.name}" is not a hub id, MODEL or OWNER/MODEL; a folder needs claimName')
        if self.revision and (not self.name or self.claim_name):
            raise ValueError("revision pins a hub model: it needs name and no claimName")
        return self

    @property
    def is_of_hub(self) -> bool:
        """Whether the weights come over the network, to the container that prepares."""
        return self.name is not None and self.claim_name is None


class Pvc(Part):
    claim_name: ClaimName
    path: RelativePath | None = None

    @model_validator(mode="after")
    def _stays_inside(self) -> Self:
        if self.path and (self.path.startswith("/") or ".." in self.path):
            raise ValueError("path must be relative to the claim's root, without '..'")
        return self


class Http(Part):
    config_map_name: ClaimName | None = None
    """None: the archives of ChestX-ray14."""


class S3(Part):
    url: Annotated[
        str, Field(max_length=1024, pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()=/-]*)?$")
    ]
    endpoint: Annotated[str, Field(max_length=512, pattern=r"^https?://[A-Za-z0-9.:\[\]-]+/?$")] | None = None
    secret_name: ClaimName | None = None


class Fsspec(Part):
    url: Annotated[
        str,
        Field(
            max_length=1024,
            pattern=r"^(abfs|az|ftp|gs|hf|oss|s3|sftp|smb|webhdfs)://"
            r"[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9][A-Za-z0-9.-]*)?(:[0-9]{1,5})?(/[A-Za-z0-9!_.*'()=/@-]*)?$",
        ),
    ]
    secret_name: ClaimName | None = None


class Synthetic(Part):
    images: int = Field(default=1000, ge=60, le=50000)
    seed: Seed = 0
    size: int = Field(default=1024, ge=64, le=2048)


class Source(Part):
    pvc: Pvc | None = None
    http: Http | None = None
    s3: S3 | None = None
    fsspec: Fsspec | None = None
    synthetic: Synthetic | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(source is not None for source in (self.pvc, self.http, self.s3, self.fsspec, self.synthetic)) != 1:
            raise ValueError("give exactly one of pvc, http, s3, fsspec and synthetic")
        return self

    @property
    def claim_name(self) -> str | None:
        return self.pvc.claim_name if self.pvc else None

    @property
    def is_remote(self) -> bool:
        """Whether the data come over the network, perhaps with credentials, to the container that prepares them."""
        return self.http is not None or self.s3 is not None or self.fsspec is not None


class Labels(Part):
    file: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._-]+$")] = (
        "Data_Entry_2017_v2020.csv"
    )
    image_column: Column = "Image Index"
    patient_column: Column = "Patient ID"
    label_column: Column = "Finding Labels"
    separator: Annotated[str, Field(min_length=1, max_length=4)] = "|"
    layout: Literal["List", "Columns"] = "List"
    uncertain: Literal["Negative", "Positive"] = "Negative"
    patient_folder: Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z][A-Za-z_-]*$")] | None = None
    findings: Annotated[tuple[Finding, ...], Field(min_length=1, max_length=32)] = FINDINGS

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.findings)) != len(self.findings):
            raise ValueError("findings must name each finding once")
        return self


class Fractions(Part):
    train: Share = Decimal("0.7")
    validation: Share = Decimal("0.1")
    test: Share = Decimal("0.2")

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        if abs(self.train + self.validation + self.test - 1) > Decimal("0.0001"):
            raise ValueError("train, validation and test must add up to 1")
        return self


class Split(Part):
    by: Literal["Patient", "Official", "Image"] = "Patient"
    seed: Seed = 42
    fractions: Fractions = Fractions()


class Claim(Part):
    claim_name: ClaimName


class Dataset(Part):
    source: Source
    labels: Labels = Labels()
    split: Split = Split()
    image_size: int = Field(default=224, ge=32, le=512)
    cache: Claim | None = None
    on_bad_image: Literal["Skip", "Fail"] = "Skip"
    max_bad_percent: int = Field(default=1, ge=0, le=99)
    prepare: Literal["Job", "InitContainer"] | None = None
    prepare_flavor: FlavorName | None = None
    verify: Literal["Sample", "Always"] = "Sample"

    @model_validator(mode="after")
    def _flavor_of_a_job(self) -> Self:
        if self.prepare == "InitContainer" and self.prepare_flavor:
            raise ValueError("prepareFlavor is for prepare: Job; an init container runs where the training does")
        return self


class Training(Part):
    epochs: int = Field(default=3, ge=1, le=1000)
    global_batch_size: int = Field(default=128, ge=1, le=16384)
    micro_batch_size: int | None = Field(default=None, ge=1, le=1024)
    learning_rate: Decimal = Field(default=Decimal("2e-4"), gt=0)
    warmup_ratio: Decimal = Field(default=Decimal("0.25"), ge=0, le=1)
    weight_decay: Decimal = Field(default=Decimal(0), ge=0)
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    seed: Seed = 1337
    horizontal_flip: bool = False

    @model_validator(mode="after")
    def _whole_number_of_steps(self) -> Self:
        batch, micro = self.global_batch_size, self.micro_batch_size or 1
        if batch % micro:
            nearest = [size for size in (batch // micro * micro, (batch // micro + 1) * micro) if 1 <= size <= 16384]
            told = f"globalBatchSize must be a multiple of microBatchSize; nearest: {nearest}"
            raise ValueError(f"{told}; a flavor of IPUs may need another")
        return self


class Ipu(Part):
    """How a partition of IPUs is used; elsewhere it has no effect."""

    ipus_per_replica: Literal[1, 2, 4, 8, 16, 32, 64] | None = None
    layers_per_ipu: Annotated[tuple[LayerCount, ...], Field(min_length=1, max_length=64)] | None = None
    scaling: Literal["Keep", "Linear", "SquareRoot"] = "Keep"
    overrides: Overrides = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_entry_for_each(self) -> Self:
        possible = PARTITION_SIZES if self.ipus_per_replica is None else (self.ipus_per_replica,)
        given = len(self.layers_per_ipu or ()) or possible[0]
        if given not in possible:
            nearest = [count for count in possible if count < 2 * given < 4 * count] or list(possible)
            told = "layersPerIpu must have an entry for each of ipusPerReplica IPUs, a power of two"
            raise ValueError(f"{told}; nearest: {nearest}")
        return self

    @model_validator(mode="after")
    def _fields_of_ipu_config(self) -> Self:
        parse_overrides(self.overrides)
        return self


class Checkpoint(Part):
    every_steps: int = Field(default=100, ge=1, le=100000)
    keep: int = Field(default=2, ge=1, le=10)


class Tracking(Part):
    secret_name: ClaimName


FIRST_STEP_SECONDS: Final = 1800
"""Where only noProgressSeconds is given: to compile for IPUs takes minutes to tens of minutes."""


class Limits(Part):
    """Seconds after which the operator steps in; None never."""

    queue_seconds: int | None = Field(default=None, ge=1, le=31536000)
    run_seconds: int | None = Field(default=None, ge=60, le=31536000)
    no_progress_seconds: int | None = Field(default=None, ge=30, le=86400)
    first_step_seconds: int | None = Field(default=None, ge=30, le=86400)
    on_stall: Literal["Notify", "Restart"] = "Notify"

    def patience(self, limit: str) -> int | None:
        """Seconds after which a run that does not move is stalled.

        Args:
            limit: firstStepSeconds where steps can't be expected yet, or any more; else noProgressSeconds.
        """
        if limit != "firstStepSeconds" or self.first_step_seconds or self.no_progress_seconds is None:
            return self.first_step_seconds if limit == "firstStepSeconds" else self.no_progress_seconds
        return max(self.no_progress_seconds, FIRST_STEP_SECONDS)


class Budget(Part):
    """What the run may cost, in its price's currency."""

    limit: Money
    currency: Currency
    warn_at_percent: int = Field(default=80, ge=1, le=100)
    on_exceed: Literal["Notify", "CheckpointAndStop"] = "CheckpointAndStop"


class LiveSpec(Part):
    """The fields that act at once, also on a run that goes on."""

    suspend: bool = False
    rerun: int = Field(default=0, ge=0, le=999999)
    ready_when: Literal["Accepted", "Started", "Succeeded"] = "Started"
    limits: Limits = Limits()
    budget: Budget | None = None


class JobSpec(LiveSpec):
    """What a researcher asks for. Beyond LiveSpec, it is fixed when a run starts."""

    flavor: FlavorName
    model: Model
    dataset: Dataset
    training: Training = Training()
    ipu: Ipu = Ipu()
    checkpoint: Checkpoint = Checkpoint()
    tracking: Tracking | None = None
    output: Claim

    @model_validator(mode="after")
    def _whole_number_of_patches(self) -> Self:
        if self.model.config and self.dataset.image_size % self.model.config.patch_size:
            raise ValueError("model.config.patchSize must divide dataset.imageSize")
        return self

    @model_validator(mode="after")
    def _all_layers_are_placed(self) -> Self:
        layers = self.model.config.layers if self.model.config else None
        if layers and self.ipu.layers_per_ipu and sum(self.ipu.layers_per_ipu) != layers:
            raise ValueError("ipu.layersPerIpu must add up to model.config.layers")
        if layers and (self.ipu.ipus_per_replica or 1) > layers:
            nearest = max(count for count in PARTITION_SIZES if count <= layers)
            raise ValueError(f"ipu.ipusPerReplica must be at most model.config.layers; nearest: {nearest}")
        return self

    def prepares_first(self, flavor: FlavorSpec) -> bool:
        """Whether a Job of its own prepares the data before anything dear is held."""
        return self.dataset.prepare == "Job" or (
            self.dataset.prepare is None and backend_of(flavor.backend).holds_accelerators
        )

    @property
    def cache_claim(self) -> str:
        return self.dataset.cache.claim_name if self.dataset.cache else self.output.claim_name

    def fixed(self) -> dict[str, Any]:
        """Everything but LiveSpec, defaults filled in, as plain values: equal if the runs are equal."""
        return self.model_dump(mode="json", by_alias=True, exclude=set(LiveSpec.model_fields))

    def claims(self) -> dict[str, str]:
        """Field path -> claim name, for every claim that the run mounts."""
        paths = {
            "spec.dataset.source.pvc.claimName": self.dataset.source.claim_name,
            "spec.dataset.cache.claimName": self.dataset.cache.claim_name if self.dataset.cache else None,
            "spec.output.claimName": self.output.claim_name,
            "spec.model.claimName": self.model.claim_name,
        }
        return {path: name for path, name in paths.items() if name}

    def data_claims(self) -> dict[str, str]:
        """The same, for those that a preparation mounts."""
        of_cache = "spec.dataset.cache.claimName" if self.dataset.cache else "spec.output.claimName"
        paths = {"spec.dataset.source.pvc.claimName": self.dataset.source.claim_name, of_cache: self.cache_claim}
        return {path: name for path, name in paths.items() if name}


class Price(Part):
    """Price of the whole flavor from a moment on."""

    effective_from: AwareDatetime
    currency: Currency
    per_hour: Decimal = Field(ge=0)
    minimum_seconds: int = Field(default=0, ge=0, le=86400)
    increment_seconds: int = Field(default=1, ge=1, le=86400)
    source: str | None = Field(default=None, max_length=256)


class Hints(Part):
    """What the platform team expects of a flavor, for estimates where nothing has finished on it."""

    train_images_per_second: Annotated[Decimal, Field(gt=0)] | None = None
    """Also taken for evaluating, which is faster."""
    prepare_images_per_second: Annotated[Decimal, Field(gt=0)] | None = None
    start_seconds: int | None = Field(default=None, ge=0, le=86400)
    """From the node's choice to the first step: image pull, compilation."""


class MonthlyBudget(Part):
    """TrainingBudget.spec: what the runs of a namespace may cost in a month."""

    limit: Money
    currency: Currency
    warn_at_percent: int = Field(default=80, ge=1, le=100)
    on_exceed: Literal["Notify", "HoldNew"] = "HoldNew"


class NamespaceSelector(Part):
    """An empty one admits nobody: it may be what is left of one that said more."""

    match_labels: LabelMap = Field(min_length=1)


class FlavorSpec(Part):
    """What the platform team offers."""

    backend: BackendName
    accelerators: int = Field(default=0, ge=1, le=64)
    resource_name: str | None = Field(
        default=None,
        min_length=3,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
    )
    partition: Partition | None = None
    vipu_proxy_url: VipuProxyUrl | None = None
    host: Host = Host()
    node_selector: LabelMap = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = Field(default=(), max_length=16)
    namespace_selector: NamespaceSelector | None = None
    prices: tuple[Price, ...] = Field(default=(), max_length=32)
    hints: Hints = Hints()

    @model_validator(mode="after")
    def _as_its_backend_wants(self) -> Self:
        if told := backend_of(self.backend).objection(self):
            raise ValueError(told)
        return self


def parse_part(model: type[P], raw: object, where: str, reason: str) -> P | list[Problem]:
    """The typed value, or every problem at once.

    Args:
        raw: what Kubernetes gave; anything at all.
        where: path of raw, the first part of each problem's path.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        return [
            Problem(reason, ".".join([where, *map(str, e["loc"])]), e["input"], f"is refused: {e['msg']}")
            for e in error.errors()
        ]


def _shown(value: object) -> str:
    if isinstance(value, Mapping | BaseModel):
        return "(as given)"
    return f'"{value}"'[:80] if isinstance(value, str) else str(value)[:80]
