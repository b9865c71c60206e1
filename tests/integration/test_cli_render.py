"""`kubectl xray render` prints what the operator makes: held against a real operator on a real API server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command_line import REPOSITORY, xray
from tests.integration.cluster_access import kubectl, until
from tests.integration.conftest import make_namespace, remove_namespace
from tests.integration.kubelet import Kubelet
from tests.integration.life import claim, example, flavor, xray_job
from tests.integration.stage import JOBS, Stage, operating
from tests.integration.test_preparation import CHEAP, DATASET, cheap_flavor

pytestmark = pytest.mark.integration
OF_THE_SERVER = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "namespace")
CONTROLLER_LABELS = ("batch.kubernetes.io/controller-uid", "controller-uid")
SHIPPED = {
    path: text
    for path in sorted((REPOSITORY / "examples").glob("*.yaml"))
    if "kind: XRayTrainingJob" in (text := path.read_text())
}
EXAMPLES = [path for path, text in SHIPPED.items() if "budget:" not in text]
"""A budget needs a price, and no flavor that is shipped has one."""


def own(raw: dict[str, Any]) -> dict[str, Any]:
    """The object without what the API server and controllers write."""
    raw = {key: value for key, value in raw.items() if key != "status"}
    raw["metadata"] = {key: value for key, value in raw["metadata"].items() if key not in OF_THE_SERVER}
    if raw["kind"] == "Job":
        spec = raw["spec"] = {key: value for key, value in raw["spec"].items() if key != "selector"}
        for label in CONTROLLER_LABELS:
            spec["template"]["metadata"]["labels"].pop(label, None)
    return raw


def by_name(objects: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(raw["kind"], raw["metadata"]["name"]): own(raw) for raw in objects}


def stored(kubeconfig: Path, namespace: str) -> list[dict[str, Any]]:
    """The operator's children in the namespace."""
    found = kubectl(kubeconfig, "get", "configmaps,jobs", "-l", "xray.training/job-uid", "-n", namespace, "-o", "yaml")
    assert found.returncode == 0, found.stderr
    items: list[dict[str, Any]] = yaml.safe_load(found.stdout)["items"]
    return items


def as_the_server_would_store(kubeconfig: Path, text: str, namespace: str) -> list[dict[str, Any]]:
    """What a dry run there makes of these objects, its defaults filled in."""
    objects = [raw | {"metadata": raw["metadata"] | {"namespace": namespace}} for raw in yaml.safe_load_all(text)]
    words = ("create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-")
    made = [kubectl(kubeconfig, *words, stdin=yaml.safe_dump(raw)) for raw in objects]
    assert [done.stderr for done in made if done.returncode] == []
    return [yaml.safe_load(done.stdout) for done in made]


async def run_until_it_has_a_job(stage: Stage, folder: Path) -> str:
    """Data and model prepared by Jobs of their own; returns what a user would pipe into render."""
    spec = {"dataset": DATASET | {"imageSize": 128}, "model": {"name": "example/small"}, "ipu": {"scaling": "Keep"}}
    await stage.life.create(xray_job(stage.namespace, **spec))

    async def two() -> bool:
        return len(await stage.jobs()) == 2

    await until("both preparations have a Job", two)
    for _ in range(2):
        kubelet = Kubelet(stage.life.cluster, stage.namespace, datetime.now(UTC) - timedelta(seconds=3), stage.life.ip)
        pod = await kubelet.bind(0)
        result = "prepare-result.json" if pod.startswith("xray-data-") else "model-result.json"
        await kubelet.data_ends(2, 0, example(result))
    await stage.life.reached("Queued")
    assert len(await stage.life.listed(JOBS)) == 3
    return str(folder / "config.yaml")


async def test_what_is_rendered_is_what_the_operator_has_made(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    settings = {"defaultPrepareFlavor": CHEAP, "pod": {"imagePullSecrets": ["registry"], "httpProxy": "http://proxy:1"}}
    made = [cheap_flavor(), claim(namespace, "nih"), claim(namespace, "out")]
    assert kubectl(kubeconfig, "apply", "-f", "-", stdin=yaml.safe_dump_all(made)).returncode == 0
    async with operating(kubeconfig, namespace, tmp_path, **settings) as stage:
        config = await run_until_it_has_a_job(stage, tmp_path)
    given = kubectl(kubeconfig, "get", "xtj,pvc", "-n", namespace, "-o", "yaml").stdout
    flavors = tmp_path / "flavors.yaml"
    flavors.write_text(yaml.safe_dump_all([flavor(), cheap_flavor()]))
    done = xray(None, "render", "-f", "-", "--flavors", str(flavors), "--config", config, stdin=given)
    assert (done.returncode, done.stderr) == (0, "")
    beside = f"{namespace}-beside"
    make_namespace(kubeconfig, beside)
    try:
        rendered = as_the_server_would_store(kubeconfig, done.stdout, beside)
    finally:
        remove_namespace(kubeconfig, beside)
    assert len(rendered) == 4
    assert by_name(rendered) == by_name(stored(kubeconfig, namespace))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_is_rendered_of_an_example_is_taken_by_a_cluster(kubeconfig: Path, namespace: str, path: Path) -> None:
    done = xray(None, "render", "-f", str(path), "-n", namespace)
    assert done.returncode == 0, done.stderr
    applied = kubectl(kubeconfig, "apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=done.stdout)
    assert applied.returncode == 0, applied.stderr
    assert applied.stdout.startswith("configmap/")
