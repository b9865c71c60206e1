"""A flavor's namespaceSelector: which namespaces' jobs may start on it, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster_access import apply, kubectl
from tests.integration.conftest import make_namespace, remove_namespace
from tests.integration.kubelet import Kubelet
from tests.integration.life import STOPPED, Life, Trainer, claim, example, flavor, xray_job
from tests.integration.stage import IP, operating
from xray_operator.core.conditions import find_condition

pytestmark = pytest.mark.integration

JOBS = "/apis/batch/v1/namespaces/{}/jobs"
CHOSEN = "integration-chosen"


@pytest.fixture
def elsewhere(kubeconfig: Path, namespace: str) -> Iterator[str]:
    """Another namespace that the operator serves."""
    name = f"{namespace}-elsewhere"
    make_namespace(kubeconfig, name)
    yield name
    remove_namespace(kubeconfig, name)


@pytest.fixture
def chosen(kubeconfig: Path, namespace: str, elsewhere: str) -> str:
    """A flavor for namespaces that carry two labels, which the first one does; returns the second label."""
    selected = flavor(CHOSEN)
    selected["spec"]["namespaceSelector"] = {"matchLabels": {"example.com/team": namespace, "example.com/vpod": "yes"}}
    claims = [claim(place, name) for place in (namespace, elsewhere) for name in ("nih", "out")]
    assert apply(kubeconfig, flavor(), selected, *claims).returncode == 0
    label(kubeconfig, namespace, f"example.com/team={namespace}", "example.com/vpod=yes")
    label(kubeconfig, elsewhere, f"example.com/team={namespace}", "example.com/vpod=no")
    return "example.com/vpod"


def label(kubeconfig: Path, namespace: str, *labels: str) -> None:
    done = kubectl(kubeconfig, "label", "--overwrite", "namespace", namespace, *labels)
    assert done.returncode == 0, done.stderr


async def refused(life: Life, name: str) -> dict[str, Any]:
    """The status of a job that its flavor is not for."""
    return await life.says("Accepted", "FlavorNotAllowed", name=name)


async def test_a_flavor_is_for_the_namespaces_that_carry_all_of_its_labels(
    kubeconfig: Path, namespace: str, elsewhere: str, chosen: str, tmp_path: Path
) -> None:
    async with operating(kubeconfig, namespace, tmp_path, namespaces=[namespace, elsewhere]) as stage:
        inside, outside = stage.life, replace(stage.life, namespace=elsewhere)
        await inside.create(xray_job(namespace, flavor=CHOSEN))
        await outside.create(xray_job(elsewhere, flavor=CHOSEN))
        await outside.create(xray_job(elsewhere, "on-another"))
        await inside.reached("Queued")
        await outside.reached("Queued", "on-another")
        status = await refused(outside, "cxr")
        message = find_condition(status, "Stalled")["message"]
        assert f"is not for namespace {elsewhere}, which lacks the label {chosen}=yes" in message
        assert [find_condition(status, kind)["status"] for kind in ("Stalled", "Ready")] == ["True", "False"]
        made = [raw["metadata"]["labels"]["xray.training/job-name"] for raw in await outside.listed(JOBS)]
        assert made == ["on-another"]
        label(kubeconfig, elsewhere, f"{chosen}=yes")
        status = (await outside.reached("Queued"))["status"]
        assert find_condition(status, "Accepted")["status"] == "True"
        assert find_condition(status, "Stalled")["status"] == "False"


async def test_a_run_that_has_begun_goes_on_when_its_namespace_loses_the_label(
    kubeconfig: Path, namespace: str, chosen: str, tmp_path: Path
) -> None:
    async with (
        operating(kubeconfig, namespace, tmp_path) as stage,
        Trainer(example("progress.json") | {"phases": []}).serve(IP),
    ):
        life = stage.life
        job = await life.create(xray_job(namespace, flavor=CHOSEN))
        kubelet: Kubelet = await life.starts_training(datetime.fromisoformat(job["metadata"]["creationTimestamp"]))
        label(kubeconfig, namespace, f"{chosen}=no")
        await life.create(xray_job(namespace, "later", flavor=CHOSEN))
        await refused(life, "later")
        await life.edit(suspend=True)
        await kubelet.obeys(60, 143, STOPPED)
        await life.reached("Suspended")
        await life.edit(suspend=False)
        kubelet = await life.starts_training(datetime.fromisoformat(job["metadata"]["creationTimestamp"]), 100)
        await kubelet.train_ends(160, 0, example("result.json") | {"phases": []})
        status = (await life.reached("Succeeded"))["status"]
        assert len(status["attempts"]) == 2, "what was fixed at its start holds, also when it goes on later"
        await life.edit(rerun=1)
        await refused(life, "cxr")
        label(kubeconfig, namespace, f"{chosen}=yes")
        await life.reached("Queued", "later")
