"""The one interface behind which the ways to reach accelerators differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Protocol

from xray_operator.core.batch_job import job_spec
from xray_operator.core.parts import Host, Partition

PARTITION_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
"""V-IPU partitions come in no other size."""


class Flavor(Protocol):
    """What the spec of a flavor and the snapshot of a run on it have in common."""

    @property
    def accelerators(self) -> int: ...
    @property
    def resource_name(self) -> str | None: ...
    @property
    def host(self) -> Host: ...
    @property
    def partition(self) -> Partition | None: ...
    @property
    def vipu_proxy_url(self) -> str | None: ...
    @property
    def node_selector(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class PodParts:
    """What a backend adds to the pod that trains."""

    limits: dict[str, str] = field(default_factory=dict)
    """Extended resources, on the container that uses them; the scheduler holds them for the whole pod anyway."""
    env: Sequence[Mapping[str, str]] = ()
    """Of the container that trains, as its mounts and its security context."""
    mounts: Sequence[Mapping[str, Any]] = ()
    volumes: Sequence[dict[str, Any]] = ()
    security: dict[str, Any] = field(default_factory=dict)
    """Takes the place of these fields of the security context."""
    pod: dict[str, Any] = field(default_factory=dict)
    """Fields of the pod's spec: which of the host's namespaces it shares."""


class Backend:
    """How pods get what a flavor offers. The base is what holds unless a backend says otherwise."""

    trains_on_ipus: ClassVar[bool] = False
    """Whether the image for IPUs is the one to train with."""
    holds_accelerators: ClassVar[bool] = True
    """Whether a pod holds something dear, so that data are prepared before it is made."""
    device: ClassVar[str] = "cpu"
    """What the torch image trains on there, as the trainer's result names it."""
    shares_host: ClassVar[bool] = False
    """Whether pods may get more of the host than a pod usually has, so that no foreign files are read in them."""
    no_queue: ClassVar[str] = ""
    """Why Kueue can't decide over runs here; empty if it can."""
    child_kind: ClassVar[str] = "Job"
    """Kind of the object whose pod trains."""
    one_attempt: ClassVar[bool] = False
    """Whether that object is made anew for each attempt: it can't be suspended, tries once, and nobody watches its kind."""

    def objection(self, flavor: Flavor) -> str | None:
        """What is wrong with a flavor of this backend, for its spec's validation. The CRD says the same with CEL."""
        if flavor.accelerators == 0 or flavor.resource_name is None:
            return "gpu and devicePlugin flavors have accelerators and resourceName"
        return self.partition_objection(flavor)

    def partition_objection(self, flavor: Flavor) -> str | None:
        """What only a partition has."""
        if flavor.partition is not None:
            return "partition is for vipuPartition flavors only"
        if flavor.vipu_proxy_url is not None:
            return "vipuProxyUrl is for ipuOperator flavors only"
        if flavor.host.is_shared:
            told = "host.hostNetwork, hostIPC, privileged and extraResources"
            return f"{told} are for vipuPartition and ipuOperator flavors only"
        return None

    def holds_ipus(self, flavor: Flavor) -> bool:  # noqa: ARG002 (devicePlugin looks at it)
        """Whether the accelerators of this flavor are IPUs."""
        return self.trains_on_ipus

    def holdings(self, flavor: Flavor) -> str:
        """What a run holds, in words."""
        return f"{flavor.accelerators} {flavor.resource_name}"

    def pod_parts(self, flavor: Flavor) -> PodParts:
        """What the pod that trains needs beyond the usual."""
        return PodParts({flavor.resource_name: str(flavor.accelerators)} if flavor.resource_name else {})

    def build_child(
        self,
        flavor: Flavor,  # noqa: ARG002 (ipuOperator looks at it)
        metadata: dict[str, Any],
        template: dict[str, Any],
        *,
        suspend: bool,
    ) -> dict[str, Any]:
        """The object whose pod trains, around that pod's template.

        Args:
            suspend: somebody else says when it may begin.
        """
        spec = {"suspend": suspend} | job_spec(template)
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}
