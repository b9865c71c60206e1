"""The operator's configuration: one YAML file, usually a mounted ConfigMap. Read once, by __main__."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from xray_operator.errors import ConfigError


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Images(_Section):
    """Images of the run's containers. They come from here only, never from what a tenant writes."""

    prepare: str = Field(default="", max_length=512)
    """Image of the container that parses foreign bytes. Empty: no job is accepted."""
    torch: str = Field(default="", max_length=512)
    """Image of the container that trains. Empty: no job is accepted."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"


class OperatorConfig(_Section):
    """Everything an administrator can set, with the reason for each default."""

    images: Images = Images()
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets that must exist in each namespace with jobs; only kubelet reads them."""
    namespaces: tuple[str, ...] = ()
    """Namespaces that are watched; empty means all. The chart's role covers the whole cluster either way."""
    resync_seconds: float = Field(default=5.0, gt=0)
    """Pause between looks at jobs that run. Short against a 15-second scrape, long against API load."""
    idle_resyncs: int = Field(default=6, ge=1)
    """Jobs that wait (for a claim, a flavor, a node) are looked at in every n-th of those passes."""
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
        return OperatorConfig.model_validate(yaml.safe_load(path.read_text()) or {})
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(step) for step in e['loc']) or '(top)'}: {e['input']!r}: {e['msg']}" for e in error.errors()
        )
        raise ConfigError(f"{path}: {problems}") from error
