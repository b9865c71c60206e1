"""The tables in docs/cost.md are made of prices that are called invented; the commands in docs/compare.md exist."""

from __future__ import annotations

import re

import pytest
import typer
import yaml
from typer.main import get_command

from dev import comparison
from tests.contract.schemas import REPOSITORY
from xray_cli.__main__ import app

PAGE = (REPOSITORY / "docs" / "cost.md").read_text()
GUIDE = (REPOSITORY / "docs" / "compare.md").read_text()
FLAVORS = REPOSITORY / "examples" / "compare" / "flavors.yaml"


def test_the_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    comparison.main()
    assert capsys.readouterr().out == PAGE, "run make generate"


def test_every_price_of_the_tables_is_called_invented() -> None:
    prices = [price for flavor in yaml.safe_load_all(FLAVORS.read_text()) for price in flavor["spec"]["prices"]]
    assert len(prices) == 4
    assert {price["source"] for price in prices} == {"invented for the example"}
    introduction = PAGE.partition(comparison.BEGIN)[0].rpartition("\n## ")[2]
    assert "**the prices are invented**" in introduction


def test_the_figures_that_the_page_names_are_those_of_its_tables() -> None:
    made, words = PAGE.partition(comparison.BEGIN)[2].split(comparison.END)
    crossing = next(line.split() for line in made.splitlines() if line.startswith("vpod16-bm   vpod4-vm"))
    time, money = crossing[3], crossing[5]
    assert f"from {time} images on" in words
    assert f"from {money} on" in words


def test_the_commands_of_the_guide_parse() -> None:
    examples = re.findall(r"^\$ kubectl xray (\w+)([^|\n]*)", GUIDE, re.MULTILINE)
    assert len(examples) > 2
    for name, rest in examples:
        command = get_command(app).get_command(typer.Context(get_command(app)), name)  # type: ignore[attr-defined]
        command.make_context(name, rest.split(), resilient_parsing=False)
