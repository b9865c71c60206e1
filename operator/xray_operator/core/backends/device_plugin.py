"""devicePlugin: IPUs that a Kubernetes device plugin hands to containers, as one extended resource."""

from __future__ import annotations

from xray_operator.core.backends.base import PARTITION_SIZES, Backend, Flavor


class DevicePlugin(Backend):
    trains_on_ipus = True

    def objection(self, flavor: Flavor) -> str | None:
        if told := super().objection(flavor):
            return told
        if flavor.accelerators not in PARTITION_SIZES:
            return "accelerators of a devicePlugin flavor must be a power of two from 1 to 64"
        return None

    def holds_ipus(self, flavor: Flavor) -> bool:
        """Only Graphcore's: other vendors call something else an IPU."""
        vendor = (flavor.resource_name or "").partition("/")[0]
        return f".{vendor}".endswith(".graphcore.ai")
