"""ipuOperator: Graphcore's IPU Operator makes a partition for each run, as its IPUJob asks, and lets go of it afterwards.

An IPUJob has no suspend, no queue and no podFailurePolicy, and is never let try twice (restartPolicy Never): each
attempt is an IPUJob of its own, so that what it holds is gone before the next one claims anything. One instance with
one worker, and no launcher: that is for poprun and several hosts. Fields after graphcore.ai_ipujobs.yaml of Graphcore's
chart ipu-operator 1.2.0, https://github.com/graphcore/helm-charts
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from xray_operator import names
from xray_operator.core.backends.base import PARTITION_SIZES, Backend, Flavor, PodParts
from xray_operator.core.backends.fabric import fabric_parts


class IpuOperator(Backend):
    trains_on_ipus = True
    shares_host = True
    no_queue: ClassVar[str] = "its runs are IPUJobs, which can't be suspended"
    child_kind = names.IPU_JOB_KIND
    one_attempt = True

    def objection(self, flavor: Flavor) -> str | None:
        return "; ".join(_objections(flavor)) or None

    def holdings(self, flavor: Flavor) -> str:
        return f"{names.counted(flavor.accelerators, 'IPU')} of a partition of its own"

    def pod_parts(self, flavor: Flavor) -> PodParts:
        """Where the partition is, Graphcore's operator tells the pod."""
        return fabric_parts(flavor.host)

    def build_child(
        self,
        flavor: Flavor,
        metadata: dict[str, Any],
        template: dict[str, Any],
        *,
        suspend: bool,  # noqa: ARG002 (an IPUJob waits for nobody)
    ) -> dict[str, Any]:
        return {
            "apiVersion": names.IPU_JOB_API,
            "kind": names.IPU_JOB_KIND,
            "metadata": metadata,
            "spec": {
                "jobInstances": 1,
                "ipusPerJobInstance": str(flavor.accelerators),
                "restartPolicy": {"type": "Never", "backOffLimit": 0},
                # the pod's end is read from it; it goes with the IPUJob
                "cleanPodPolicy": "None",
                "workers": {"replicas": 1, "template": template},
            },
        }


def _objections(flavor: Flavor) -> Iterator[str]:
    if flavor.accelerators not in PARTITION_SIZES:
        yield "accelerators of an ipuOperator flavor must be a power of two from 1 to 64"
    if flavor.vipu_proxy_url is None:
        yield "an ipuOperator flavor needs vipuProxyUrl: whom to ask whether a partition is free"
    if flavor.resource_name is not None or flavor.partition is not None:
        yield "an ipuOperator flavor has neither resourceName nor partition: one is made for each run"
