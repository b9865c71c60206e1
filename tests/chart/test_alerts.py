"""The chart's rules for Prometheus: each alert has a runbook and a case in which it fires and is silent."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.chart.manifests import CHART, template
from dev.cluster.state import REPOSITORY
from dev.cluster.tools import helm

CASES = Path(__file__).parent / "alerts"
RUNBOOKS = REPOSITORY / "docs" / "runbooks"
PAGE = (REPOSITORY / "docs" / "alerts.md").read_text()
ENABLED = "metrics: {prometheusRule: {enabled: true}}"
Rule = dict[str, Any]


def rendered(values: str = ENABLED) -> dict[str, Any]:
    """The spec of the PrometheusRule, which is a rules file."""
    (found,) = (each for each in yaml.safe_load_all(template(values=values)) if each["kind"] == "PrometheusRule")
    return dict(found["spec"])


def rules(kind: str) -> list[Rule]:
    return [rule for group in rendered()["groups"] for rule in group["rules"] if kind in rule]


ALERTS = sorted({rule["alert"] for rule in rules("alert")})


def promtool(programs: Path, *words: str | Path) -> None:
    done = subprocess.run([programs / "promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def write_rules(folder: Path) -> Path:
    path = folder / "xray.rules.yaml"
    path.write_text(yaml.safe_dump(rendered()))
    return path


def test_promtool_finds_nothing_to_say(prometheus_programs: Path, tmp_path: Path) -> None:
    promtool(prometheus_programs, "check", "rules", write_rules(tmp_path))


@pytest.mark.parametrize("name", [*ALERTS, "records"])
def test_it_fires_when_it_must_and_is_silent_when_it_must_not(
    name: str, prometheus_programs: Path, tmp_path: Path
) -> None:
    write_rules(tmp_path)
    case = tmp_path / "case.yaml"
    case.write_text((CASES / f"{name}.yaml").read_text())
    promtool(prometheus_programs, "test", "rules", case)


@pytest.mark.parametrize("name", ALERTS)
def test_the_case_of_an_alert_has_both(name: str) -> None:
    asked = [
        each
        for test in yaml.safe_load((CASES / f"{name}.yaml").read_text())["tests"]
        for each in test["alert_rule_test"]
    ]
    assert {each["alertname"] for each in asked} == {name}
    assert {bool(each["exp_alerts"]) for each in asked} == {True, False}


def test_every_recorded_series_has_a_case() -> None:
    asked = (CASES / "records.yaml").read_text()
    recorded = [rule["record"] for rule in rules("record")]
    assert recorded
    assert [name for name in recorded if name not in asked] == []


def test_there_are_no_cases_of_other_alerts() -> None:
    assert sorted(path.stem for path in CASES.glob("*.yaml")) == sorted([*ALERTS, "records"])


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_has_a_runbook(name: str) -> None:
    page = (RUNBOOKS / f"{name}.md").read_text()
    assert page.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["How bad", "What to look at", "What to do"]
    assert "```sh\n" in page


def test_there_are_no_runbooks_of_other_alerts() -> None:
    assert sorted(path.stem for path in RUNBOOKS.glob("*.md")) == ALERTS


@pytest.mark.parametrize("rule", rules("alert"), ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_how_bad_it_is_what_is_the_matter_and_where_to_read_on(rule: Rule) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert list(rule["annotations"]) == ["summary", "description", "runbook_url"]
    assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{rule['alert']}.md")


def test_the_page_lists_each_alert_with_its_severity_and_each_recorded_series() -> None:
    listed = set(re.findall(r"^\| \[(\w+)\]\(runbooks/\1\.md\) \| (\w+) \|", PAGE, re.MULTILINE))
    assert listed == {(rule["alert"], rule["labels"]["severity"]) for rule in rules("alert")}
    assert set(re.findall(r"^\| `(\w+:\w+:\w+)` \|", PAGE, re.MULTILINE)) == {
        rule["record"] for rule in rules("record")
    }


def test_the_documented_command_writes_what_prometheus_operator_is_given(tmp_path: Path) -> None:
    (command,) = re.findall(r"^(helm template xray .*?) > xray\.rules\.yaml$", PAGE, re.MULTILINE | re.DOTALL)
    tmp_path.joinpath("charts").symlink_to(CHART.parent)
    tmp_path.joinpath("values.yaml").write_text("")
    written = f"{helm()}/{command}"
    done = subprocess.run(written, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout) == rendered()


def test_every_threshold_can_be_changed() -> None:
    usual, others = rendered(), rendered((CHART / "ci" / "everything-values.yaml").read_text())
    changed = {
        rule["alert"]
        for group, other in zip(usual["groups"], others["groups"], strict=True)
        for rule, changed_rule in zip(group["rules"], other["rules"], strict=True)
        if (rule["expr"], rule.get("for")) != (changed_rule["expr"], changed_rule.get("for"))
    }
    assert changed == set(ALERTS) - {"XRayRunStalled", "XRayBudgetNearlySpent"}, "whose limits are the job's own"
