"""The chart's files that are made from others: the table of values in its README, the flavors in its values schema."""

from __future__ import annotations

import json
from pathlib import Path

from dev.chart.manifests import CHART, CRDS
from dev.chart.schemas import flavor_value, read_yaml
from dev.cluster.state import ClusterError
from dev.cluster.tools import helm_docs, run

SCHEMA = CHART / "values.schema.json"


def generated() -> dict[Path, str]:
    """What the generated files should hold."""
    values = json.loads(SCHEMA.read_text())
    (flavor_crd,) = (crd for crd in read_yaml(*CRDS) if crd["spec"]["names"]["kind"] == "AcceleratorFlavor")
    values["definitions"]["flavor"] = flavor_value(flavor_crd)
    return {SCHEMA: json.dumps(values, indent=2, ensure_ascii=False) + "\n", CHART / "README.md": _readme()}


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
