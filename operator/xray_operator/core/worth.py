"""Whether a status is worth a write: readers want news, not clocks. Called by reconcile."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from xray_operator import names

Status = dict[str, Any]


def is_worth_writing(old: Mapping[str, Any], new: Status, refresh_seconds: float) -> bool:
    """Whether new says more than old, beyond clocks that have run on for less than refresh_seconds."""
    if _without_clocks(old) != _without_clocks(new):
        return True
    ran_on = new.get("cost", {}).get("heldSeconds", 0) - old.get("cost", {}).get("heldSeconds", 0)
    return dict(old) != new and (ran_on >= refresh_seconds or ran_on < 0)


def _without_clocks(status: Mapping[str, Any]) -> Status:
    ticking = ("estimatedRemainingSeconds", "eta", "metrics", "lastUpdatedTime")
    trainer = {k: v for k, v in status.get("trainerStatus", {}).items() if k not in ticking}
    cost = {k: status.get("cost", {}).get(k) for k in ("priced", "currency", "perHour")}
    attempts = [(row["podName"], row.get("finishedAt")) for row in status.get("attempts", ())]
    listed = [_without_numbers(row) for row in status.get("conditions", ())]
    return dict(status) | {"trainerStatus": trainer, "cost": cost, "attempts": attempts, "conditions": listed}


def _without_numbers(condition: Mapping[str, Any]) -> Status:
    """A refusal may count or name each request; if that were news, writing it would bring the next one at once."""
    if condition.get("reason") != names.CREATION_REFUSED:
        return dict(condition)
    return dict(condition) | {"message": re.sub(r"\S*\d\S*", "#", condition.get("message", ""))}
