"""How far a job is, read from its status: for bars, lines and exit codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from xray_operator.core.conditions import find_condition
from xray_operator.names import ACTIVE_STATES, PENDING, READY, STALLED, SUCCEEDED

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Standing:
    """What a line has room for; None where it is not known."""

    name: str
    state: str
    message: str
    """Of condition Ready: what it waits for, how it ended."""
    percentage: int | None
    eta: str | None
    loss: str | None
    auroc: str | None
    """On held-out patients; until that is known, on those of the validation."""
    cost: str | None
    verdict: int | None
    """Exit code of who waited for it: 0 succeeded, 1 won't go on without an edit; None: it goes on."""

    @property
    def figures(self) -> str:
        """loss 0.2207, AUROC 0.7123, 0.28 USD, 4m10s left."""
        told = [
            f"loss {self.loss}" if self.loss else "",
            f"AUROC {self.auroc}" if self.auroc else "",
            self.cost or "",
            f"{self.eta} left" if self.eta else "",
        ]
        return ", ".join(filter(None, told))

    @property
    def line(self) -> str:
        """For logs and pipes."""
        if self.state not in ACTIVE_STATES:
            return f"{self.name}: {self.state}" + (f": {self.message}" if self.message else "")
        share = "" if self.percentage is None else f" {self.percentage}%"
        return f"{self.name}: {self.state}{share}" + (f", {self.figures}" if self.figures else "")

    @property
    def news(self) -> tuple[object, ...]:
        """Two standings with the same news are not worth two lines of a log: a clock has run on, or some steps."""
        share = None if self.percentage is None else self.percentage // 10
        return self.state, share, self.message if self.state not in ACTIVE_STATES else None


def read_standing(job: Raw) -> Standing:
    """Of an XRayTrainingJob as the API server has it."""
    status: Raw = job.get("status", {})
    trainer: Raw = status.get("trainerStatus", {})
    results: Raw = status.get("results", {})
    metrics = {row["name"]: f"{Decimal(row['value']):.4f}" for row in trainer.get("metrics", ())}
    return Standing(
        name=job["metadata"]["name"],
        state=status.get("state", PENDING),
        message=find_condition(status, READY).get("message", ""),
        percentage=trainer.get("progressPercentage"),
        eta=trainer.get("eta"),
        loss=results.get("loss") or metrics.get("loss"),
        auroc=results.get("aurocMacro") or metrics.get("validation_auroc_macro"),
        cost=status.get("cost", {}).get("display"),
        verdict=verdict_of(job),
    )


def verdict_of(job: Raw) -> int | None:
    """Standing.verdict. A status that speaks of an older spec decides nothing."""
    status: Raw = job.get("status", {})
    if status.get("observedGeneration") != job["metadata"].get("generation"):
        return None
    if status.get("state") == SUCCEEDED:
        return 0
    return 1 if find_condition(status, STALLED).get("status") == "True" else None
