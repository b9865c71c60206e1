"""What a user is told of words that make no sense, and how the help names what a command takes."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.command_line import REPOSITORY
from xray_cli.__main__ import run

OFFLINE = ("submit", "--name=a", "--flavor=x", "--results=out", "--dry-run=client", "-n=x")
"""No cluster is asked."""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("lst",), "error: No such command 'lst'. Did you mean 'list'?\nSee 'kubectl xray --help' for usage.\n"),
        (("frobnicate",), "error: No such command 'frobnicate'.\nSee 'kubectl xray --help' for usage.\n"),
        (
            ("logs", "cxr", "-c", "main"),
            "error: Invalid value for '--container' / '-c': 'main' is not one of 'prepare', 'train'.\n"
            "See 'kubectl xray logs --help' for usage.\n",
        ),
        (
            ("completion",),
            "error: Missing argument 'SHELL'. Choose from: bash, zsh, fish\n"
            "See 'kubectl xray completion --help' for usage.\n",
        ),
        (
            (*OFFLINE, "--synthetic=60", "--claim=nih"),
            "error: --synthetic goes with neither --claim nor --path: X-rays are generated, or lie on a claim\n",
        ),
    ],
)
def test_a_refusal(words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words]) == 1
    assert capsys.readouterr() == ("", told)


@pytest.mark.parametrize("before", [("-n", "chest"), ("-n=chest", "--context", "hospital"), ("--namespace=chest",)])
def test_options_are_taken_where_and_as_kubectl_takes_them(
    before: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "kubeconfig"
    users = {"clusters": [], "users": [], "contexts": [{"name": "hospital", "context": {}}], "current-context": ""}
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "Config"} | users))
    monkeypatch.setenv("KUBECONFIG", str(file))
    words = ["submit", "--name=a", "--flavor=x", "--results=out", "--claim=nih", "--dry-run=client", "-o=json"]
    assert run([*before, *words]) == 0
    assert json.loads(capsys.readouterr().out)["metadata"]["namespace"] == "chest"


def test_options_without_a_command_are_answered_by_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-n", "chest"]) == 0
    assert capsys.readouterr().out.startswith("Usage: kubectl xray [OPTIONS] COMMAND")


def test_a_dry_run_here_asks_for_no_kubeconfig_and_no_credentials(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    words = ["submit", "--name=a", "--flavor=x", "--results=out", "--claim=nih", "--dry-run=client", "-o=json"]

    def placed() -> str:
        assert run(words) == 0
        return str(json.loads(capsys.readouterr().out)["metadata"]["namespace"])

    assert placed() == "default"
    context = {"name": "hospital", "context": {"namespace": "chest", "user": "nobody", "cluster": "gone"}}
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    (tmp_path / "kubeconfig").write_text(json.dumps({"contexts": [context], "current-context": "hospital"}))
    assert placed() == "chest"


def test_examples_stand_before_options_each_on_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert run(["list", "--help"]) == 0
    told = (
        "\nExamples:\n  kubectl xray list -A --state Training --state Queued\n  kubectl xray list -o wide\n\nOptions:\n"
    )
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "usage"), [("describe", "NAME..."), ("cost", "[NAME]..."), ("report", "NAME"), ("completion", "SHELL")]
)
def test_names_stand_as_kubectl_has_them(command: str, usage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"Usage: kubectl xray {command} [OPTIONS] {usage}\n")
    assert "<list" not in told


def test_the_version_is_the_package_s_also_where_it_is_not_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"kubectl-xray {project['version']}\n"


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ("metadata: [a]", "metadata: ['a'] in place of fields"),
        ("metadata: {name: a}, spec: flavor", "spec: 'flavor' in place of fields"),
        ("metadata: {name: a}, spec: {dataset: {source: nih}}", "spec.dataset.source: 'nih' in place of fields"),
        ("metadata: {name: a}, spec: {limits: 5}", "spec.limits: 5 in place of fields"),
    ],
)
def test_a_section_that_is_no_section_is_named(
    manifest: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(f"{{apiVersion: xray.training/v1alpha1, kind: XRayTrainingJob, {manifest}}}")
    assert run(["submit", "-f", str(file), "--dry-run=client", "-n", "x", "--path=p", "--max-time=5m"]) == 1
    assert capsys.readouterr() == ("", f"error: {file}: {told}\n")


def test_flags_fill_sections_that_are_left_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "job.yaml"
    spec = "{flavor: x, dataset: , limits: , model: }"
    file.write_text(f"{{apiVersion: xray.training/v1alpha1, kind: XRayTrainingJob, metadata: , spec: {spec}}}")
    flags = ["--name=a", "--claim=nih", "--results=out", "--model=m", "--max-time=5m", "-o", "name"]
    assert run(["submit", "-f", str(file), "--dry-run=client", "-n", "x", *flags]) == 0
    assert capsys.readouterr().out == "xraytrainingjob.xray.training/a\n"
