"""gpu: an extended resource such as nvidia.com/gpu, and the torch image, which trains on one of them."""

from __future__ import annotations

from dataclasses import replace

from xray_operator.core.backends.base import Backend, Flavor, PodParts


class Gpu(Backend):
    device = "cuda"

    def pod_parts(self, flavor: Flavor) -> PodParts:
        # a trainer that finds none ends, in place of training on the CPU for a GPU's price
        return replace(super().pod_parts(flavor), env=[{"name": "XRAY_DEVICE", "value": self.device}])
