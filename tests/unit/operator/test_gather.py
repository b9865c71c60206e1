"""Which pods are asked for their progress."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.unit.operator.builders import (
    CONFIG,
    JOB_NAME,
    JOB_UID,
    UID,
    JobBuilder,
    PodBuilder,
    created_config_map,
    example,
    make_job,
    make_pod,
    make_run,
    stored_job,
)
from tests.unit.operator.test_model_preparation import FIXED as MODEL_FIXED
from tests.unit.operator.test_preparation import FIXED, data_pod
from xray_operator.core.manifests import build_config_map, build_shared_job
from xray_operator.core.observed import Observed
from xray_operator.core.plan import make_plan
from xray_operator.errors import ClusterError, NotFound, Refused
from xray_operator.gather import Gatherer
from xray_operator.index import Index

IP = "127.66.0.3"


class OneConfigMap:
    """A server that has the run's record and nothing else."""

    def __init__(self, record: dict[str, Any] | None = None) -> None:
        self._record = record or created_config_map()

    async def get(self, _: str, __: Any = None) -> dict[str, Any]:
        return self._record


async def observe(index: Index, cluster: Any, job: JobBuilder, answer: str) -> Observed:
    """What is gathered while the pod at IP answers this."""

    async def tell(_: web.Request) -> web.Response:
        return web.Response(text=example(answer))

    application = web.Application()
    application.router.add_get("/progress", tell)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, IP, 9400).start()
    async with aiohttp.ClientSession() as session:
        observed = await Gatherer(index, cluster, session, CONFIG).observe(job.build())
    await runner.cleanup()
    return observed


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
    raw_job, raw_pod = stored_job(), pod.raw()
    raw_pod["status"]["podIP"] = IP
    index = Index(batch_jobs={UID: [raw_job]}, pods={UID: [raw_pod]})
    observed = await observe(index, OneConfigMap(), make_job(), "progress.json")
    assert (observed.progress is not None) == asked


async def test_who_waits_for_a_preparation_asks_its_pod() -> None:
    plan = make_plan(make_job().build().ref, FIXED)
    assert FIXED.preparation is not None
    raw_job = build_shared_job(plan, FIXED.preparation)
    raw_job["metadata"] |= {"uid": "data-uid", "resourceVersion": "7"}
    name = FIXED.preparation.job_name
    raw_pod = data_pod(prepares=12, ip=IP).raw()
    raw_pod["metadata"] |= {"namespace": "radiology", "labels": {}}
    index = Index(batch_jobs={name: [raw_job]}, pods={name: [raw_pod]})
    began = make_job().status({"rerun": 0, "run": {"jobName": plan.run_name}})
    observed = await observe(index, OneConfigMap(build_config_map(plan)), began, "progress-preparing.json")
    assert observed.progress is not None
    assert observed.progress.data is not None
    assert observed.progress.data.expected_images == 112120


async def test_whose_data_are_there_asks_nobody_who_prepares_them_anew() -> None:
    plan = make_plan(make_job().build().ref, MODEL_FIXED)
    data, _ = MODEL_FIXED.preparations
    raw_job, raw_pod = build_shared_job(plan, data), data_pod(prepares=12, ip=IP).raw()
    raw_job["metadata"] |= {"uid": "data-uid", "resourceVersion": "7"}
    raw_pod["metadata"] |= {"namespace": "radiology", "labels": {}}
    index = Index(batch_jobs={data.job_name: [raw_job]}, pods={data.job_name: [raw_pod]})
    status = {"rerun": 0, "run": {"jobName": plan.run_name}, "data": {"digest": "sha256:0"}}
    status["preparation"] = {"jobName": data.job_name, "finishedAt": "2026-11-22T10:00:40Z"}
    began = make_job().status(status)
    observed = await observe(index, OneConfigMap(build_config_map(plan)), began, "progress-preparing.json")
    assert observed.progress is None


async def test_once_the_data_are_there_the_pod_that_fetches_the_model_is_asked() -> None:
    plan = make_plan(make_job().build().ref, MODEL_FIXED)
    index = Index()
    for kind, pod in (("data", data_pod(ends=40)), ("model", data_pod(prepares=12, ip=IP))):
        preparation = next(each for each in MODEL_FIXED.preparations if each.kind == kind)
        raw_job, raw_pod = build_shared_job(plan, preparation), pod.owned_by(f"{kind}-uid").raw()
        raw_job["metadata"] |= {"uid": f"{kind}-uid", "resourceVersion": "7"}
        if kind == "data":
            row = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-11-22T10:00:40Z"}
            raw_job["status"] = {"conditions": [row]}
        raw_pod["metadata"] |= {"namespace": "radiology", "labels": {}}
        index.batch_jobs[preparation.job_name] = [raw_job]  # type: ignore[index]
        index.pods[preparation.job_name] = [raw_pod]  # type: ignore[index]
    began = make_job().status({"rerun": 0, "run": {"jobName": plan.run_name}})
    observed = await observe(index, OneConfigMap(build_config_map(plan)), began, "progress.json")
    assert set(observed.shared_jobs) == {preparation.job_name for preparation in MODEL_FIXED.preparations}
    assert observed.progress is not None


class Kueue(OneConfigMap):
    """A server that has Workloads too, or answers as one that has none, or lets nobody see them."""

    def __init__(self, record: dict[str, Any], answer: dict[str, Any] | ClusterError) -> None:
        super().__init__(record)
        self._answer = answer

    async def get(self, path: str, query: Any = None) -> dict[str, Any]:
        if not path.endswith("/workloads"):
            return await super().get(path)
        assert query == {"labelSelector": f"kueue.x-k8s.io/job-uid={JOB_UID}"}
        if isinstance(self._answer, ClusterError):
            raise self._answer
        return self._answer


WAITING = {"type": "QuotaReserved", "status": "False", "message": "insufficient\nunused quota"}


@pytest.mark.parametrize(
    ("answer", "suspended", "words"),
    [
        (
            {"items": [{"metadata": {"name": "w"}, "status": {"conditions": [WAITING]}}]},
            True,
            "insufficient unused quota",
        ),
        ({"items": [{"metadata": {"name": "w"}, "status": {"conditions": [WAITING]}}]}, False, ""),
        ({"items": []}, True, ""),
        (
            NotFound("GET", 404, "no such kind"),
            True,
            "nobody serves kueue.x-k8s.io/v1beta2 here: Kueue is not installed, or older than 0.15",
        ),
        (Refused("GET", 403, "forbidden"), True, ""),
    ],
)
async def test_why_kueue_has_a_job_wait_is_asked_while_it_waits(answer: Any, suspended: bool, words: str) -> None:
    queued = make_job().labelled(**{"kueue.x-k8s.io/queue-name": "research"})
    raw = stored_job(queued)
    raw["spec"]["suspend"] = suspended
    cluster: Any = Kueue(build_config_map(make_run(queued)), answer)
    unused: Any = None
    observed = await Gatherer(Index(batch_jobs={UID: [raw]}), cluster, unused, CONFIG).observe(queued.build())
    assert observed.queue_told == words


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
