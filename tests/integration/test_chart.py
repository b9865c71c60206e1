"""The chart on a real API server: both orders of installing it, upgrades that change nothing, and what an uninstall leaves."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dev.cluster.tools import kubernetes
from tests.integration.cluster_access import REPOSITORY, kubectl
from tests.integration.conftest import wait_for_crds
from tests.integration.release import Release

pytestmark = pytest.mark.integration

CRDS = [f"{kind}.xray.training" for kind in ("xraytrainingjobs", "acceleratorflavors", "trainingbudgets")]


@pytest.fixture
def release(kubeconfig: Path, namespace: str) -> Iterator[Release]:
    """A release that is not installed yet."""
    made = Release(kubeconfig, namespace)
    yield made
    if made.namespace in made.helm("list", "--short").split():
        made.helm("uninstall", made.namespace)


@pytest.fixture
def without_crds(kubeconfig: Path) -> Iterator[None]:
    """Our CRDs are gone; afterwards they are back."""
    removed = kubectl(kubeconfig, "delete", "crd", *CRDS, "--wait", "--timeout=60s")
    assert removed.returncode == 0, removed.stderr
    yield
    apply_crds(kubeconfig)


def apply_crds(kubeconfig: Path) -> None:
    """As docs/install.md says."""
    command = ["apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds")]
    applied = kubectl(kubeconfig, *command)
    assert applied.returncode == 0, applied.stderr
    wait_for_crds(kubeconfig)


def flavors_of(release: Release) -> list[str]:
    listed = kubectl(
        release.kubeconfig,
        *("get", "acceleratorflavors", "-o", "name"),
        *("-l", f"app.kubernetes.io/instance={release.namespace}"),
    )
    assert listed.returncode == 0, listed.stderr
    return sorted(line.rpartition("/")[2] for line in listed.stdout.split())


def wanted_flavors(release: Release) -> dict[str, dict[str, object]]:
    """One flavor of the release's own; the examples' names may be taken."""
    return {release.namespace: {"backend": "cpu", "host": {"cpu": "1", "memory": "1Gi"}}}


@pytest.mark.usefixtures("without_crds")
def test_helm_brings_the_crds_where_there_are_none(release: Release) -> None:
    release.upgrade(flavors=wanted_flavors(release))
    wait_for_crds(release.kubeconfig)
    assert flavors_of(release) == [release.namespace]
    apply_crds(release.kubeconfig)
    release.upgrade(flavors=wanted_flavors(release), resyncSeconds=3)
    assert flavors_of(release) == [release.namespace], "an upgrade of the CRDs by kubectl keeps what Helm made"


@pytest.mark.usefixtures("without_crds")
def test_helm_takes_the_crds_that_are_there(release: Release) -> None:
    apply_crds(release.kubeconfig)
    release.upgrade(flavors=wanted_flavors(release))
    assert flavors_of(release) == [release.namespace]


def versions(release: Release) -> dict[str, str]:
    """Object -> what changes with it, of everything in the release: its version, or a Deployment's without its status."""
    manifest = release.helm("get", "manifest", release.namespace)
    found = kubectl(release.kubeconfig, "get", "-f", "-", "-o", "yaml", stdin=manifest)
    assert found.returncode == 0, found.stderr
    items = yaml.safe_load(found.stdout)["items"]
    return {
        f"{each['kind']}/{each['metadata']['name']}": str(
            each["metadata"]["generation" if each["kind"] == "Deployment" else "resourceVersion"]
        )
        for each in items
    }


def test_a_second_upgrade_changes_nothing_and_nothing_differs_from_the_manifest(release: Release) -> None:
    values = {"flavors": wanted_flavors(release), "watchNamespaces": [release.namespace]}
    release.upgrade(**values)
    before = versions(release)
    release.upgrade(**values)
    assert versions(release) == before
    manifest = release.helm("get", "manifest", release.namespace)
    environment = os.environ | {"KUBECONFIG": str(release.kubeconfig)}
    command = [str(kubernetes() / "kubectl"), "diff", "-f", "-"]
    diff = subprocess.run(command, input=manifest, env=environment, capture_output=True, text=True, check=False)
    assert diff.returncode == 0, diff.stdout + diff.stderr


def test_uninstalling_leaves_crds_and_the_jobs(release: Release) -> None:
    release.upgrade(flavors=wanted_flavors(release))
    job = (REPOSITORY / "examples" / "nih-vit-base.yaml").read_text()
    applied = kubectl(release.kubeconfig, "apply", "-n", release.namespace, "-f", "-", stdin=job)
    assert applied.returncode == 0, applied.stderr
    release.helm("uninstall", release.namespace)
    kept = kubectl(release.kubeconfig, "get", "xraytrainingjobs", "-n", release.namespace, "-o", "name")
    assert re.search("xraytrainingjob.xray.training/vit-nih", kept.stdout), kept.stderr
    left = kubectl(release.kubeconfig, "get", "clusterroles", "-l", f"app.kubernetes.io/instance={release.namespace}")
    assert left.stdout == ""


def test_a_wrong_value_fails_the_installation_with_its_path(release: Release) -> None:
    with pytest.raises(AssertionError, match=r"at '/pod/httpProxy': 'proxy:3128' does not match pattern"):
        release.upgrade(pod={"httpProxy": "proxy:3128"})
    assert release.namespace not in release.helm("list", "--short").split()
