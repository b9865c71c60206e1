"""The run file: the one JSON document that the operator hands to both containers.

Its example is tests/contract/examples/run.json. Unknown fields are refused: an old image must not silently ignore
what a newer operator asks for.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Literal, Mapping, Optional

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Annotated, Self

from xray_trainer.errors import ConfigurationError

MAX_VALUE_CHARACTERS = 60
"""Longer values are cut in messages, which have to fit a termination message."""

DATASET_MOUNT = Path("/mnt/dataset")
"""Where the operator mounts the claim with the data set: what follows is the path that the user has given."""


class Section(BaseModel):
    """Part of the run file: fixed once read, no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Run(Section):
    """Which resource this run belongs to."""

    namespace: str
    name: str
    uid: str
    rerun: int = Field(ge=0)
    """How often the user has asked for the run again; each has an output folder of its own."""


class Accelerator(Section):
    """What the pod holds, for the log and the result; the backend decides what is used."""

    flavor: str
    backend: Literal["cpu", "gpu", "devicePlugin", "vipuPartition", "ipuOperator"]
    resource_name: Optional[str] = None
    count: int = Field(default=0, ge=0)


class Ipu(Section):
    """How one model and one global batch are laid out on IPUs, in optimum-graphcore's words. The operator has sized it."""

    ipus_per_replica: int = Field(ge=1)
    replication_factor: int = Field(ge=1)
    gradient_accumulation_steps: int = Field(ge=1)
    """Micro-batches of each replica per weight update."""
    layers_per_ipu: Optional[List[Annotated[int, Field(ge=0)]]]
    """None where the operator doesn't know how many layers the model has: they are spread evenly."""
    overrides: Dict[str, Any] = Field(default_factory=dict)
    """Other values for fields of IPUConfig, by their names; backends/ipu.py checks them."""
    executables_dir: Path
    """Below it, what was compiled is kept for all runs that can use it."""
    image: str
    """That this runs in, by the reference that the operator was told."""

    @property
    def ipus(self) -> int:
        return self.ipus_per_replica * self.replication_factor

    @model_validator(mode="after")
    def _fills_the_pipeline(self) -> Self:
        if self.layers_per_ipu is not None and len(self.layers_per_ipu) != self.ipus_per_replica:
            raise ValueError(
                f"layers_per_ipu has {len(self.layers_per_ipu)} numbers; expected ipus_per_replica {self.ipus_per_replica}"
            )
        needed = 2 * self.ipus_per_replica - 1
        if self.gradient_accumulation_steps < needed:
            raise ValueError(
                f"gradient_accumulation_steps {self.gradient_accumulation_steps} doesn't fill a pipeline of "
                f"{self.ipus_per_replica} IPUs; expected at least {needed}"
            )
        return self


class VitConfig(Section):
    """Size of a Vision Transformer trained from scratch; the MLP is four times as wide as the encoder."""

    hidden_size: int = Field(ge=16, le=1280)
    layers: int = Field(ge=1, le=48)
    heads: int = Field(ge=1, le=16)
    patch_size: int = Field(ge=4, le=32)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be divisible by heads {self.heads}")
        return self


class Model(Section):
    """Where the initial weights come from: exactly one of path, hub_name and config."""

    path: Optional[Path] = None
    hub_name: Optional[str] = None
    revision: Optional[str] = None
    config: Optional[VitConfig] = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("path", "hub_name", "config") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of path, hub_name, config; found {', '.join(given) or 'none'}")
        if self.revision is not None and self.hub_name is None:
            raise ValueError("revision needs hub_name")
        return self


class LabelsFile(Section):
    """The table of labels beside the images: a CSV file with a heading line, one line per image."""

    file: str
    image_column: str = Field(min_length=1, max_length=128)
    patient_column: str = Field(min_length=1, max_length=128)
    label_column: str = Field(min_length=1, max_length=128)
    separator: str = Field(min_length=1, max_length=8)
    """Stands between the findings of one cell of the label column."""
    layout: Literal["List", "Columns"] = "List"
    """Columns: in place of the label column each finding has one of its own with 1, 0, -1 (uncertain) or nothing."""
    uncertain: Literal["Negative", "Positive"] = "Negative"
    """What -1 is taken for."""
    patient_folder: Optional[str] = Field(default=None, pattern=r"^[A-Za-z][A-Za-z_-]{0,62}$")
    """In place of the patient column: patients are the folders of the images' paths that this and a number name."""

    @model_validator(mode="after")
    def _beside_the_images(self) -> Self:
        if Path(self.file).name != self.file:
            raise ValueError("file must be a plain file name beside the images")
        return self


