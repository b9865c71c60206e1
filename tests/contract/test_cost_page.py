"""The worked example of docs/cost.md is what the operator writes, to the last digit."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from tests.unit.operator.builders import (
    PodBuilder,
    at,
    decide,
    make_flavor,
    make_pod,
    make_progress,
    started,
    told,
    train_result,
)
from tests.unit.operator.test_preparation import PREPARATION
from xray_operator import names
from xray_operator.core.attempts import render_time
from xray_operator.core.cost import amount_of
from xray_operator.core.observed import Observed
from xray_operator.core.spec import Price

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cost.md").read_text()
DEAR, CHEAP, SHOWN = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
STATUS = SHOWN["status"]
CLAIMED = 6300
"""The second at which the flavor is held for the first time."""


def seen(*pods: PodBuilder, **fields: Any) -> Observed:
    """What the operator sees of a run on the page's flavor, for which a Job of its own has prepared."""
    assert PREPARATION is not None
    observed = started(*pods, flavor=make_flavor(prices=DEAR["prices"]), **fields)
    assert observed.job is not None
    cheap = PREPARATION.model_copy(update={"price": Price.model_validate(CHEAP["prices"][0])})
    snapshot = observed.job.snapshot.model_copy(update={"preparation": cheap})
    return replace(observed, snapshot=snapshot, job=replace(observed.job, snapshot=snapshot))


def first_pod() -> PodBuilder:
    return make_pod("vit-nih-1", CLAIMED).scheduled(CLAIMED).prepared(CLAIMED + 25, CLAIMED + 30)


def written() -> dict[str, Any]:
    prepared = {"state": "Preparing", "preparation": STATUS["preparation"]}
    saved = {"step": 300, "time": render_time(at(CLAIMED + 200))}
    training = seen(first_pod().trains(CLAIMED + 32), progress=make_progress(checkpoint=saved))
    known = told(decide(training, prepared, now=CLAIMED + 210))
    killed = first_pod().trained(CLAIMED + 32, CLAIMED + 240, 137, "")
    failed = told(decide(seen(killed), known, now=CLAIMED + 241))
    second = make_pod("vit-nih-2", 6549).scheduled(6550).prepared(6553, 6558)
    second = second.trained(6560, 7120, message=train_result(evaluating=7060))
    return told(decide(seen(killed, second, end="Complete"), failed, now=7125))


def test_the_worked_example_is_what_the_operator_writes() -> None:
    status = written()
    assert {**STATUS["cost"], "price": status["cost"]["price"]} == status["cost"]
    left_out = ("startedAt", "finishedAt", "message")
    assert STATUS["attempts"] == [
        {name: told_of for name, told_of in row.items() if name not in left_out} for row in status["attempts"]
    ]


def test_what_the_example_says_of_preparation_is_right() -> None:
    prepared = STATUS["preparation"]
    assert Decimal(prepared["amount"]) == amount_of(prepared["seconds"], Price.model_validate(CHEAP["prices"][0]))
    held_instead = amount_of(prepared["seconds"], Price.model_validate(DEAR["prices"][0]))
    assert f"would have cost {held_instead}." in PAGE


def test_every_phase_is_told_of() -> None:
    phases = {names.QUEUED, *names.HELD_PHASES, names.ROUNDED_UP, *names.PAID_PREPARATIONS.values()}
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    assert {phase for row in rows for phase in re.findall(r"`(\w+)`", row)} == phases
