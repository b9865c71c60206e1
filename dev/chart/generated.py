"""The chart's files that are made from others: tables of its README, flavors of its values schema, what Artifact Hub
shows, the dashboard.

Changes are put in only when the chart is packaged: an entry of the changelog is no change of the chart's sources.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from dev.chart.artifact_hub import describe, read_changes, with_annotations
from dev.chart.manifests import CHART, CRDS, EXAMPLES
from dev.chart.schemas import flavor_value, read_yaml
from dev.cluster.state import REPOSITORY, ClusterError
from dev.cluster.tools import helm, helm_docs, run
from dev.dashboard import grafana

SCHEMA = CHART / "values.schema.json"
DASHBOARD: Final = CHART / "dashboards" / "xray-training.json"
CHART_YAML: Final = CHART / "Chart.yaml"
SHOWN_FLAVOR: Final = "vpod4-vm"
RIGHTS: Final = "<!-- rights: {} -->"
DEFINITIONS: Final = "<!-- crds -->"
"""In README.md.gotmpl, where the table of a file in rbac/ and the names of the CRDs belong."""


def generated() -> dict[Path, str]:
    """What the generated files should hold."""
    values = json.loads(SCHEMA.read_text())
    (flavor_crd,) = (crd for crd in read_yaml(*CRDS) if crd["spec"]["names"]["kind"] == "AcceleratorFlavor")
    values["definitions"]["flavor"] = flavor_value(flavor_crd)
    return {
        SCHEMA: json.dumps(values, indent=2, ensure_ascii=False) + "\n",
        CHART / "README.md": _filled(_readme()),
        CHART_YAML: with_annotations(CHART_YAML.read_text(), _described()),
        DASHBOARD: grafana.render(),
    }


def package(folder: Path) -> Path:
    """Pack the chart, with the changes of its version for Artifact Hub. Returns: the archive."""
    with tempfile.TemporaryDirectory() as parent:
        copied = shutil.copytree(CHART, Path(parent) / CHART.name)
        changes = read_changes((REPOSITORY / "CHANGELOG.md").read_text(), _chart()["version"])
        annotated = with_annotations(CHART_YAML.read_text(), _described() | {"changes": changes})
        (copied / CHART_YAML.name).write_text(annotated)
        run(helm() / "helm", "package", copied, "--destination", folder)
    return folder / f"{CHART.name}-{_chart()['version']}.tgz"


def _chart() -> Any:
    return yaml.safe_load(CHART_YAML.read_text())


def _described() -> dict[str, Any]:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    return describe(read_yaml(*CRDS), _examples(), values, str(_chart()["appVersion"]))


def _examples() -> Iterator[dict[str, Any]]:
    spec = yaml.safe_load((CHART / "flavors" / f"{SHOWN_FLAVOR}.yaml").read_text())
    metadata = {"name": SHOWN_FLAVOR}
    yield {"apiVersion": "xray.training/v1alpha1", "kind": "AcceleratorFlavor", "metadata": metadata, "spec": spec}
    yield from read_yaml(REPOSITORY / "examples" / "nih-vit-base.yaml", *EXAMPLES)


def _filled(readme: str) -> str:
    names = " ".join(sorted(crd["metadata"]["name"] for crd in read_yaml(*CRDS)))
    readme = readme.replace(DEFINITIONS, names)
    for path in sorted((CHART / "rbac").glob("*.yaml")):
        readme = readme.replace(RIGHTS.format(path.name), "\n".join(_rights(path.read_text())))
    return readme


def _rights(rules: str) -> Iterator[str]:
    """The rows of a table: what may be done, and the comment above the rule, which says who needs it."""
    yield "| resource | verbs | for |\n|----------|-------|-----|"
    for comment, rule in re.findall(r"((?:^#.*\n)+)(^- .*\n(?:^ .*\n?)+)", rules, re.MULTILINE):
        (told,) = yaml.safe_load(rule)
        resource, _, part = told["resources"][0].partition("/")
        named = ".".join(filter(None, (resource, told["apiGroups"][0]))) + (f"/{part}" if part else "")
        why = " ".join(line.lstrip("# ") for line in comment.splitlines())
        yield f"| `{named}` | {', '.join(told['verbs'])} | {why} |"


def _readme() -> str:
    """README.md.gotmpl with the values' comments put in; ClusterError names the values that have none."""
    options = ("--dry-run", "--sort-values-order=file", "--log-level=warning")
    text = run(helm_docs(), "--chart-search-root", CHART, *options).strip() + "\n"
    silent = [row.split("|")[1].strip() for row in text.splitlines() if row.startswith("|") and row.endswith("|  |")]
    if silent:
        raise ClusterError(
            f"charts/xray-operator/values.yaml: {', '.join(silent)}: expected a comment that begins with --"
        )
    return text


def write_generated() -> None:
    for path, text in generated().items():
        path.write_text(text)


def check_generated() -> None:
    """Raises: ClusterError naming the files that are not what they are made from."""
    outdated = [path.name for path, text in generated().items() if not path.exists() or path.read_text() != text]
    if outdated:
        raise ClusterError(f"charts/xray-operator: {', '.join(outdated)}: not up to date; `make generate` writes them")
