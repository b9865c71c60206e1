"""Whether a status is worth a write: readers want news, not clocks. Called by reconcile."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from xray_operator import names
from xray_operator.core.sections import PREPARATIONS, Status


def is_worth_writing(old: Mapping[str, Any], new: Status, refresh_seconds: float) -> bool:
    """Whether new says more than old, beyond clocks that have run on for less than refresh_seconds."""
    if _without_clocks(old) != _without_clocks(new):
        return True
    ran_on = [now - before for before, now in zip(_held_seconds(old), _held_seconds(new), strict=True)]
    return dict(old) != new and (max(ran_on) >= refresh_seconds or min(ran_on) < 0)


def _held_seconds(status: Mapping[str, Any]) -> list[int]:
    """By the run, and by each of the preparations that it waits for, which go on side by side."""
    prepared = [status.get(section, {}).get("seconds", 0) for section in PREPARATIONS.values()]
    return [status.get("cost", {}).get("heldSeconds", 0), *prepared]


def _without_clocks(status: Mapping[str, Any]) -> Status:
    ticking = ("estimatedRemainingSeconds", "eta", "metrics", "lastUpdatedTime")
    trainer = {k: v for k, v in status.get("trainerStatus", {}).items() if k not in ticking}
    cost = {k: status.get("cost", {}).get(k) for k in ("priced", "currency", "perHour", "projected")}
    attempts = [(r["podName"], r.get("finishedAt"), "stalledSince" in r) for r in status.get("attempts", ())]
    listed = [_without_numbers(row) for row in status.get("conditions", ())]
    budget = {k: status.get("budget", {}).get(k) for k in ("limit", "currency")}
    counts = dict.fromkeys(("archivesDone", "images", "bytesRead", "imagesPerSecond"))
    data = status.get("data", {})
    return dict(status) | {
        "trainerStatus": trainer,
        "cost": cost,
        "budget": budget,
        "attempts": attempts,
        "conditions": listed,
        # until they are over, the share done moves seldom enough to be the news
        "data": data if "digest" in data else {**data, **counts},
        **{section: _without_seconds(status.get(section, {})) for section in PREPARATIONS.values()},
    }


def _without_seconds(preparation: Mapping[str, Any]) -> Mapping[str, Any]:
    if "finishedAt" in preparation:
        return preparation
    attempts = [(row["podName"], row.get("finishedAt")) for row in preparation.get("attempts", ())]
    return {**preparation, **dict.fromkeys(("seconds", "billedSeconds", "amount", "cost")), "attempts": attempts}


def _without_numbers(condition: Mapping[str, Any]) -> Status:
    """A refusal may count or name each request; if that were news, writing it would bring the next one at once."""
    if condition.get("reason") != names.CREATION_REFUSED:
        return dict(condition)
    return dict(condition) | {"message": re.sub(r"\S*\d\S*", "#", condition.get("message", ""))}
