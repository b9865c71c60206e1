"""docs/cli.md is what its generator makes of the commands, and every command of its examples is one that there is."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import typer
from typer.main import get_command

from dev import cli
from tests.contract.schemas import REPOSITORY
from xray_cli.__main__ import COMMANDS, app
from xray_cli.examples import EXAMPLES
from xray_cli.findings import judge_crd, known_schema
from xray_cli.shipped import known_crds

PAGE = (REPOSITORY / "docs" / "cli.md").read_text()


def test_the_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main()
    assert capsys.readouterr().out == PAGE, "run make generate"


def test_every_command_has_a_section() -> None:
    assert re.findall(r"^### (.*)$", PAGE, re.MULTILINE) == [*COMMANDS, "Common options"]


def test_doctor_is_shown_with_the_fields_that_there_are() -> None:
    for crd in known_crds().values():
        found = judge_crd(crd, known_schema(crd))
        assert re.search(rf"^{found.check} +{found.state} +{found.message}$", PAGE, re.MULTILINE)


def test_the_list_of_commands_cuts_nothing_on_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    context = typer.Context(get_command(app), info_name="kubectl xray")
    assert "..." not in get_command(app).get_help(context).partition("Commands:")[2]


def test_the_examples_parse() -> None:
    assert [*EXAMPLES] == [*COMMANDS], "the help of each has some"
    helped = re.findall(r"kubectl xray (\w+)([^|)\n]*)", "\n".join(EXAMPLES.values()))
    told = re.findall(r"^\$ kubectl xray (\w+)([^|\n]*)", PAGE, re.MULTILINE)
    assert len(told) > 4
    for name, rest in (*helped, *told):
        command = get_command(app).get_command(typer.Context(get_command(app)), name)  # type: ignore[attr-defined]
        command.make_context(name, rest.split(), resilient_parsing=False)


def test_help_waits_for_none_of_the_large_packages() -> None:
    """What one command needs, another doesn't wait for."""
    code = (
        "import sys; from xray_cli.__main__ import run; run(['list', '--help']); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": "operator"},
        cwd=REPOSITORY,
    )
    loaded = set(done.stderr.split())
    assert "xray_cli.commands.listing" in loaded
    assert not loaded & {"kubernetes", "rich", "xray_operator.core.spec", "xray_cli.commands.submit"}
