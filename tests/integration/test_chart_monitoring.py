"""The chart's monitors and rules on an API server that has prometheus-operator's CRDs: it takes them and drops no field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dev.chart.manifests import prometheus_operator_crds
from tests.integration.cluster_access import kubectl, wait_until_served
from tests.integration.release import Release, installed

pytestmark = pytest.mark.integration
KINDS = ("servicemonitors", "podmonitors", "prometheusrules")


@pytest.fixture
def prometheus_operator(kubeconfig: Path) -> Iterator[None]:
    """Its CRDs, gone afterwards."""
    files = [word for path in prometheus_operator_crds() for word in ("-f", str(path))]
    applied = kubectl(kubeconfig, "apply", "--server-side", *files)
    assert applied.returncode == 0, applied.stderr
    wait_until_served(kubeconfig, "monitoring.coreos.com", *KINDS)
    yield
    kubectl(kubeconfig, "delete", "--wait", *files)


def stored(release: Release, kind: str) -> dict[str, object]:
    """The spec of the release's only object of the kind."""
    listed = kubectl(release.kubeconfig, "get", kind, "-n", release.namespace, "-o", "yaml")
    assert listed.returncode == 0, listed.stderr
    (found,) = yaml.safe_load(listed.stdout)["items"]
    return dict(found["spec"])


@pytest.mark.usefixtures("prometheus_operator")
def test_prometheus_operator_is_given_monitors_and_rules(kubeconfig: Path, namespace: str) -> None:
    enabled = {kind: {"enabled": True} for kind in ("serviceMonitor", "podMonitor", "prometheusRule", "dashboard")}
    with installed(kubeconfig, namespace, metrics=enabled) as release:
        manifest = yaml.safe_load_all(release.helm("get", "manifest", namespace))
        written = {f"{each['kind'].lower()}s": each["spec"] for each in manifest if "monitoring" in each["apiVersion"]}
        assert set(written) == set(KINDS)
        assert {kind: stored(release, kind) for kind in KINDS} == written


def test_without_its_crds_the_installation_is_refused(kubeconfig: Path, namespace: str) -> None:
    release = Release(kubeconfig, namespace)
    with pytest.raises(
        AssertionError, match=r"metrics.podMonitor.enabled: the cluster has no monitoring.coreos.com/v1"
    ):
        release.upgrade(metrics={"podMonitor": {"enabled": True}})
    assert namespace not in release.helm("list", "--short").split()
