"""What the chart renders, and whether Kubernetes and our CRDs know every field of it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from dev.chart.schemas import read_yaml, write_schemas
from dev.cluster.state import REPOSITORY
from dev.cluster.tools import helm, kubeconform, kubernetes_sources, prometheus_operator_sources, run

CHART = REPOSITORY / "charts" / "xray-operator"
CRDS = tuple(sorted((REPOSITORY / "crds").glob("*.yaml")))
EXAMPLES = tuple(sorted((REPOSITORY / "examples").glob("*.yaml")))
VALUES = tuple(sorted((CHART / "ci").glob("*.yaml")))


def template(*options: str | Path, values: str = "") -> str:
    """The chart's manifests, for a cluster with prometheus-operator.

    Args:
        options: of `helm template`.
        values: YAML that differs from the defaults.
    """
    place = ("--namespace", "xray-system", "--api-versions", "monitoring.coreos.com/v1")
    words = ("template", "xray", CHART, *place, "--values", "-", *options)
    return run(helm() / "helm", *words, stdin=values or "{}")


def prometheus_operator_crds() -> list[Path]:
    """The files with the CRDs of what the chart gives prometheus-operator."""
    folder = prometheus_operator_sources() / "example" / "prometheus-operator-crd"
    return [
        folder / f"monitoring.coreos.com_{kind}.yaml" for kind in ("servicemonitors", "podmonitors", "prometheusrules")
    ]


def helm_lint() -> None:
    """Raises: ClusterError with what Helm says."""
    for values in (None, *VALUES):
        run(helm() / "helm", "lint", "--strict", CHART, *(("--values", values) if values else ()))


def check_chart_and_examples() -> str:
    """Raises: ClusterError with what is wrong. Returns: how many objects were looked at."""
    with tempfile.TemporaryDirectory() as folder:
        rendered = []
        for values in (None, *VALUES):
            path = Path(folder) / f"chart-{values.stem if values else 'defaults'}.yaml"
            path.write_text(template(values=values.read_text() if values else ""))
            rendered.append(path)
        return check_manifests([*rendered, *EXAMPLES])


def check_manifests(files: Sequence[Path]) -> str:
    """Run kubeconform over the files.

    Returns: its summary.
    Raises: ClusterError with the wrong fields and their files.
    """
    with tempfile.TemporaryDirectory() as folder:
        swagger = kubernetes_sources() / "api" / "openapi-spec" / "swagger.json"
        crds = read_yaml(*CRDS, *prometheus_operator_crds())
        write_schemas(Path(folder), read_yaml(*files), crds, swagger)
        place = f"{folder}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
        return run(kubeconform(), "-strict", "-summary", "-schema-location", place, *files)
