"""A watch that missed something is noticed, and one that is only slow is not."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from tests.unit.operator.builders import UID, make_job
from tests.unit.operator.test_workers import FakeCluster, make_operator
from xray_operator.cluster.client import Cluster
from xray_operator.core.listing import Listing, missed_events
from xray_operator.errors import ClusterError, MissedEvent

BEFORE = Listing(100, {"a": 90, "b": 95})


@pytest.mark.parametrize(
    ("after", "shown", "missed"),
    [
        ({"a": 90, "b": 95}, {"a": 90, "b": 95}, []),
        ({"a": 120, "b": 95}, {"a": 90, "b": 95}, []),
        ({"a": 90, "b": 95, "new": 130}, {"a": 90, "b": 95}, []),
        ({"a": 90}, {"a": 90, "b": 95}, []),
        ({"a": 90}, {"a": 90}, []),
        ({"a": 90, "b": 95}, {"a": 90, "b": 95, "new": 101}, []),
        ({"a": 90, "b": 95}, {"a": 90, "b": 94}, ["version 95 of b was not shown"]),
        ({"a": 90, "b": 95}, {"a": 90}, ["version 95 of b was not shown"]),
        ({"a": 90, "b": 95}, {"a": 90, "b": 95, "ghost": 80}, ["the end of ghost was not shown"]),
    ],
)
def test_what_the_watch_had_time_to_show_is_missed(
    after: dict[str, int], shown: dict[str, int], missed: list[str]
) -> None:
    assert list(missed_events(BEFORE, Listing(150, after), shown)) == missed


class Server(FakeCluster):
    """Lists no object of any kind, at ever later versions."""

    version = 100

    async def list_versions(self, path: str, label: str | None = None) -> Listing:
        self._told("GET", path)
        assert (label == "xray.training/job-uid") == (not path.endswith("/xraytrainingjobs"))
        self.version += 1
        return Listing(self.version, {})


async def test_a_ghost_ends_the_process_at_the_second_list_and_an_unanswered_list_does_not() -> None:
    server: Any = Server()
    operator = make_operator(server, make_job().raw())  # version 100, and the server has no such job
    await operator._compare()
    server.errors["GET"] = ClusterError("x", 500, "")
    await operator._compare()
    server.errors.clear()
    with pytest.raises(MissedEvent, match=f"XRayTrainingJob: the end of {UID} was not shown"):
        await operator._compare()


async def test_an_empty_list_that_the_server_writes_as_null_is_empty() -> None:
    """As it does for metadata alone; the process used to end there."""

    async def nothing(_: web.Request) -> web.Response:
        return web.json_response({"metadata": {"resourceVersion": "101"}, "items": None})

    application = web.Application()
    application.router.add_get("/{path:.*}", nothing)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    cluster = Cluster(ApiClient(Configuration(host=site.name)), 5)
    assert await cluster.list_versions("/api/v1/pods") == Listing(101, {})
    await cluster.close()
    await runner.cleanup()
