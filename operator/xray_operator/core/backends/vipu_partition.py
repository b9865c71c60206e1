"""vipuPartition: the IPUs of one V-IPU partition that exists already, a vPOD for example; they are reached over the network.

The container that trains runs as user 0 with two capabilities: IPC_LOCK, by which memory is registered for RDMA and
which has no effect for another user; and DAC_OVERRIDE, because the run's folder is made by `prepare`, as user 65532.
The group stays 65532, and `prepare` stays as restricted as anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from xray_operator.core.backends.base import PARTITION_SIZES, Backend, Flavor, PodParts
from xray_operator.core.parts import Host, Partition

VIPU_PORT: Final = 8090
CONFIG_MOUNT: Final = "/etc/ipuof"
CONFIG_FILE: Final = "ipuof.conf"
INFINIBAND: Final = "/dev/infiniband"
CAPABILITIES: Final = {"drop": ["ALL"], "add": ["DAC_OVERRIDE", "IPC_LOCK"]}


class VipuPartition(Backend):
    trains_on_ipus = True

    def objection(self, flavor: Flavor) -> str | None:
        return "; ".join(_objections(flavor)) or None

    def holdings(self, flavor: Flavor) -> str:
        return f"{flavor.accelerators} IPUs of {flavor.partition}"

    def pod_parts(self, flavor: Flavor) -> PodParts:
        devices = [{"name": "infiniband", "mountPath": INFINIBAND}] if flavor.host.privileged else []
        secret = flavor.partition.config_secret_name if flavor.partition else None
        config = [{"name": "ipuof", "mountPath": CONFIG_MOUNT, "readOnly": True}] if secret else []
        return PodParts(
            limits={name: str(count) for name, count in (flavor.host.extra_resources or {}).items()},
            env=[{"name": name, "value": value} for name, value in _environment(flavor.partition).items()],
            mounts=[*config, *devices],
            volumes=list(_volumes(flavor.host, secret)),
            security=_security(flavor.host),
            pod=_namespaces(flavor.host),
        )


def _objections(flavor: Flavor) -> Iterator[str]:
    if flavor.accelerators not in PARTITION_SIZES:
        yield "accelerators of a vipuPartition flavor must be a power of two from 1 to 64"
    if flavor.partition is None:
        yield "a vipuPartition flavor needs partition: host and id, or configSecretName"
    if flavor.resource_name is not None:
        yield "a vipuPartition flavor has no resourceName: its IPUs are reached over the network"
    if not flavor.node_selector:
        yield "a vipuPartition flavor needs nodeSelector: the label of the hosts that reach the partition"


def _environment(partition: Partition | None) -> dict[str, str]:
    """Without POPTORCH_WAIT_FOR_IPU: nobody else holds the partition, so one that can't be had is an error to tell."""
    told = {"RDMAV_FORK_SAFE": "1"}  # the trainer's data loader forks
    if partition is None or partition.config_secret_name:
        return told | {"IPUOF_CONFIG_PATH": f"{CONFIG_MOUNT}/{CONFIG_FILE}"}
    told |= {
        "IPUOF_VIPU_API_HOST": str(partition.host),
        "IPUOF_VIPU_API_PORT": str(partition.port or VIPU_PORT),
        "IPUOF_VIPU_API_PARTITION_ID": str(partition.id),
    }
    return told | ({"IPUOF_VIPU_API_TIMEOUT": str(partition.timeout_seconds)} if partition.timeout_seconds else {})


def _volumes(host: Host, secret: str | None) -> Iterator[dict[str, Any]]:
    if secret:
        # without the Secret the container says so, where kubelet would only wait and hold the partition
        items = [{"key": CONFIG_FILE, "path": CONFIG_FILE}]
        yield {"name": "ipuof", "secret": {"secretName": secret, "items": items, "optional": True}}
    if host.privileged:
        yield {"name": "infiniband", "hostPath": {"path": INFINIBAND, "type": "Directory"}}


def _security(host: Host) -> dict[str, Any]:
    of_root: dict[str, Any] = {"runAsUser": 0, "runAsNonRoot": False, "capabilities": CAPABILITIES}
    # the API refuses a privileged container that may not escalate
    return of_root | ({"privileged": True, "allowPrivilegeEscalation": True} if host.privileged else {})


def _namespaces(host: Host) -> dict[str, Any]:
    network = {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if host.host_network else {}
    return network | ({"hostIPC": True} if host.host_ipc else {})
