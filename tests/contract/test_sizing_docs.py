"""docs/sizing.md is what its generator makes of it; its table keeps the rules, and its words are the operator's."""

from __future__ import annotations

import re

import pytest
import yaml

from dev import sizing
from tests.contract.schemas import REPOSITORY
from xray_operator.core.ipu_config import parse_overrides
from xray_operator.core.partition import size_on_ipus
from xray_operator.core.spec import Ipu, Training

PAGE = (REPOSITORY / "docs" / "sizing.md").read_text()
TABLE = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in PAGE.split(sizing.BEGIN)[1].split(sizing.END)[0].splitlines()[2:]
    if line
]


def test_the_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    sizing.main()
    assert capsys.readouterr().out == PAGE, "run make generate"


def test_every_partition_and_every_model_is_in_the_table() -> None:
    rows = [(name, int(row[1])) for row in TABLE for name in row[0].split(", ")]
    assert sorted(rows) == sorted((name, 2**power) for name in ("tiny", "small", "base") for power in range(7))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]} on {row[1]}")
def test_a_row_keeps_the_rules(row: list[str]) -> None:
    ipus, (replicas, stages) = int(row[1]), map(int, row[2].split(" of "))
    assert replicas * stages == ipus
    layers = [int(count) for count in row[3].split(", ")]
    assert (len(layers), sum(layers)) == (stages, 12)
    smallest, keep, batch, updates, linear, grown, fewer = map(int, row[4:11])
    assert smallest == replicas * (2 * stages - 1) <= batch == 128
    assert (keep * replicas, linear, grown) == (128, 128, 128 * replicas)
    assert (updates, fewer) == (106514 // 128, 106514 // grown)
    assert float(row[11]) == pytest.approx(2e-4 * replicas)
    assert float(row[12]) == pytest.approx(2e-4 * replicas**0.5, rel=1e-2)


def test_the_refusal_on_the_page_is_the_operators() -> None:
    problems = size_on_ipus(Training(global_batch_size=30), Ipu(), 12, 16)
    assert isinstance(problems, list)
    assert f"    {problems[0]}\n" in PAGE


def test_the_overrides_on_the_page_are_taken() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert parse_overrides(yaml.safe_load(block)["ipu"]["overrides"])
