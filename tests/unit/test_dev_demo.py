"""What `make demo` makes of its environment and of the job's status."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dev.demo.__main__ import Stopwatch, table
from tests.contract.schemas import crd_schema, walk

STATUS: dict[str, Any] = {
    "state": "Succeeded",
    "runsOn": "torch backend, ran on the CPU",
    "results": {"aurocMacro": "0.8732", "findingsEvaluated": 14, "loss": "0.21", "lossFloor": "0.38"},
    "data": {"images": 800, "patients": 287, "rejected": 0},
    "cost": {"display": "0.13 USD"},
    "run": {"claimName": "results", "folder": "demo-e5be4d712665"},
    "times": {
        "evaluating": {"seconds": 2},
        "preparing": {"seconds": 8},
        "queued": {"seconds": 1},
        "training": {"seconds": 44},
    },
}
"""As the API server gives it: by the alphabet."""


def paths(value: dict[str, Any], where: str) -> Iterator[str]:
    for name, inner in value.items():
        yield f"{where}.{name}"
        if isinstance(inner, dict):
            yield from paths(inner, f"{where}.{name}")


def test_the_status_of_these_tests_is_one_that_there_is() -> None:
    assert set(paths(STATUS, "status")) <= dict(walk(crd_schema("XRayTrainingJob", "status"), "status")).keys()


def test_the_table_says_where_the_outputs_are() -> None:
    assert "claim results, folder demo-e5be4d712665" in table({"status": STATUS}, Stopwatch())


def test_phases_stand_in_the_order_in_which_they_were() -> None:
    rows = table({"status": STATUS}, Stopwatch()).splitlines()
    phases = [row.split(":")[1].split()[0] for row in rows if row.startswith("  of the job")]
    assert phases == ["queued", "preparing", "training", "evaluating"]
