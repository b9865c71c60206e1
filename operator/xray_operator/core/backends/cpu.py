"""cpu: the processor cores of a node and nothing else."""

from __future__ import annotations

from xray_operator.core.backends.base import Backend, Flavor


class Cpu(Backend):
    holds_accelerators = False

    def objection(self, flavor: Flavor) -> str | None:
        if flavor.accelerators or flavor.resource_name is not None:
            return "a cpu flavor has neither accelerators nor resourceName"
        return self.partition_objection(flavor)
