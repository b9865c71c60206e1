"""Which pods are asked for their progress."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.unit.operator.builders import UID, PodBuilder, created_config_map, example, make_job, make_pod, stored_job
from xray_operator.gather import Gatherer, Index

IP = "127.66.0.3"


class OneConfigMap:
    """A server that has the run's record and nothing else."""

    async def get(self, _: str) -> dict[str, Any]:
        return created_config_map()


async def test_an_event_of_a_pod_that_was_never_delivered_keeps_no_run_from_its_end() -> None:
    class Server(OneConfigMap):
        async def get(self, path: str, query: dict[str, str] | None = None) -> dict[str, Any]:
            if path.endswith("/pods"):
                assert query == {"labelSelector": f"xray.training/job-uid={UID}"}
                return {"items": [make_pod().scheduled(10).prepared(12, 40).trained(42, 110).raw()]}
            return await super().get(path)

    raw_job = stored_job()
    raw_job["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    shown = make_pod().scheduled(10).prepared(12, 40).trains(42).raw()
    cluster, session = Server(), None
    gatherer = Gatherer(Index(batch_jobs={UID: [raw_job]}, pods={UID: [shown]}), cluster, session, 1)  # type: ignore[arg-type]
    observed = await gatherer.observe(make_job().build())
    assert [pod.phase for pod in observed.pods] == ["Succeeded"]


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
        observed = await Gatherer(index, cluster, session, 1).observe(make_job().build())
    await runner.cleanup()
    assert (observed.progress is not None) == asked
