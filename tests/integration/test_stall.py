"""A run whose trainer says that nothing moves, on a real control plane: its pod is evicted, and the Job makes another."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.integration.cluster_access import apply
from tests.integration.kubelet import Kubelet
from tests.integration.life import Trainer, claim, conditions, example, xray_job
from tests.integration.stage import JOBS, Stage, operating

pytestmark = pytest.mark.integration

MOVES = example("progress.json") | {"phases": []}
STANDS_STILL = MOVES | {"last_updated_time": "2026-11-22T10:00:39Z", "time": "2026-11-22T10:01:40Z"}
"""For 61 seconds, by the trainer's own clock."""
RESULT = example("result.json") | {"phases": []}
LIMITS = {"noProgressSeconds": 60, "onStall": "Restart"}


@pytest.fixture
async def stage(kubeconfig: Path, namespace: str, tmp_path: Path) -> AsyncIterator[Stage]:
    assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    async with operating(kubeconfig, namespace, tmp_path) as stage:
        yield stage


async def hangs(kubelet: Kubelet) -> None:
    """The pod is told to end, and is killed when its grace is over."""
    await kubelet.is_told_to_end()
    await kubelet.obeys(int(time.time() - kubelet.begin.timestamp()), 137, "")


async def failed_pods(stage: Stage) -> int:
    """As the Job counts them."""
    (raw,) = await stage.life.listed(JOBS)
    return int(raw.get("status", {}).get("failed", 0))


async def test_a_run_that_does_not_move_is_restarted_twice_and_then_stands_still_until_its_limit_is_raised(
    stage: Stage,
) -> None:
    trainer = Trainer(MOVES)
    async with trainer.serve(stage.life.ip):
        job = await stage.life.create(xray_job(stage.namespace, limits=LIMITS))
        begin = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
        for seconds in (-300, -200, -100):
            trainer.answer = MOVES  # a preparation that stands still is told of too
            kubelet = await stage.life.starts_training(begin, seconds)
            trainer.answer = STANDS_STILL
            await hangs(kubelet)
            assert await failed_pods(stage) == 0, "an eviction is no failure that the Job counts"
        stopped = (await stage.life.reached("Stopped"))["status"]
        assert [row["reason"] for row in stopped["attempts"]] == ["NoProgress"] * 3
        assert conditions(stopped)["Stalled"] == ("True", "RestartLimitReached")
        (raw,) = await stage.life.listed(JOBS)
        assert raw["spec"]["suspend"] is True
        trainer.answer = MOVES
        await stage.life.edit(limits={"noProgressSeconds": 3600})
        kubelet = await stage.life.starts_training(begin, int(time.time() - begin.timestamp()))
        await kubelet.train_ends(int(time.time() - begin.timestamp()) + 30, 0, RESULT)
    status = (await stage.life.reached("Succeeded"))["status"]
    assert [row.get("reason") for row in status["attempts"]] == ["NoProgress"] * 3 + [None]
    assert status["cost"]["lostSeconds"] >= 3 * 61, "what stood still was paid for nothing"
    events = await stage.life.events(job["metadata"]["uid"])
    told = [event["reason"] for event in events if event["type"] == "Warning"]
    assert (told.count("NoProgress"), told.count("Stopped")) == (2, 1), "the third time the limit is the news"


async def test_a_run_that_does_not_move_is_only_told_of_where_nobody_asks_for_more(stage: Stage) -> None:
    trainer = Trainer(STANDS_STILL)
    async with trainer.serve(stage.life.ip):
        job = await stage.life.create(xray_job(stage.namespace, limits={"noProgressSeconds": 60}))
        begin = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
        kubelet = Kubelet(stage.life.cluster, stage.namespace, begin, stage.life.ip)
        await kubelet.bind(-300)
        await kubelet.prepare_starts(-299)
        await kubelet.prepare_ends(-280, 0, example("prepare-result.json"))
        await kubelet.train_starts(-279)
        stalled = conditions(await stage.life.says("Stalled", "NoProgress"))
        assert (stalled["Stalled"], stalled["Ready"]) == (("True", "NoProgress"), ("False", "NoProgress"))
        trainer.answer = MOVES
        moving = conditions(await stage.life.says("Stalled", "StallOver"))
        assert (moving["Stalled"], moving["Ready"]) == (("False", "StallOver"), ("True", "Started"))
        assert not [write for write in stage.proxy.writes if "eviction" in write or write.startswith("PATCH")]
