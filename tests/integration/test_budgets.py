"""spec.budget and TrainingBudget on a real control plane: a run stops within its limit, a spent month holds new runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster_access import apply, until
from tests.integration.kubelet import Kubelet
from tests.integration.life import STOPPED, Trainer, claim, conditions, example, xray_job
from tests.integration.stage import Stage, operating

pytestmark = pytest.mark.integration

BUDGETS = "/apis/xray.training/v1alpha1/namespaces/{}/trainingbudgets"
DOLLARS = {"limit": "0.50", "currency": "USD"}
"""211 s at 8.50 an hour."""


@pytest.fixture
async def stage(kubeconfig: Path, namespace: str, tmp_path: Path) -> AsyncIterator[Stage]:
    """With claims, and a trainer that tells its progress."""
    assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    trainer = Trainer(example("progress.json") | {"phases": []})
    async with operating(kubeconfig, namespace, tmp_path) as stage, trainer.serve(stage.life.ip):
        yield stage


def budget(namespace: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "xray.training/v1alpha1",
        "kind": "TrainingBudget",
        "metadata": {"name": "monthly", "namespace": namespace},
        "spec": {"limit": "0.10", "currency": "USD"} | spec,
    }


async def counted(stage: Stage, display: str) -> dict[str, Any]:
    """The status of the budget as soon as it has counted this."""

    async def ask() -> dict[str, Any] | None:
        budget = await stage.life.cluster.get(f"{BUDGETS.format(stage.namespace)}/monthly")
        status: dict[str, Any] = budget.get("status", {})
        return status if status.get("display") == display else None

    return await until(f"the budget has counted {display}", ask)


async def holds_for_long(stage: Stage, job: dict[str, Any], seconds: int) -> Kubelet:
    """The job's pod has had a node for so many seconds and trains."""
    begin = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
    kubelet = Kubelet(stage.life.cluster, stage.namespace, begin, stage.life.ip)
    await kubelet.bind(-seconds)
    await kubelet.prepare_starts(1 - seconds)
    await kubelet.prepare_ends(20 - seconds, 0, example("prepare-result.json"))
    await kubelet.train_starts(21 - seconds)
    return kubelet


async def test_a_run_stops_within_its_budget_and_goes_on_when_that_is_raised(stage: Stage) -> None:
    job = await stage.life.create(xray_job(stage.namespace, budget=DOLLARS))
    kubelet = await holds_for_long(stage, job, 100)
    await kubelet.obeys(5, 143, STOPPED)
    stopped = (await stage.life.reached("Stopped"))["status"]
    reasons = conditions(stopped)
    assert reasons["Stalled"] == ("True", "BudgetReached")
    assert stopped["cost"]["total"] == "0.2479", "105 s"
    assert stopped["budget"]["display"] == "0.25 of 0.50 USD left"
    await stage.life.edit(budget={"limit": "5"})
    kubelet = await stage.life.starts_training(datetime.fromisoformat(job["metadata"]["creationTimestamp"]), 100)
    await kubelet.train_ends(150, 0, example("result.json") | {"phases": []})
    assert (await stage.life.reached("Succeeded"))["status"]["cost"]["heldSeconds"] == 105 + 45


async def test_a_spent_month_holds_new_runs_and_outlives_what_has_spent_it(stage: Stage) -> None:
    await stage.life.cluster.create(BUDGETS.format(stage.namespace), budget(stage.namespace))
    await counted(stage, "0.00 of 0.10 USD")
    job = await stage.life.create(xray_job(stage.namespace))
    kubelet = await stage.life.starts_training(datetime.fromisoformat(job["metadata"]["creationTimestamp"]))
    await kubelet.train_ends(150, 0, example("result.json") | {"phases": []})
    await stage.life.reached("Succeeded")
    spent = await counted(stage, "0.34 of 0.10 USD")
    assert spent["ledger"] == [{"uid": job["metadata"]["uid"], "rerun": 0, "name": "cxr", "amount": "0.3424"}]
    reasons = conditions(spent)
    assert reasons["BudgetWarning"] == ("True", "BudgetSpent")
    assert reasons["Ready"][0] == "True"

    await stage.life.cluster.delete(
        f"/apis/xray.training/v1alpha1/namespaces/{stage.namespace}/xraytrainingjobs/cxr", job["metadata"]["uid"]
    )
    held = await stage.life.create(xray_job(stage.namespace, name="another"))
    status = (await stage.life.reached("Queued", "another"))["status"]
    reasons = conditions(status)
    assert reasons["Reconciling"] == ("True", "MonthlyBudgetSpent")
    assert "run" not in status
    told = {event["reason"] for event in await stage.life.events(held["metadata"]["uid"])}
    assert told == {"Accepted", "MonthlyBudgetSpent"}
    assert (await counted(stage, "0.34 of 0.10 USD"))["runs"] == 1, "of a job that is deleted"

    await stage.life.cluster.merge(f"{BUDGETS.format(stage.namespace)}/monthly", {"spec": {"limit": "10"}})

    async def begun() -> bool:
        return "run" in (await stage.life.job("another"))["status"]

    await until("the run begins", begun)
