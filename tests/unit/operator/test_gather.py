"""Which pods are asked for their progress."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.unit.operator.builders import (
    CONFIG,
    JOB_NAME,
    UID,
    PodBuilder,
    created_config_map,
    example,
    make_job,
    make_pod,
    stored_job,
)
from xray_operator.gather import Gatherer
from xray_operator.index import Index

IP = "127.66.0.3"


class OneConfigMap:
    """A server that has the run's record and nothing else."""

    async def get(self, _: str) -> dict[str, Any]:
        return created_config_map()


@pytest.mark.parametrize(
    ("pod", "asked"),
    [
        (make_pod().scheduled(10).prepare_waits("PodInitializing"), False),
        (make_pod().scheduled(10).prepares(12), True),
        (make_pod().scheduled(10).prepared(12, 40), False),
        (make_pod().scheduled(10).prepared(12, 40).trains(42), True),
        (make_pod().scheduled(10).prepared(12, 40).trained(42, 110), False),
        (make_pod().scheduled(10).prepared(12, 40).trains(42).disrupted(60), False),
    ],
)
async def test_the_container_that_runs_is_asked(pod: PodBuilder, asked: bool) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=example("progress.json"))

    application = web.Application()
    application.router.add_get("/progress", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, IP, 9400).start()
    raw_job, raw_pod = stored_job(), pod.raw()
    raw_pod["status"]["podIP"] = IP
    index = Index(batch_jobs={UID: [raw_job]}, pods={UID: [raw_pod]})
    cluster: Any = OneConfigMap()
    async with aiohttp.ClientSession() as session:
        observed = await Gatherer(index, cluster, session, CONFIG).observe(make_job().build())
    await runner.cleanup()
    assert (observed.progress is not None) == asked


async def test_a_record_that_was_replaced_is_noticed() -> None:
    index, unused = Index(batch_jobs={UID: [stored_job()]}), None
    gatherer = Gatherer(index, OneConfigMap(), unused, CONFIG)  # type: ignore[arg-type]
    observed = await gatherer.observe(make_job().build())
    assert observed.snapshot is not None
    run = {"jobName": JOB_NAME, "recordDigest": observed.snapshot.digest}
    same = await gatherer.observe(make_job().status({"run": run}).build())
    assert same.unreadable is None
    other = await gatherer.observe(make_job().status({"run": run | {"recordDigest": "sha256:0"}}).build())
    assert other.unreadable is not None
    assert "is another one than when the run began" in other.unreadable.why
