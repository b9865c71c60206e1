"""What a pod gets of its host to reach IPUs over the network, whoever made the partition.

The container that trains runs as user 0 with two capabilities: IPC_LOCK, by which memory is registered for RDMA and
which has no effect for another user; and DAC_OVERRIDE, because the run's folder is made by `prepare`, as user 65532.
The group stays 65532, and `prepare` stays as restricted as anywhere.
"""

from __future__ import annotations

from typing import Any, Final

from xray_operator.core.backends.base import PodParts
from xray_operator.core.parts import Host

INFINIBAND: Final = "/dev/infiniband"
CAPABILITIES: Final = {"drop": ["ALL"], "add": ["DAC_OVERRIDE", "IPC_LOCK"]}


def fabric_parts(host: Host) -> PodParts:
    """Rights, and as much of the host as its flavor says."""
    return PodParts(
        limits={name: str(count) for name, count in (host.extra_resources or {}).items()},
        env=[{"name": "RDMAV_FORK_SAFE", "value": "1"}],  # of Graphcore's own setup, for programs that fork
        mounts=[{"name": "infiniband", "mountPath": INFINIBAND}] if host.privileged else [],
        volumes=[_infiniband()] if host.privileged else [],
        security=_security(host),
        pod=_namespaces(host),
    )


def _infiniband() -> dict[str, Any]:
    return {"name": "infiniband", "hostPath": {"path": INFINIBAND, "type": "Directory"}}


def _security(host: Host) -> dict[str, Any]:
    of_root: dict[str, Any] = {"runAsUser": 0, "runAsNonRoot": False, "capabilities": CAPABILITIES}
    # the API refuses a privileged container that may not escalate
    return of_root | ({"privileged": True, "allowPrivilegeEscalation": True} if host.privileged else {})


def _namespaces(host: Host) -> dict[str, Any]:
    network = {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if host.host_network else {}
    return network | ({"hostIPC": True} if host.host_ipc else {})
