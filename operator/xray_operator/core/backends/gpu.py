"""gpu: an extended resource such as nvidia.com/gpu, and the torch image, which trains on one of them."""

from __future__ import annotations

from xray_operator.core.backends.base import Backend


class Gpu(Backend):
    device = "cuda"
