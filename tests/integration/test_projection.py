"""What a suspended job will probably cost, told by a real operator after a run that it has followed itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import xray
from tests.integration.cluster_access import apply, until
from tests.integration.life import claim, xray_job
from tests.integration.stage import Stage, operating

pytestmark = pytest.mark.integration


@pytest.fixture
async def stage(kubeconfig: Path, namespace: str, tmp_path: Path) -> AsyncIterator[Stage]:
    assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    async with operating(kubeconfig, namespace, tmp_path) as stage:
        yield stage


async def projected(stage: Stage, name: str) -> dict[str, Any]:
    async def ask() -> dict[str, Any] | None:
        section = (await stage.life.job(name)).get("status", {}).get("cost", {}).get("projected")
        return section if isinstance(section, dict) else None

    return await until(f"{name} has a projection", ask)


async def test_a_suspended_job_says_what_the_run_before_it_has_cost(kubeconfig: Path, stage: Stage) -> None:
    first = await stage.life.live_through(await stage.life.create(xray_job(stage.namespace)))
    paid = Decimal(first["status"]["cost"]["total"]).quantize(Decimal("0.01"))
    assert paid > 0
    job = xray_job(stage.namespace, "next", suspend=True)
    await stage.life.create(job)
    section = await projected(stage, "next")
    assert section == {
        "source": "history (1 run)",
        "currency": "USD",
        "p50": str(paid),
        "p90": str(paid),
        "p50Seconds": first["status"]["cost"]["heldSeconds"],
        "p90Seconds": first["status"]["cost"]["heldSeconds"],
        "display": f"about {paid} USD",
    }
    assert (await stage.life.reached("Suspended", "next"))["status"]["cost"] == {"projected": section}
    done = xray(kubeconfig, "quote", "-n", stage.namespace, "-f", "-", "-o", "json", stdin=json.dumps(job))
    (item,) = json.loads(done.stdout)["items"]
    assert item["total"]["amount"]["p50"] == first["status"]["cost"]["total"]
    await stage.life.cluster.merge(stage_path(stage, "next"), {"spec": {"suspend": False}})
    let_go = await stage.life.reached("Queued", "next")
    assert "projected" not in let_go["status"]["cost"]


def stage_path(stage: Stage, name: str) -> str:
    return f"/apis/xray.training/v1alpha1/namespaces/{stage.namespace}/xraytrainingjobs/{name}"
