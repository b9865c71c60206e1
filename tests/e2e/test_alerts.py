"""A training that hangs on the real node makes the chart's alert fire in a real Prometheus; when it goes on, the alert ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev.demo.stack import Kube
from tests.e2e.places import cpu_flavor, folder, generate_set, tiny_run
from tests.e2e.processes import standing_still
from tests.e2e.prometheus import running_prometheus
from tests.e2e.waiting import until, wait_for_end

pytestmark = pytest.mark.e2e

FLAVOR, NAME, ALERT = "e2e-alerts", "hangs", "XRayRunStalled"
PRICE = {"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "USD", "perHour": "36.00", "source": "an example"}


def test_a_trainer_that_hangs_makes_the_alert_fire_until_it_goes_on(
    kube: Kube, module_namespace: str, prepare_image: str, prometheus_programs: Path, tmp_path: Path
) -> None:
    generate_set(kube, module_namespace, prepare_image, "xrays", size=128)
    job = tiny_run(module_namespace, NAME, FLAVOR, folder("xrays"))
    job["spec"] |= {"training": {"epochs": 300, "globalBatchSize": 16}, "checkpoint": {"everySteps": 10}}
    job["spec"]["limits"] = {"noProgressSeconds": 30, "onStall": "Notify"}
    series = f'{{namespace="{module_namespace}",name="{NAME}"}}'
    with cpu_flavor(kube, FLAVOR, PRICE), running_prometheus(kube, prometheus_programs, tmp_path) as prometheus:
        kube.apply(job)
        until("a checkpoint is told of", lambda: prometheus.query(f"xray_training_checkpoint_age_seconds{series}"), 300)
        until("it is not stalled", lambda: prometheus.value(f"xray_training_stalled{series}") == 0)
        assert not prometheus.firing(ALERT)
        (pod,) = kube.items("pods", module_namespace, f"xray.training/job-name={NAME}")
        with standing_still(pod):
            (labels,) = until("the alert fires", lambda: prometheus.firing(ALERT), 120)
        assert labels == {"severity": "critical", "namespace": module_namespace, "name": NAME}
        until("the alert is over", lambda: not prometheus.firing(ALERT), 60)
        assert wait_for_end(kube, NAME, module_namespace)["status"]["state"] == "Succeeded"
