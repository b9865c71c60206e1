"""vipuPartition: the IPUs of one V-IPU partition that exists already, a vPOD for example; they are reached over the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Final

from xray_operator.core.backends.base import PARTITION_SIZES, Backend, Flavor, PodParts
from xray_operator.core.backends.fabric import fabric_parts
from xray_operator.core.parts import Partition
from xray_operator.names import counted

VIPU_PORT: Final = 8090
CONFIG_MOUNT: Final = "/etc/ipuof"
CONFIG_FILE: Final = "ipuof.conf"


class VipuPartition(Backend):
    trains_on_ipus = True
    shares_host = True
    no_queue: ClassVar[str] = (
        "its runs wait in the operator's own line for their partition, by the Job's suspend, which Kueue would take over"
    )

    def objection(self, flavor: Flavor) -> str | None:
        return "; ".join(_objections(flavor)) or None

    def holdings(self, flavor: Flavor) -> str:
        return f"{counted(flavor.accelerators, 'IPU')} of {flavor.partition}"

    def pod_parts(self, flavor: Flavor) -> PodParts:
        parts = fabric_parts(flavor.host)
        secret = flavor.partition.config_secret_name if flavor.partition else None
        config = [{"name": "ipuof", "mountPath": CONFIG_MOUNT, "readOnly": True}] if secret else []
        told = _environment(flavor.partition)
        return replace(
            parts,
            env=[*parts.env, *({"name": name, "value": value} for name, value in told.items())],
            mounts=[*config, *parts.mounts],
            volumes=[*([_config_volume(secret)] if secret else []), *parts.volumes],
        )


def _objections(flavor: Flavor) -> Iterator[str]:
    if flavor.accelerators not in PARTITION_SIZES:
        yield "accelerators of a vipuPartition flavor must be a power of two from 1 to 64"
    if flavor.partition is None:
        yield "a vipuPartition flavor needs partition: host and id, or configSecretName"
    elif (flavor.partition.host or "").count(":") == 1:
        yield f'partition.host "{flavor.partition.host}" has a port, which belongs into partition.port'
    if flavor.resource_name is not None:
        yield "a vipuPartition flavor has no resourceName: its IPUs are reached over the network"
    if not flavor.node_selector:
        yield "a vipuPartition flavor needs nodeSelector: the label of the hosts that reach the partition"
    if flavor.vipu_proxy_url is not None:
        yield "vipuProxyUrl is for ipuOperator flavors only"


def _environment(partition: Partition | None) -> dict[str, str]:
    """Without POPTORCH_WAIT_FOR_IPU: nobody else holds the partition, so one that can't be had is an error to tell."""
    if partition is None or partition.config_secret_name:
        return {"IPUOF_CONFIG_PATH": f"{CONFIG_MOUNT}/{CONFIG_FILE}"}
    told = {
        "IPUOF_VIPU_API_HOST": str(partition.host),
        "IPUOF_VIPU_API_PORT": str(partition.port or VIPU_PORT),
        "IPUOF_VIPU_API_PARTITION_ID": str(partition.id),
    }
    return told | ({"IPUOF_VIPU_API_TIMEOUT": str(partition.timeout_seconds)} if partition.timeout_seconds else {})


def _config_volume(secret: str) -> dict[str, Any]:
    # without the Secret the container says so, where kubelet would only wait and hold the partition
    items = [{"key": CONFIG_FILE, "path": CONFIG_FILE}]
    return {"name": "ipuof", "secret": {"secretName": secret, "items": items, "optional": True}}