class Split(Section):
    """How images are divided. Patient: all images of a patient fall into the same part, stratified by finding. Official:
    the test images are those of NIH's test_list.txt, the others are divided by patient in the proportion of train to
    validation. Image: at random, which lets a model meet the patients of its test."""

    by: Literal["Patient", "Official", "Image"]
    seed: int = Field(ge=0)
    train: float = Field(gt=0, lt=1)
    validation: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-4:
            raise ValueError(f"train, validation and test add up to {total:g}; expected 1")
        return self


class OnBadImage(Section):
    """What becomes of a run whose set holds images that can't be read. Fail: the first one ends it; Skip: they are left
    out, until they are too many."""

    mode: Literal["Fail", "Skip"]
    max_share: float = Field(ge=0, lt=1)
    """Under Skip: more than this share of the images, and more than five, end the run. Not looked at under Fail."""


class Http(Section):
    """Archives on web servers."""

    list: Optional[Path]
    """Names, URLs, sizes and digests as JSON; None for ChestX-ray14, whose list the image has."""


class S3(Section):
    """A folder in a bucket, with the layout of a claim's."""

    url: str = Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$")
    endpoint: Optional[str] = Field(pattern=r"^https?://\S+$")
    """None for AWS."""


class Fsspec(Section):
    """A folder in a store that fsspec reads, with the layout of a claim's. Protocols that read what lies in the container,
    or through one another, are none of these; nor does a URL hold a password."""

    url: str = Field(
        pattern=r"^(abfs|az|ftp|gs|hf|oss|s3|sftp|smb|webhdfs)://"
        r"[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9][A-Za-z0-9.-]*)?(:[0-9]{1,5})?(/[A-Za-z0-9!_.*'()=/@-]*)?$"
    )


class Synthetic(Section):
    """Generated X-rays."""

    images: int = Field(ge=1, le=200_000)
    seed: int = Field(ge=0)
    size: int = Field(ge=32, le=2048)


