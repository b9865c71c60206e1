"""The operator's configuration: one YAML file, usually a mounted ConfigMap. Read once, by __main__."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from xray_operator.errors import ConfigError, DocumentError
from xray_operator.names import GROUP
from xray_operator.yaml_text import parse_only_yaml


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Images(_Section):
    """Images of the run's containers. They come from here only, never from what a tenant writes."""

    prepare: str = Field(default="", max_length=512)
    """Image of the container that parses foreign bytes. Empty: no job is accepted."""
    torch: str = Field(default="", max_length=512)
    """Image of the container that trains on processor cores and GPUs. Empty: no job is accepted."""
    ipu: str = Field(default="", max_length=512)
    """Image of the container that trains on IPUs. Empty: the torch image trains there too, on the host's cores."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"


_NAME = "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_Name = Annotated[str, Field(pattern=f"^{_NAME}$", max_length=253)]
_NameOrNone = Annotated[str, Field(pattern=f"^({_NAME})?$", max_length=253)]
_Url = Annotated[str, Field(pattern=r"^(https?://\S+)?$", max_length=512)]
_WORD = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_Key = Annotated[str, Field(pattern=f"^([-a-z0-9.]{{1,253}}/)?{_WORD}$")]
_LabelValue = Annotated[str, Field(pattern=f"^({_WORD})?$")]
_OUR_PREFIXES = (f"{GROUP}/", "app.kubernetes.io/", "prometheus.io/")


class CaBundle(_Section):
    """The certificates that the containers that go out trust, from a ConfigMap in each namespace with jobs."""

    config_map_name: _NameOrNone = ""
    """Empty: the images' own certificates."""
    key: Annotated[str, Field(pattern="^[-A-Za-z0-9_.]{1,253}$")] = "ca.crt"
    """Which entry of the ConfigMap holds them, in PEM."""


class Pod(_Section):
    """What the administrator adds to every training pod; the network's part of it, to the containers that go out. What a job
    says never changes it."""

    image_pull_secrets: tuple[_Name, ...] = ()
    """Names of Secrets that must exist in each namespace with jobs; only kubelet reads them."""
    priority_class_name: _NameOrNone = ""
    """Empty: the cluster's default priority."""
    http_proxy: _Url = ""
    """HTTP_PROXY of the containers that go out: those that prepare, and train where a job has tracking. No password:
    everyone who may read pods can read it."""
    https_proxy: _Url = ""
    """HTTPS_PROXY of the same."""
    no_proxy: str = Field(default="", max_length=2048)
    """NO_PROXY of the same: hosts that are reached without the proxy, separated by commas."""
    ca_bundle: CaBundle = CaBundle()
    hugging_face_endpoint: _Url = ""
    """HF_ENDPOINT of the containers that fetch models: a mirror of the hub. Empty: https://huggingface.co."""
    labels: dict[_Key, _LabelValue] = Field(default_factory=dict, max_length=32)
    """Labels beside our own, for cost reports or policies."""
    annotations: dict[_Key, str] = Field(default_factory=dict, max_length=32)
    """Annotations beside our own, for example to keep a service mesh out."""

    @field_validator("labels", "annotations")
    @classmethod
    def _not_ours(cls, given: dict[str, str]) -> dict[str, str]:
        if taken := [key for key in given if key.startswith(_OUR_PREFIXES)]:
            raise ValueError(f"expected no {' nor '.join(taken)}: what begins with that is the operator's own")
        return given


class OperatorConfig(_Section):
    """Everything an administrator can set, with the reason for each default."""

    images: Images = Images()
    pod: Pod = Pod()
    default_prepare_flavor: _NameOrNone = ""
    """Flavor on which data is prepared before accelerators are held, where a job names none; a cpu flavor."""
    namespaces: tuple[str, ...] = ()
    """Namespaces that are watched; empty means all."""
    quote_at_apply: bool = False
    """Have the flavors' status tell their price and what runs cost, for the chart's policy that warns at apply. One operator
    of a cluster may."""
    resync_seconds: float = Field(default=5.0, gt=0)
    """Pause between looks at jobs that run. Short against a 15-second scrape, long against API load."""
    idle_resyncs: int = Field(default=6, ge=1)
    """Jobs that wait (for a claim, a flavor, a node) are looked at in every n-th of those passes."""
    relist_resyncs: int = Field(default=24, ge=1)
    """In every n-th of those passes what the watches have shown is held against a LIST of all versions."""
    status_refresh_seconds: float = Field(default=30.0, ge=0)
    """Where nothing but the running clock has changed (cost, ETA), status is written this seldom."""
    progress_timeout_seconds: float = Field(default=2.0, gt=0)
    """How long a pod may take to tell its progress. No answer is never a reason to act."""
    request_timeout_seconds: float = Field(default=30.0, gt=0)
    """How long one request to the API server may take."""
    deaf_after_seconds: float = Field(default=60.0, gt=0)
    """Health turns bad when no LIST has succeeded, or a write of ours did not come back, for so long."""
    workers: int = Field(default=8, ge=1, le=64)
    """Jobs that are looked at side by side; mostly they wait for the API server or a pod."""
    metrics_port: int = Field(default=8080, ge=0, le=65535)
    """/metrics for Prometheus; 0 is off."""
    health_port: int = Field(default=8081, ge=0, le=65535)
    """/healthz for kubelet; 0 is off."""


def load_config(path: Path) -> OperatorConfig:
    """Read the file; ConfigError lists every wrong field with its place and value."""
    try:
        return OperatorConfig.model_validate(parse_only_yaml(path.read_bytes()) or {})
    except (OSError, DocumentError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(step) for step in e['loc']) or '(top)'}: {e['input']!r}: {e['msg']}" for e in error.errors()
        )
        raise ConfigError(f"{path}: {problems}") from error
