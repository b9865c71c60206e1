"""The chart's alerts in a real Prometheus that scrapes a real operator: they fire of what happens, and end with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dev.dashboard.panels import OVERVIEW, filled
from dev.prometheus import free_port, running_server
from tests.e2e.prometheus import Prometheus, write_rules
from tests.integration.cluster_access import apply, until
from tests.integration.life import Trainer, claim, example, xray_job
from tests.integration.stage import IP, operating
from xray_operator.core.attempts import render_time

pytestmark = pytest.mark.integration

LIMIT_SECONDS = 30
"""The shortest limits.noProgressSeconds."""
VALUES = "metrics: {prometheusRule: {enabled: true, operatorDownFor: 2s}}"
EACH_SECOND = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}


@contextmanager
def watching(port: int, folder: Path, programs: Path) -> Iterator[Prometheus]:
    """Prometheus with the chart's rules, which scrapes the operator at this port as docs/metrics.md says."""
    rules = write_rules(folder, VALUES)
    target = {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "xray-system", "pod": "xray-operator"}}
    scrape = {"job_name": "xray", "honor_labels": True, "static_configs": [target]}
    config = {"global": EACH_SECOND, "rule_files": [str(rules)], "scrape_configs": [scrape]}
    with running_server(config, folder, programs) as url:
        yield Prometheus(url)


async def firing(prometheus: Prometheus, alert: str, *wanted: dict[str, str]) -> None:
    """Until the alerts of this name that fire are those with these labels."""

    async def ask() -> bool:
        return await asyncio.to_thread(prometheus.firing, alert) == list(wanted)

    await until(f"{alert}: {wanted}", ask)


def in_the_table(prometheus: Prometheus) -> list[dict[str, str]]:
    """The rows of the dashboard's table of alerts."""
    (table,) = (panel for panel in OVERVIEW.panels if panel.kind == "table")
    (query,) = table.queries
    return [series["metric"] for series in prometheus.query(filled(query.promql))]


def told(still_seconds: float) -> dict[str, Any]:
    """A trainer's word that nothing has moved for so long."""
    now = datetime.now(UTC)
    moved = render_time(now - timedelta(seconds=still_seconds))
    return example("progress.json") | {"time": render_time(now), "last_updated_time": moved, "phases": []}


async def test_a_stalled_trainer_makes_the_alert_fire_until_it_goes_on(
    kubeconfig: Path, namespace: str, tmp_path: Path, prometheus_programs: Path
) -> None:
    port = free_port()
    assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    with watching(port, tmp_path, prometheus_programs) as prometheus:
        async with operating(kubeconfig, namespace, tmp_path, metricsPort=port) as stage:
            trainer = Trainer(told(still_seconds=1))
            async with trainer.serve(IP):
                job = await stage.life.create(xray_job(namespace, limits={"noProgressSeconds": LIMIT_SECONDS}))
                long_ago = datetime.fromisoformat(job["metadata"]["creationTimestamp"]) - timedelta(hours=1)
                await stage.life.starts_training(long_ago)
                await firing(prometheus, "XRayRunStalled")
                trainer.answer = told(still_seconds=LIMIT_SECONDS + 10)
                run = {"namespace": namespace, "name": "cxr"}
                await firing(prometheus, "XRayRunStalled", {"severity": "critical"} | run)
                assert {"alertname": "XRayRunStalled", "severity": "critical"} | run in in_the_table(prometheus)
                trainer.answer = told(still_seconds=1)
                await firing(prometheus, "XRayRunStalled")


async def test_an_operator_that_is_gone_is_missed(
    kubeconfig: Path, namespace: str, tmp_path: Path, prometheus_programs: Path
) -> None:
    port = free_port()
    missed = {"severity": "critical", "namespace": "xray-system"}
    with watching(port, tmp_path, prometheus_programs) as prometheus:
        await firing(prometheus, "XRayOperatorDown", missed)
        async with operating(kubeconfig, namespace, tmp_path, metricsPort=port):
            await firing(prometheus, "XRayOperatorDown")
        await firing(prometheus, "XRayOperatorDown", missed)
