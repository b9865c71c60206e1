"""The ways to reach accelerators, one file each behind the interface in base.py.

Nothing outside this package asks which backend a flavor has; it asks the backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from xray_operator.core.backends.base import Backend
from xray_operator.core.backends.cpu import Cpu
from xray_operator.core.backends.device_plugin import DevicePlugin
from xray_operator.core.backends.gpu import Gpu
from xray_operator.core.backends.ipu_operator import IpuOperator
from xray_operator.core.backends.vipu_partition import VipuPartition

BackendName = Literal["cpu", "gpu", "devicePlugin", "vipuPartition", "ipuOperator"]

BACKENDS: Final[Mapping[BackendName, Backend]] = {
    "cpu": Cpu(),
    "gpu": Gpu(),
    "devicePlugin": DevicePlugin(),
    "vipuPartition": VipuPartition(),
    "ipuOperator": IpuOperator(),
}


def backend_of(name: BackendName) -> Backend:
    """The backend of a flavor, or of a run on it, by the word that its spec has."""
    return BACKENDS[name]
