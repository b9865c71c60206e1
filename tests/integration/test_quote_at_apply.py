"""The chart's quoteAtApply on a real API server: apply says what runs cost on the flavor asked for, and refuses nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster_access import apply, connect, kubectl, until
from tests.integration.life import FLAVOR, Life, claim, flavor, xray_job
from tests.integration.operator_process import OperatorProcess
from tests.integration.proxy import start_proxy
from tests.integration.release import Release, installed

pytestmark = pytest.mark.integration


@pytest.fixture
async def release(kubeconfig: Path, namespace: str) -> AsyncIterator[Release]:
    """The chart with the option, and its policy at work; two flavors, of which no operator has told anything."""
    other = flavor(f"other-{namespace}")
    assert apply(kubeconfig, flavor(), other, claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    _reset(kubeconfig, {"price": None, "typicalRuns": None})
    with installed(kubeconfig, namespace, quoteAtApply=True, watchNamespaces=[namespace]) as made:

        async def warns() -> bool:
            return "flavor " in applied(made)

        await until("the policy warns", warns)
        yield made
    _reset(kubeconfig, {"price": None, "typicalRuns": None})
    kubectl(kubeconfig, "delete", "acceleratorflavor", other["metadata"]["name"])


def _reset(kubeconfig: Path, status: dict[str, Any]) -> None:
    words = ["patch", "acceleratorflavor", FLAVOR, "--subresource=status", "--type=merge"]
    done = kubectl(kubeconfig, *words, "-p", json.dumps({"status": status}))
    assert done.returncode == 0, done.stderr


def applied(release: Release, *words: str, **spec: Any) -> str:
    """What kubectl says on stderr where a job is applied, which it must be."""
    job = xray_job(release.namespace, "asked", **spec)
    done = kubectl(release.kubeconfig, "apply", "--dry-run=server", *words, "-f", "-", stdin=json.dumps(job))
    assert done.returncode == 0, done.stderr
    return done.stderr


def warning(release: Release, told: str) -> str:
    policy = f"{release.full_name}-quote"
    return f"Warning: Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{policy}': {told}\n"


async def told_by_an_operator(release: Release, folder: Path) -> dict[str, Any]:
    """A whole run with an operator that has the rights of the chart; returns the flavor's status after it."""
    namespace = release.namespace
    cluster = await connect(release.kubeconfig)
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts/{release.full_name}/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": None}}
    token = (await cluster.create(account, request))["status"]["token"]

    async def told() -> dict[str, Any] | None:
        raw = await cluster.get(f"/apis/xray.training/v1alpha1/acceleratorflavors/{FLAVOR}")
        status: dict[str, Any] = raw.get("status", {})
        return status if status.get("typicalRuns") else None

    async with start_proxy(str(release.kubeconfig)) as proxy:
        proxy.token = f"Bearer {token}"
        operator = OperatorProcess(folder, proxy.url, namespace)
        await operator.start(quoteAtApply=True)
        try:
            life = Life(cluster, namespace, "127.79.0.2")
            await life.live_through(await life.create(xray_job(namespace)))
            return await until("the flavor says what a run costs", told)
        finally:
            operator.kill()
            await operator.ended()
            await cluster.close()


async def test_apply_tells_what_runs_of_this_model_cost_on_exactly_this_flavor(
    release: Release, tmp_path: Path
) -> None:
    unknown = "no run of this model is known here; kubectl xray quote tells more"
    assert applied(release) == warning(release, f"flavor {FLAVOR} (price not known yet): {unknown}")
    (run,) = (await told_by_an_operator(release, tmp_path))["typicalRuns"]
    amount = run["display"]
    assert amount.startswith("about 0.")
    told = f"a run of this model, 3 epochs of {run['images']} images: {amount}, in about 2 min; history (1 run)"
    assert applied(release) == warning(release, f"flavor {FLAVOR} (8.50 USD an hour): {told}")
    other = f"other-{release.namespace}"
    assert applied(release, flavor=other) == warning(release, f"flavor {other} (8.50 USD an hour): {unknown}")
    for model in ({"name": "google/vit-base-patch16-224-in21k"}, {"name": "vit", "claimName": "out"}):
        assert applied(release, model=model) == warning(release, f"flavor {FLAVOR} (8.50 USD an hour): {unknown}")


async def test_only_what_begins_a_run_is_quoted_and_nothing_is_refused(release: Release) -> None:
    job = xray_job(release.namespace, "real")
    made = apply(release.kubeconfig, job)
    assert (made.returncode, f"flavor {FLAVOR}" in made.stderr) == (0, True)
    for edit, is_told in ({"suspend": True}, False), ({"rerun": 1}, True), ({"flavor": "no-such-flavor"}, False):
        done = kubectl(
            *(release.kubeconfig, "patch", "xtj", "real", "-n", release.namespace, "--type=merge", "-p"),
            json.dumps({"spec": edit}),
        )
        assert (done.returncode, "flavor" in done.stderr) == (0, is_told), done.stderr


async def test_a_flavor_whose_status_is_odd_stands_in_nobodys_way(release: Release) -> None:
    _reset(
        release.kubeconfig,
        {"typicalRuns": [{"model": "2 layers of 64, 2 heads, patches of 16", "imageSize": 224, "epochs": 1}]},
    )
    told = "a run of this model, 1 epoch: unpriced, in about 0 min; history"
    assert applied(release) == warning(release, f"flavor {FLAVOR} (price not known yet): {told}")
