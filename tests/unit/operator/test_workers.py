"""Queue, freshness and the boundary around one look at one job, against a server in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.unit.operator.builders import (
    CONFIG,
    UID,
    at,
    condition,
    created_config_map,
    make_flavor,
    make_job,
    stored_job,
)
from xray_operator.cluster.execute import create_child
from xray_operator.cluster.paths import item_of
from xray_operator.errors import AlreadyExists, ClusterError, Conflict, NotFound, Refused
from xray_operator.freshness import CHILD_SECONDS, Freshness
from xray_operator.gather import Gatherer
from xray_operator.index import Index
from xray_operator.metrics import Metrics
from xray_operator.work_queue import WorkQueue
from xray_operator.workers import Operator, is_due


class FakeCluster:
    """Keeps what is created; answers an error where it is told to."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.errors: dict[str, ClusterError] = {}
        self.calls: list[str] = []
        self.written: dict[str, Any] = {}
        """The latest status."""

    async def get(self, path: str, _: Any = None) -> dict[str, Any]:
        self._told("GET", path)
        if path.split("/")[-2] == "persistentvolumeclaims":
            return {"metadata": {}, "spec": {"accessModes": ["ReadWriteMany"]}}
        if path not in self.objects:
            raise NotFound(path, 404, "")
        return self.objects[path]

    def writes(self) -> list[str]:
        return [call for call in self.calls if not call.startswith("GET")]

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._told("POST", path)
        item = f"{path}/{body['metadata']['name']}"
        if item in self.objects:
            raise AlreadyExists(item, 409, "")
        self.objects[item] = body
        return body

    async def replace(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._told("PUT", path)
        self.written = body["status"]
        return {"metadata": {"resourceVersion": "101"}}

    async def merge(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._told("PATCH", path)
        self.objects[path]["metadata"]["labels"] = body["metadata"]["labels"]
        return self.objects[path]

    def _told(self, method: str, path: str) -> None:
        call = f"{method} {path.split('/')[-1] if method != 'GET' else path}"
        self.calls.append(call)
        for known in (method, call):
            if known in self.errors:
                raise self.errors[known]


def make_operator(cluster: FakeCluster, *jobs: dict[str, Any]) -> Operator:
    index = Index(jobs={raw["metadata"]["uid"]: [raw] for raw in jobs})
    index.flavors = {"demo-vpod4": [{"spec": make_flavor()}]}
    session: Any = None
    typed: Any = cluster
    return Operator(
        config=CONFIG,
        cluster=typed,
        gatherer=Gatherer(index, typed, session, CONFIG.model_copy(update={"progress_timeout_seconds": 0.1})),
        index=index,
        metrics=Metrics("test", index.all_jobs, lambda: 0),
        queue=WorkQueue(),
        freshness=Freshness(0.0),
        clock=lambda: at(1),
    )


async def run_until_idle(operator: Operator) -> None:
    worker = asyncio.create_task(operator.work())
    while len(operator.queue) or operator.queue.busy:
        await asyncio.sleep(0)
    worker.cancel()


def failures(operator: Operator) -> float | None:
    return operator.metrics.registry.get_sample_value("xray_training_reconcile_failures_total")


async def test_a_new_job_gets_config_map_and_job_in_one_look() -> None:
    cluster = FakeCluster()
    raw = make_job().raw()
    operator = make_operator(cluster, raw)
    operator.queue.add(raw["metadata"]["uid"])
    await run_until_idle(operator)
    assert cluster.writes() == ["POST configmaps", "POST jobs"]
    assert failures(operator) == 0


async def test_a_poisoned_job_hurts_only_itself() -> None:
    cluster = FakeCluster()
    poisoned, healthy = make_job("bad").raw(), make_job("good").raw()
    poisoned["metadata"] |= {"uid": "bad", "creationTimestamp": "not a time"}
    operator = make_operator(cluster, poisoned, healthy)
    for uid in ("bad", healthy["metadata"]["uid"]):
        operator.queue.add(uid)
    await run_until_idle(operator)
    assert cluster.writes() == ["POST configmaps", "POST jobs"]
    assert failures(operator) == 1


@pytest.mark.parametrize(("error", "counted"), [(ClusterError("x", 500, ""), 1), (Conflict("x", 409, ""), 0)])
async def test_what_the_server_refuses_is_tried_again(error: ClusterError, counted: int) -> None:
    cluster = FakeCluster()
    cluster.errors["POST"] = error
    raw = make_job().raw()
    operator = make_operator(cluster, raw)
    operator.queue.add(raw["metadata"]["uid"])
    await run_until_idle(operator)
    assert failures(operator) == counted
    assert operator.queue.retry(raw["metadata"]["uid"]) == 1.0, "the second pause is longer than the first"


async def test_what_the_server_says_at_length_is_logged_in_short(caplog: pytest.LogCaptureFixture) -> None:
    cluster = FakeCluster()
    cluster.errors["POST"] = ClusterError("POST /jobs", 500, "etcd is away " * 1000)
    operator = make_operator(cluster, make_job().raw())
    operator.queue.add(UID)
    await run_until_idle(operator)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "POST /jobs: 500 etcd is away" in line
    assert len(line) < 700


@pytest.mark.parametrize(("kind", "status"), [("configmaps", 403), ("jobs", 422)])
async def test_a_child_that_the_server_refuses_is_told_in_the_status(kind: str, status: int) -> None:
    cluster = FakeCluster()
    cluster.errors[f"POST {kind}"] = Refused("POST /jobs", status, "exceeded quota: no-jobs " + "x" * 2000)
    raw = make_job().raw()
    operator = make_operator(cluster, raw)
    operator.queue.add(raw["metadata"]["uid"])
    await run_until_idle(operator)
    assert failures(operator) == 0
    assert cluster.writes()[-3:] == [f"POST {kind}", "POST events", "PUT status"]
    words = condition(cluster.written, "Accepted")
    assert words[:2] == ("False", "CreationRefused")
    assert "exceeded quota: no-jobs" in words[2]
    assert len(words[2]) < 700
    del cluster.errors[f"POST {kind}"]
    cluster.calls.clear()
    operator.freshness.saw(raw["metadata"]["uid"], "101")
    operator.queue.add(raw["metadata"]["uid"])
    await run_until_idle(operator)
    assert cluster.calls[-1] == "POST jobs"
    assert [raw["kind"] for raw in cluster.objects.values() if raw["kind"] != "Event"] == ["ConfigMap", "Job"]


async def test_a_config_map_without_its_record_is_told_in_the_status() -> None:
    cluster = FakeCluster()
    raw = make_job().raw()
    spoilt = created_config_map() | {"data": {}}
    cluster.objects[item_of(spoilt)] = spoilt
    operator = make_operator(cluster, raw)
    operator.queue.add(raw["metadata"]["uid"])
    await run_until_idle(operator)
    assert failures(operator) == 0
    assert condition(cluster.written, "Stalled")[:2] == ("True", "RecordUnreadable")


async def test_a_job_without_its_record_is_told_in_the_status() -> None:
    cluster = FakeCluster()
    raw, orphan = make_job().raw(), stored_job()
    operator = make_operator(cluster, raw)
    operator.index.batch_jobs = {raw["metadata"]["uid"]: [orphan]}
    operator.queue.add(raw["metadata"]["uid"])
    await run_until_idle(operator)
    assert failures(operator) == 0
    assert condition(cluster.written, "Stalled")[:2] == ("True", "RecordUnreadable")


async def test_a_child_that_is_there_is_ours_only_by_its_owner_and_gets_its_labels_back() -> None:
    cluster = FakeCluster()
    manifest = {
        "kind": "Job",
        "metadata": {
            "name": "cxr-1",
            "namespace": "n",
            "labels": {"a": "b"},
            "ownerReferences": [{"uid": "u", "controller": True}],
        },
    }
    typed: Any = cluster
    assert await create_child(typed, manifest, "u") is not None
    (stored,) = cluster.objects.values()
    cluster.objects = {
        path: raw | {"metadata": raw["metadata"] | {"labels": {}}} for path, raw in cluster.objects.items()
    }
    found = await create_child(typed, manifest, "u")
    assert found is not None
    assert found["metadata"]["labels"] == {"a": "b"}
    assert await create_child(typed, manifest, "other") is None
    assert stored["metadata"]["labels"] == {"a": "b"}


async def test_a_key_is_with_one_worker_at_a_time_and_comes_again_if_it_was_added_meanwhile() -> None:
    queue = WorkQueue()
    queue.add("a")
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.01)
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert not queue.busy


def test_what_we_hold_is_stale_until_the_watch_shows_our_write() -> None:
    fresh = Freshness(heard_at=0)
    fresh.wrote("a", "101", 10)
    fresh.saw("a", "100")
    assert fresh.is_stale("a", 11)
    assert fresh.silent_seconds(70) == 70
    fresh.saw("a", "102")
    assert not fresh.is_stale("a", 11)


def test_the_watch_may_be_faster_than_the_answer() -> None:
    fresh = Freshness(heard_at=0)
    fresh.saw("a", "101")
    fresh.wrote("a", "101", 10)
    assert not fresh.is_stale("a", 11)
    fresh.saw_child("a")
    fresh.made_child("a", 10)
    assert not fresh.is_stale("a", 11)


def test_a_job_that_never_shows_up_is_looked_for_after_a_while() -> None:
    fresh = Freshness(heard_at=0)
    fresh.made_child("a", 10)
    assert fresh.is_stale("a", 11)
    assert not fresh.is_stale("a", 10 + CHILD_SECONDS)


def test_deafness_is_the_longest_silence() -> None:
    fresh = Freshness(heard_at=0)
    fresh.heard(50)
    assert fresh.silent_seconds(60) == 10
    fresh.wrote("a", "1", 20)
    assert fresh.silent_seconds(60) == 40
    fresh.gone("a")
    assert fresh.silent_seconds(60) == 10


async def test_a_pod_that_answers_too_much_or_not_at_all_has_told_nothing() -> None:
    from aiohttp import web

    from xray_operator.cluster import progress

    async def flood(_: web.Request) -> web.Response:
        return web.Response(body=b" " * (progress.MOST_BYTES + 1))

    application = web.Application()
    application.router.add_get("/progress", flood)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.66.0.1", 9400).start()
    async with aiohttp.ClientSession() as session:
        assert await progress.fetch_progress(session, "127.66.0.1", 9400, 1) is None
        assert await progress.fetch_progress(session, "127.66.0.2", 9400, 1) is None
    await runner.cleanup()


@pytest.mark.parametrize(
    ("state", "limits", "each_pass", "some_passes"),
    [
        ("Training", {}, True, True),
        ("Queued", {}, False, True),
        ("Queued", {"queueSeconds": 60}, True, True),
        ("Suspended", {"queueSeconds": 60}, False, True),
        ("Succeeded", {}, False, False),
    ],
)
def test_what_may_reach_a_limit_is_looked_at_in_every_pass(
    state: str, limits: dict[str, int], each_pass: bool, some_passes: bool
) -> None:
    raw = make_job().spec(limits=limits).status({"state": state}).raw()
    assert is_due(raw, including_idle=False) == each_pass
    assert is_due(raw, including_idle=True) == some_passes