class Dataset(Section):
    """The X-rays, their labels, and where the prepared copy is kept. The images come from exactly one of root, http, s3,
    fsspec and synthetic."""

    root: Optional[Path] = None
    """Folder on a claim."""
    http: Optional[Http] = None
    s3: Optional[S3] = None
    fsspec: Optional[Fsspec] = None
    synthetic: Optional[Synthetic] = None
    labels: LabelsFile
    findings: List[str] = Field(min_length=1, max_length=32)
    split: Split
    image_size: int = Field(ge=32, le=512)
    """Side in pixels of the square that the model sees."""
    stored_size: int = Field(ge=32, le=640)
    """Side in pixels of the cached images, from which the model's square is cropped."""
    cache_dir: Path
    on_bad_image: OnBadImage = OnBadImage(mode="Skip", max_share=0.01)

    @property
    def is_remote(self) -> bool:
        """Whether the images come over the network, perhaps with credentials that not every container has."""
        return self.http is not None or self.s3 is not None or self.fsspec is not None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = ("root", "http", "s3", "fsspec", "synthetic")
        given = [name for name in sources if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of {', '.join(sources)}; found {', '.join(given) or 'none'}")
        return self

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.stored_size < self.image_size:
            raise ValueError(
                f"stored_size {self.stored_size} is below image_size {self.image_size}; expected at least that"
            )
        if len(set(self.findings)) != len(self.findings):
            raise ValueError("findings holds a name twice; expected each once")
        return self


class Training(Section):
    """Hyper-parameters."""

    epochs: int = Field(ge=1)
    global_batch_size: int = Field(ge=1)
    micro_batch_size: int = Field(ge=1)
    gradient_accumulation_steps: int = Field(ge=1)
    learning_rate: float = Field(gt=0, allow_inf_nan=False)
    warmup_ratio: float = Field(ge=0, le=1)
    weight_decay: float = Field(ge=0, allow_inf_nan=False)
    scheduler: Literal["cosine", "linear", "constant_with_warmup"]
    seed: int = Field(ge=0, lt=2**32)
    horizontal_flip: bool = False
    """Whether half of the training images are mirrored, at random."""

    @model_validator(mode="after")
    def _batches_multiply(self) -> Self:
        product = self.micro_batch_size * self.gradient_accumulation_steps
        if product != self.global_batch_size:
            raise ValueError(
                f"micro_batch_size times gradient_accumulation_steps is {product}; "
                f"expected global_batch_size {self.global_batch_size}"
            )
        return self


class Checkpoint(Section):
    """What is kept of a training that is not over."""

    every_steps: int = Field(ge=1)
    """Weight updates between two checkpoints."""
    keep: int = Field(ge=1, le=10)
    """The newest are kept; one more lies on the volume while it is written."""


class RunFile(Section):
    """The whole run file."""

    version: Literal[1]
    run: Run
    accelerator: Accelerator
    backend: Literal["torch", "ipu"]
    """Module of xray_trainer.backends that trains."""
    ipu: Optional[Ipu] = None
    """For that backend, and only there."""
    model: Model
    dataset: Dataset
    training: Training
    checkpoint: Checkpoint
    max_seconds: Optional[int] = Field(ge=1)
    """Deadline from the container's start that the trainer keeps by itself while no operator asks for /progress; only until one
    has told another deadline there."""
    output_dir: Path
    """The run's own folder. A re-created resource with the same settings gets the same."""
    progress_port: int = Field(ge=0, le=65535)
    """0 lets the system choose a free port."""
    prepared_by: Optional[str] = None
    """Name of the order by which the data were prepared already; None: this run prepares them itself."""
    model_prepared_by: Optional[str] = None
    """The same of the hub model."""
    verify: Literal["Sample", "Always"] = "Sample"
    """Of a cache that is found: the digests of a few files are compared, or of all."""

    @property
    def sample_seed(self) -> Optional[str]:
        """Decides which files of a cache that is found are hashed; None: all are."""
        return None if self.verify == "Always" else f"{self.run.uid}/{self.run.rerun}"

    @model_validator(mode="after")
    def _laid_out_on_ipus(self) -> Self:
        if (self.ipu is not None) != (self.backend == "ipu"):
            raise ValueError(f"backend {self.backend}: ipu is {'missing' if self.ipu is None else 'not expected'}")
        if self.ipu is None:
            return self
        if self.ipu.ipus != self.accelerator.count:
            raise ValueError(
                f"ipu: {self.ipu.replication_factor} replicas of {self.ipu.ipus_per_replica} are {self.ipu.ipus} IPUs; "
                f"expected accelerator.count {self.accelerator.count}"
            )
        product = self.training.micro_batch_size * self.ipu.replication_factor * self.ipu.gradient_accumulation_steps
        if product != self.training.global_batch_size:
            raise ValueError(
                f"ipu: micro_batch_size times replication_factor times gradient_accumulation_steps is {product}; "
                f"expected global_batch_size {self.training.global_batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _patches_tile(self) -> Self:
        if self.model.config is not None and self.dataset.image_size % self.model.config.patch_size:
            raise ValueError(
                f"model.config.patch_size {self.model.config.patch_size} "
                f"must divide dataset.image_size {self.dataset.image_size}"
            )
        return self


class Order(Section):
    """What is to be prepared for every run that needs it: what a preparation of its own is told."""

    version: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9-]{1,63}$")
    """Under which the runs find what was prepared."""
    progress_port: int = Field(ge=0, le=65535)


class DataOrder(Order):
    """Data."""

    dataset: Dataset


class ModelOrder(Order):
    """A model of the hub."""

    hub_name: str
    revision: Optional[str]
    """Branch, tag or commit; None for main."""
    cache_dir: Path


def read_run_file(path: Path) -> RunFile:
    """Read and check the run file.

    Raises: ConfigurationError naming every wrong field at once.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"run file {path}: {error.strerror}; expected a readable JSON file") from error
    except ValueError as error:
        raise ConfigurationError(f"run file {path}: {error}; expected JSON") from error
    return parse_run_file(document)


def parse_run_file(document: object) -> RunFile:
    """The run file from its parsed JSON. Raises: ConfigurationError naming every wrong field at once."""
    with _told_at_once("run file"):
        return RunFile.model_validate(document)


def parse_labels_file(**values: Optional[str]) -> LabelsFile:
    """What a command line says of a labels file. Raises: ConfigurationError naming every wrong field at once."""
    with _told_at_once("labels file"):
        return LabelsFile.model_validate(values)


@contextlib.contextmanager
def _told_at_once(place: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        lines = [_describe(dict(item)) for item in error.errors(include_url=False, include_context=False)]
        raise ConfigurationError(f"{place}: " + "; ".join(lines)) from error


def parse_data_order(text: str) -> DataOrder:
    """The order from its JSON. Raises: ConfigurationError naming every wrong field at once."""
    with _told_at_once("data order"):
        return DataOrder.model_validate_json(text)


def parse_model_order(text: str) -> ModelOrder:
    """The order from its JSON. Raises: ConfigurationError naming every wrong field at once."""
    with _told_at_once("model order"):
        return ModelOrder.model_validate_json(text)


def _describe(item: Mapping[str, Any]) -> str:
    """`training.epochs: 0: input should be greater than or equal to 1`."""
    place = ".".join(str(part) for part in item["loc"]) or "(whole file)"
    message = str(item["msg"]).replace("Value error, ", "")
    sentence = message[:1].lower() + message[1:]
    value = item["input"]
    if item["type"] == "missing" or isinstance(value, (dict, list, BaseModel)):
        return f"{place}: {sentence}"
    return f"{place}: {json.dumps(value, default=str)[:MAX_VALUE_CHARACTERS]}: {sentence}"


def as_json(run_file: RunFile) -> Dict[str, Any]:
    """The run file as plain values for the result, with the fields that it was given."""
    return run_file.model_dump(mode="json", exclude_unset=True)
