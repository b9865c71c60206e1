"""What flavors and runs are both made of. Read by core.spec, kept in snapshots, rendered by core.backends."""

from __future__ import annotations

import hashlib
from ipaddress import ip_address
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

Cores = Annotated[str, Field(max_length=16, pattern=r"^([0-9]{1,4}(\.[0-9]{1,3})?|[0-9]{1,6}m)$")]
Bytes = Annotated[str, Field(max_length=16, pattern=r"^[0-9]{1,12}(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|k|M|G|T)?$")]
ObjectName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    ),
]
VipuProxyUrl = Annotated[
    str, Field(max_length=280, pattern=r"^https?://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?$")
]


class Part(BaseModel):
    """Base of all parts: camelCase outside, immutable; unknown fields are left alone (a newer CRD)."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class Host(Part):
    """What a run's containers ask of the host. Fields that few flavors have are None, so that nobody else's snapshot
    speaks of them."""

    cpu: Cores | Annotated[int, Field(ge=0, le=9999)] | None = None
    memory: Bytes | None = None
    shared_memory: Bytes | None = None
    host_network: bool | None = None
    host_ipc: bool | None = Field(default=None, alias="hostIPC")
    privileged: bool | None = None
    extra_resources: dict[str, Annotated[int, Field(ge=1, le=1024)]] | None = Field(default=None, max_length=8)

    @model_validator(mode="after")
    def _named_with_domain(self) -> Self:
        if bare := [name for name in self.extra_resources or () if "/" not in name]:
            raise ValueError(f"extraResources: {bare[0]} has no domain; names of extended resources are like rdma/hca")
        return self

    @property
    def is_shared(self) -> bool:
        """Whether the pod gets more of the host than a pod usually has."""
        asked = (self.host_network, self.host_ipc, self.privileged, self.extra_resources)
        return any(part is not None for part in asked)


class Partition(Part):
    """A V-IPU partition that exists: where its server is, or which Secret tells."""

    host: Annotated[str, Field(max_length=253, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9.:]*[A-Za-z0-9])?$")] | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    id: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$")] | None = None
    timeout_seconds: int | None = Field(default=None, ge=1, le=3600)
    config_secret_name: ObjectName | None = None

    @model_validator(mode="after")
    def _one_way_to_tell(self) -> Self:
        named = (self.host, self.port, self.id, self.timeout_seconds)
        fits = not any(named) if self.config_secret_name else bool(self.host and self.id)
        if not fits:
            raise ValueError("give either host and id, or configSecretName alone")
        return self

    @property
    def key(self) -> str:
        """The same for all runs that would hold the same partition, as the value of a label.

        The port is left out: one server may be reached on two. What a Secret says is read by kubelet only; its copies in
        several namespaces are taken for the same, because a flavor is one partition.
        """
        secret = self.config_secret_name
        told = f"secret/{secret}" if secret else f"vipu/{_one_spelling(str(self.host))}/{self.id}"
        return hashlib.sha256(told.encode()).hexdigest()[:40]

    def __str__(self) -> str:
        if self.config_secret_name:
            return f"the partition of Secret {self.config_secret_name}"
        return f"partition {self.id} of {self.host}"


def _one_spelling(host: str) -> str:
    """Of a name or an address, which may be written in several ways: FD00:0::1 is fd00::1."""
    try:
        return str(ip_address(host))
    except ValueError:
        return host.lower()
