"""The chart by itself, without a cluster: its suites, its values, its rules, and the operator's view of what it renders."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.chart.artifact_hub import read_changes
from dev.chart.generated import package
from dev.chart.manifests import CHART, VALUES, check_manifests, template
from dev.cluster.state import REPOSITORY, ClusterError
from dev.cluster.tools import helm, helm_unittest
from tests.integration.life import flavor
from tests.integration.test_crds import FLAVORS
from xray_operator.config import OperatorConfig, Pod, load_config

DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
MAPS = ("flavors", "resources", "nodeSelector", "podAnnotations", "podLabels", "labels", "annotations")
"""Values whose keys are the administrator's own."""


def rendered(values: str, kind: str) -> dict[str, Any]:
    (found,) = (each for each in yaml.safe_load_all(template(values=values)) if each["kind"] == kind)
    return dict(found)


def config_of(values: str, folder: Path) -> OperatorConfig:
    """The operator's configuration as it is mounted into its pod."""
    path = folder / "config.yaml"
    document = yaml.safe_load(template("--show-only", "templates/configmap.yaml", values=values))
    path.write_text(document["data"]["config.yaml"])
    return load_config(path)


def test_the_suites_of_helm_unittest() -> None:
    done = subprocess.run([helm_unittest(), "--strict", CHART], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f"Test Suites: {len(list((CHART / 'tests').glob('*_test.yaml')))} passed" in done.stdout


def rules(*files: str) -> dict[str, list[str]]:
    """group/resource -> verbs."""
    found = [rule for file in files for rule in yaml.safe_load((CHART / "rbac" / file).read_text())]
    return {f"{rule['apiGroups'][0]}/{rule['resources'][0]}": rule["verbs"] for rule in found}


def test_the_operator_may_do_this_and_nothing_else() -> None:
    assert rules("ipu-operator.yaml") == {"graphcore.ai/ipujobs": ["get", "list", "create", "patch", "delete"]}
    assert rules("namespaced.yaml") == {
        "xray.training/xraytrainingjobs": ["get", "list", "watch"],
        "xray.training/xraytrainingjobs/status": ["update"],
        "xray.training/trainingbudgets": ["get", "list", "watch"],
        "xray.training/trainingbudgets/status": ["update"],
        "batch/jobs": ["get", "list", "watch", "create", "patch", "delete"],
        "kueue.x-k8s.io/workloads": ["list"],
        "/pods": ["get", "list", "watch"],
        "/pods/eviction": ["create"],  # where limits.onStall asks for it
        "/configmaps": ["get", "create"],
        "/persistentvolumeclaims": ["get"],
        "/events": ["create", "list"],  # why the Job controller could not make a pod
    }
    assert rules("cluster.yaml") == {
        "xray.training/acceleratorflavors": ["get", "list", "watch"],
        "/namespaces": ["get"],
        "/persistentvolumes": ["get"],
    }


@pytest.mark.parametrize("file", ["namespaced.yaml", "cluster.yaml"])
def test_every_rule_names_one_resource_and_says_who_needs_it(file: str) -> None:
    lines = (CHART / "rbac" / file).read_text().splitlines()
    begins = [number for number, line in enumerate(lines) if line.startswith("- ")]
    assert begins
    for begin in begins:
        assert lines[begin - 1].startswith("# "), lines[begin : begin + 2]
    for rule in yaml.safe_load("\n".join(lines)):
        assert len(rule["apiGroups"]) == len(rule["resources"]) == 1
        assert set(rule) == {"apiGroups", "resources", "verbs"}


@pytest.mark.parametrize("values", [None, *VALUES], ids=lambda path: path.stem if path else "defaults")
def test_the_operator_reads_the_configuration_that_the_chart_writes(values: Path | None, tmp_path: Path) -> None:
    config = config_of(values.read_text() if values else "", tmp_path)
    assert config.images.prepare
    assert config.images.torch


def test_every_setting_arrives(tmp_path: Path) -> None:
    given = yaml.safe_load((CHART / "ci" / "everything-values.yaml").read_text())
    config = config_of(yaml.safe_dump(given), tmp_path)
    assert config.pod == Pod.model_validate(given["pod"])
    assert config.namespaces == tuple(given["watchNamespaces"])
    assert config.images.prepare == "registry.example/prepare:2"
    assert config.images.torch == f"registry.example/torch@{given['trainer']['torch']['digest']}"
    assert config.images.pull_policy == "Always"
    assert (config.resync_seconds, config.progress_timeout_seconds, config.metrics_port) == (2.5, 1.5, 9090)


def test_pod_settings_are_those_of_the_operator() -> None:
    model = Pod().model_dump(by_alias=True)
    assert DEFAULTS["pod"] == model | {"imagePullSecrets": []}
    assert set(SCHEMA["properties"]["pod"]["properties"]) == set(model)


def test_a_new_configuration_starts_the_operator_anew() -> None:
    def checksum(values: str) -> str:
        template_of = rendered(values, "Deployment")["spec"]["template"]
        return str(template_of["metadata"]["annotations"]["checksum/config"])

    assert checksum("") == checksum("resources: {limits: {memory: 1Gi}}")
    assert checksum("") != checksum("resyncSeconds: 7")


def named(schema: dict[str, Any], path: str = "") -> dict[str, dict[str, Any]]:
    """Every value that the schema names, by its path."""
    found = {}
    for name, each in schema.get("properties", {}).items():
        found[f"{path}{name}"] = each
        if name not in MAPS:
            found |= named(each, f"{path}{name}.")
    return found


def leaves(values: dict[str, Any], path: str = "") -> set[str]:
    found = set()
    for name, value in values.items():
        inner = isinstance(value, dict) and name not in MAPS
        found |= {f"{path}{name}"} | (leaves(value, f"{path}{name}.") if inner else set())
    return found


def test_the_schema_names_and_describes_every_value() -> None:
    in_schema = named(SCHEMA)
    assert set(in_schema) - {"global"} == leaves(DEFAULTS)
    assert not [path for path, schema in in_schema.items() if not schema.get("description")]
    closed = [path for path, schema in in_schema.items() if schema.get("type") == "object" and "properties" in schema]
    assert closed
    assert not [path for path in closed if in_schema[path].get("additionalProperties") is not False]


def test_the_values_of_the_tests_say_something_else_than_the_defaults() -> None:
    given = yaml.safe_load((CHART / "ci" / "everything-values.yaml").read_text())
    assert leaves(given) == leaves(DEFAULTS)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("replicas: 1", "replica: 1", "additional properties 'replica' not allowed"),
        ("backend: devicePlugin", "backend: tpu", "/spec/backend"),
        ("accelerators: 16", "accelerator: 16", "additional properties 'accelerator' not allowed"),
        ("verbs: [get]", "verbs: get", "/rules/1/verbs"),
    ],
)
def test_fields_that_kubernetes_does_not_know_are_found(before: str, after: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "chart.yaml"
    manifests = template()
    assert before in manifests
    path.write_text(manifests.replace(before, after, 1))
    with pytest.raises(ClusterError, match=message):
        check_manifests([path])


def test_the_package_holds_what_runs_and_no_tests(tmp_path: Path) -> None:
    with tarfile.open(package(tmp_path)) as packed:
        folders = {name.split("/")[1] for name in packed.getnames()}
    assert {"crds", "flavors", "rbac", "templates", "values.schema.json", "values.yaml", "README.md"} <= folders
    assert not folders & {"tests", "ci", "README.md.gotmpl"}


def hub_of(chart_yaml: str) -> dict[str, Any]:
    """What Artifact Hub reads, parsed."""
    annotations = yaml.safe_load(chart_yaml)["annotations"].items()
    return {key.removeprefix("artifacthub.io/"): yaml.safe_load(text) for key, text in annotations}


HUB = hub_of((CHART / "Chart.yaml").read_text())


def test_artifact_hub_reads_what_it_documents() -> None:
    """By https://artifacthub.io/docs/topics/annotations/helm."""
    by_hand = {"license", "operator", "operatorCapabilities", "category", "links"}
    assert set(HUB) == by_hand | {"crds", "crdsExamples", "images"}
    assert HUB["license"] == "Apache-2.0"
    assert HUB["operator"] is True
    levels = ("Basic Install", "Seamless Upgrades", "Full Lifecycle", "Deep Insights", "Auto Pilot")
    assert HUB["operatorCapabilities"] in levels
    assert HUB["category"] == "ai-machine-learning"
    assert all(set(link) == {"name", "url"} and link["url"].startswith("https://") for link in HUB["links"])


def test_artifact_hub_shows_every_crd_and_an_example_of_it() -> None:
    crds = [yaml.safe_load(path.read_text()) for path in sorted((CHART / "crds").glob("*.yaml"))]
    assert [each["name"] for each in HUB["crds"]] == [crd["metadata"]["name"] for crd in crds]
    assert all(each[key] for each in HUB["crds"] for key in ("kind", "version", "displayName", "description"))
    kinds = [crd["spec"]["names"]["kind"] for crd in crds]
    assert [shown["kind"] for shown in HUB["crdsExamples"]] == kinds


def test_the_images_that_artifact_hub_scans_are_those_that_the_chart_runs() -> None:
    text = template()
    shown = [each["image"] for each in HUB["images"]]
    assert len(shown) == 3
    assert not [image for image in shown if image not in text]


def test_the_package_tells_artifact_hub_its_changes(tmp_path: Path) -> None:
    with tarfile.open(package(tmp_path)) as packed:
        found = packed.extractfile("xray-operator/Chart.yaml")
        assert found is not None
        changes = hub_of(found.read().decode())["changes"]
    assert {change["kind"] for change in changes} == {"added", "changed", "fixed"}
    assert len(changes) == sum(line.startswith("- ") for line in (REPOSITORY / "CHANGELOG.md").read_text().splitlines())
    assert not [change for change in changes if not change["description"] or "\n" in change["description"]]


def test_the_changes_of_a_version_are_its_own() -> None:
    log = "# Changelog\n\n## Unreleased\n\n### Added\n\n- New.\n\n## 0.1.0\n\n### Fixed\n\n- A bug\n  of old.\n- Another.\n"
    assert read_changes(log, "0.2.0") == [{"kind": "added", "description": "New."}]
    fixed = [{"kind": "fixed", "description": told} for told in ("A bug of old.", "Another.")]
    assert read_changes(log, "0.1.0") == fixed


README = (CHART / "README.md").read_text()


@pytest.mark.parametrize("file", ["namespaced.yaml", "cluster.yaml", "ipu-operator.yaml"])
def test_the_readme_tells_every_right_and_who_needs_it(file: str) -> None:
    told = re.findall(r"^\| `(\S+)` \| ([a-z, ]+) \| (\S.*) \|$", README, re.MULTILINE)
    rows = {(name, verbs) for name, verbs, _ in told}
    for rule in yaml.safe_load((CHART / "rbac" / file).read_text()):
        resource, _, part = rule["resources"][0].partition("/")
        name = f"{resource}.{rule['apiGroups'][0]}".rstrip(".") + (f"/{part}" if part else "")
        assert (name, ", ".join(rule["verbs"])) in rows
    assert "<!--" not in README, "every place was filled"


INSTALL = (REPOSITORY / "docs" / "install.md").read_text()
COMMANDS, OF_README = (
    re.findall(r"^helm ((?:install|upgrade) (?:.*\\\n)*.*)$", page, re.MULTILINE) for page in (INSTALL, README)
)


def test_the_pages_have_their_commands() -> None:
    assert [command.split()[1] for command in COMMANDS] == ["xray", "xray", "radiology", "xray"]
    assert [command.split()[0] for command in OF_README] == ["install", "upgrade"]


@pytest.mark.parametrize("command", [*COMMANDS, *OF_README], ids=lambda command: command.split(" charts")[0])
def test_what_the_pages_say_can_be_done(command: str, tmp_path: Path) -> None:
    for name, text in re.findall(r"^```yaml\n# (\S+)\n(.*?)^```", INSTALL, re.MULTILINE | re.DOTALL):
        tmp_path.joinpath(name).write_text(text)
    tmp_path.joinpath("charts").symlink_to(CHART.parent)
    written = f"{helm() / 'helm'} template {command.split(maxsplit=1)[1]}"
    done = subprocess.run(written, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("spec", "_message"), FLAVORS)
def test_a_flavor_that_the_crd_refuses_is_refused_by_the_schema_of_values(spec: dict[str, Any], _message: str) -> None:
    given = {key: value for key, value in (flavor()["spec"] | spec).items() if value is not None}
    with pytest.raises(ClusterError, match="/flavors/wrong"):
        template(values=yaml.safe_dump({"flavors": {"wrong": given}}))


def test_a_right_flavor_is_taken_by_the_schema_of_values() -> None:
    assert template(values=yaml.safe_dump({"flavors": {"right": flavor()["spec"]}}))
