"""A crash at any moment loses nothing: the operator is killed after each of its writes in turn.

The write has reached the API server, its answer never reaches the operator. Another process goes on. Whatever the
moment, the end is the same: the same children, the same status, each event once.
"""

from __future__ import annotations

import asyncio
import signal
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import make_namespace, remove_namespace
from tests.integration.life import Life, conditions
from tests.integration.trial import Story, trial

pytestmark = pytest.mark.integration
SIDE_BY_SIDE = 3
MOST_WRITES = 60
"""A run makes about 15; many more would be a defect of its own."""


@dataclass
class Outcome:
    """A run's end, with everything that differs from run to run replaced by words."""

    writes: list[str]
    killed: bool
    end: dict[str, Any]


async def test_a_kill_after_any_write_changes_nothing(kubeconfig: Path, tmp_path: Path) -> None:
    reference = await live(kubeconfig, tmp_path, 0)
    assert not reference.killed
    check_reference(reference.end)
    last, k = MOST_WRITES, 1
    while k <= last:
        batch = range(k, min(k + SIDE_BY_SIDE, last + 1))
        for number, outcome in zip(
            batch, await asyncio.gather(*(live(kubeconfig, tmp_path, n) for n in batch)), strict=True
        ):
            assert outcome.end == reference.end, f"killed after write {number}: {outcome.writes}"
            if not outcome.killed:
                last = min(last, number - 1)
        k += SIDE_BY_SIDE
    assert len(reference.writes) - 2 <= last < MOST_WRITES
    print(f"\n{last} writes, killed after each: {[w.split('/')[-1] for w in reference.writes]}")


def check_reference(end: dict[str, Any]) -> None:
    """The undisturbed run is as it should be; the others are compared with it."""
    status = end["status"]
    assert [len(end[kind]) for kind in ("jobs", "configMaps", "pods")] == [1, 1, 1]
    told = {c["type"]: c["reason"] if c["status"] == "True" else c["status"] for c in status["conditions"]}
    assert told == {
        "Accepted": "Accepted",
        "DataReady": "Prepared",
        "Running": "False",
        "Succeeded": "Completed",
        "Suspended": "False",
        "Reconciling": "False",
        "Stalled": "False",
        "Ready": "Completed",
    }
    assert {phase: span["seconds"] for phase, span in status["times"].items()} == {
        "queued": 10,
        "preparing": 30,
        "training": 60,
        "evaluating": 10,
    }
    assert status["cost"]["heldSeconds"] == 100
    assert status["cost"]["total"] == "0.2361"
    assert status["results"]["aurocMacro"] == "0.5124"
    reasons = ["Accepted", "Created", "DataReady", "FindingsAbsent", "Succeeded", "Training"]
    assert [event["reason"] for event in end["events"]] == reasons


async def test_a_kill_while_a_run_is_stopped_resumed_or_replaced_leads_to_the_same_end(
    kubeconfig: Path, tmp_path: Path
) -> None:
    reference = await live(kubeconfig, tmp_path, 0, Life.live_through_stops, runs=2)
    assert acts(reference.writes) == ["POST", "POST", "PATCH", "PATCH", "DELETE", "POST", "POST"]
    assert [row["state"] for row in reference.end["status"]["formerRuns"]] == ["Stopped"]
    assert {"Suspended", "Resumed", "Superseded"} <= {event["reason"] for event in reference.end["events"]}
    moments = [number for number, write in enumerate(reference.writes, 1) if is_act(write)]
    for start in range(0, len(moments), SIDE_BY_SIDE):
        batch = moments[start : start + SIDE_BY_SIDE]
        lives = [live(kubeconfig, tmp_path, number, Life.live_through_stops, runs=2) for number in batch]
        for number, outcome in zip(batch, await asyncio.gather(*lives), strict=True):
            assert without_bill(outcome.end) == without_bill(reference.end), (
                f"killed after {number}: {acts(outcome.writes)}"
            )
            assert len([act for act in acts(outcome.writes) if act == "POST"]) == 4, "each child was made once"


def is_act(write: str) -> bool:
    """Whether a write makes, changes or deletes a child."""
    return "/jobs" in write or "/configmaps" in write


def acts(writes: list[str]) -> list[str]:
    return [write.split()[0] for write in writes if is_act(write)]


def without_bill(end: dict[str, Any]) -> dict[str, Any]:
    """Without what is lost if nobody is there to see a deleted pod's end: its last seconds."""
    status = {
        k: v for k, v in end["status"].items() if k not in ("cost", "attempts", "times", "formerRuns", "conditions")
    }
    truths = conditions(end["status"])
    milestones = sorted({event["reason"] for event in end["events"]} - {"AttemptStopped"})
    return end | {"status": status, "truths": truths, "events": milestones}


async def live(
    kubeconfig: Path, folder: Path, kill_after: int, story: Story = Life.live_through, runs: int = 1
) -> Outcome:
    """A story in a namespace of its own, with a kill after write number kill_after (0: none)."""
    namespace, place = f"kill-{kill_after}-{uuid.uuid4().hex[:6]}", folder / str(kill_after)
    place.mkdir()
    make_namespace(kubeconfig, namespace)
    try:
        async with trial(kubeconfig, namespace, place, f"127.77.0.{kill_after + 1}") as tried:

            def after_write(number: int) -> bool:
                if number == kill_after:
                    tried.operator.kill()
                return number == kill_after

            tried.proxy.after_write = after_write
            end = await tried.live(story, runs)
            killed = 0 < kill_after <= len(tried.proxy.writes)
            assert tried.codes == ([-signal.SIGKILL] if killed else []), f"it ended by itself: {tried.log[-4000:]}"
            return Outcome(tried.proxy.writes, killed, end)
    finally:
        remove_namespace(kubeconfig, namespace)
