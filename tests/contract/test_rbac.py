"""The chart grants what the operator asks for, and nothing beyond.

The operator's own passes run here against a server on the loopback that writes down each request; kopf's lists and
watches are those of the handlers that are registered. tests/integration/test_rbac.py shows that a real API server
lets a whole run through.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest_asyncio
import yaml
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from tests.contract.schemas import REPOSITORY
from tests.unit.operator.builders import JOB_UID, UID, JobBuilder, make_flavor, make_job, make_run, stored_job
from tests.unit.operator.test_months import make_budget
from tests.unit.operator.test_workers import make_operator, run_until_idle
from xray_operator import handlers, names
from xray_operator.cluster import paths
from xray_operator.cluster.client import Cluster
from xray_operator.cluster.execute import change_job
from xray_operator.core.manifests import build_config_map, build_job
from xray_operator.core.reconcile import Decision
from xray_operator.workers import WATCHED, Operator

CHART = REPOSITORY / "charts" / "xray-operator"
RULE = re.compile(r"- apiGroups: (\[.*\])\n +resources: (\[.*\])\n +verbs: (\[.*\])")
PATH = re.compile(r"/(?:api|apis/([^/]+))/v1\w*(?:/namespaces/[^/]+(?=/))?/([^/]+)(?:/([^/]+)(?:/([^/]+))?)?")
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

Right = tuple[str, str, str]
"""Verb, group, resource with its subresource."""


def granted() -> set[Right]:
    """What the chart's rules for the operator allow; the lists in them are literal YAML, templated or not."""
    files = [CHART / "templates" / "rbac.yaml", *CHART.glob("rbac/*.yaml")]
    rules = [map(yaml.safe_load, rule) for path in files for rule in RULE.findall(path.read_text())]
    return {(verb, g, r) for groups, resources, verbs in rules for g in groups for r in resources for verb in verbs}


@dataclass
class ApiServer:
    """Keeps what is created and says what was asked."""

    asked: set[Right] = field(default_factory=set)
    methods: set[str] = field(default_factory=set)
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.Response:
        found = PATH.fullmatch(request.path)
        assert found, request.path
        group, resource, name, sub = found.groups()
        verb = VERBS.get(request.method, "get" if name else "list")
        self.methods.add(request.method)
        self.asked.add((verb, group or "", f"{resource}/{sub}" if sub else resource))
        body = await request.json() if request.can_read_body else {}
        if verb == "create":
            return self._create(f"{request.path}/{body['metadata']['name']}", body)
        if verb == "get" and request.path not in self.objects:
            return web.json_response({"message": "not found"}, status=404)
        return web.json_response(self.objects.get(request.path, {"metadata": {"resourceVersion": "101"}}))

    async def tell_capacity(self, _: web.Request) -> web.Response:
        """As a V-IPU proxy."""
        return web.json_response({"available": True, "numOfPartitions": 1, "message": ""})

    def _create(self, path: str, body: dict[str, Any]) -> web.Response:
        if path in self.objects:
            return web.json_response({"reason": "AlreadyExists"}, status=409)
        self.objects[path] = body
        return web.json_response(body, status=201)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[tuple[ApiServer, Cluster]]:
    known = ApiServer()
    for claim in ("nih", "out", "models"):
        spec = {"accessModes": ["ReadWriteMany"], "volumeName": "pv"}
        known.objects[paths.item("PersistentVolumeClaim", "radiology", claim)] = {"metadata": {}, "spec": spec}
    known.objects["/api/v1/persistentvolumes/pv"] = {"metadata": {}, "spec": {}}
    known.objects[paths.namespace("radiology")] = {"metadata": {"labels": {"team": "x"}}}
    application = web.Application()
    application.router.add_post("/query", known.tell_capacity)
    application.router.add_route("*", "/{path:.*}", known.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    cluster = Cluster(ApiClient(Configuration(host=site.name)), 30)
    yield known, cluster
    await cluster.close()
    await runner.cleanup()


def new_operator(cluster: Cluster, job: JobBuilder) -> Operator:
    """One that has just started: it has seen the job, and its flavor that is for some namespaces only."""
    unchecked: Any = cluster
    operator = make_operator(unchecked, job.raw())
    selector = {"matchLabels": {"team": "x"}}
    budget = make_budget()
    operator.index.budgets = {budget["metadata"]["uid"]: [budget]}
    operator.index.flavors = {"demo-vpod4": [{"spec": make_flavor(namespaceSelector=selector)}]}
    return operator


async def look(operator: Operator) -> None:
    operator.queue.add(UID)
    operator.job_changed("radiology")
    await run_until_idle(operator)


async def live(known: ApiServer, cluster: Cluster) -> Operator:
    """Every way in which the operator acts; returns the last operator."""
    await look(new_operator(cluster, make_job()))
    job = build_job(make_run())
    known.objects[paths.item_of(job)]["metadata"]["labels"] = {}
    await look(new_operator(cluster, make_job()))
    job = stored_job()
    for changed in (make_job().spec(suspend=True), make_job().spec(rerun=1)):
        operator = new_operator(cluster, changed)
        operator.index.batch_jobs = {UID: [job]}
        await look(operator)
    await live_in_a_queue(known, cluster)
    for kind in WATCHED:
        known.objects[paths.listing(kind, None)] = {"metadata": {"resourceVersion": "101"}, "items": []}
    operator.primed.set()
    resync = asyncio.create_task(_fast(operator).resync())
    async with asyncio.timeout(10):
        while ("list", "", "pods") not in known.asked:
            await asyncio.sleep(0)
    resync.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await resync
    await live_with_ipu_jobs(known, cluster)
    await change_job(cluster, make_job().build(), Decision(evict="cxr-pod"))
    return operator


async def live_in_a_queue(known: ApiServer, cluster: Cluster) -> None:
    """Kueue has a Job wait, and is asked why."""
    queued = make_job().labelled(**{names.LABEL_QUEUE: "research"})
    record = build_config_map(make_run(queued))
    known.objects[paths.item_of(record)] = record
    known.objects[paths.collection(names.WORKLOAD_KIND, "radiology")] = {"items": []}
    operator = new_operator(cluster, queued)
    operator.index.batch_jobs = {UID: [stored_job(queued)]}
    await look(operator)


async def live_with_ipu_jobs(known: ApiServer, cluster: Cluster) -> None:
    """An IPUJob is made, gets its labels back and is deleted; the V-IPU proxy is beside the API server."""
    flavor = make_flavor("ipuOperator", accelerators=4, vipuProxyUrl=cluster._api.configuration.host)
    prepared = make_job().spec(dataset={"source": {"pvc": {"claimName": "nih"}}})
    plan = make_run(prepared, flavor)
    record, job = build_config_map(plan), build_job(plan)
    known.objects[paths.item_of(record)] = record
    every = known.objects[paths.collection_of(job)] = {"items": []}
    known.objects[paths.listing(names.IPU_JOB_KIND, None)] = {"items": []}
    began = prepared.status({"rerun": 0, "state": "Queued", "run": {"jobName": plan.run_name}})
    async with aiohttp.ClientSession() as session:
        for suspended in (False, False, True):
            operator = new_operator(cluster, began.spec(suspend=suspended))
            object.__setattr__(operator.gatherer, "session", session)
            await look(operator)
            made = known.objects[paths.item_of(job)]
            made["metadata"] |= {"labels": {}, "uid": JOB_UID, "creationTimestamp": "2026-11-22T10:00:01Z"}
            every["items"] = [made] if ("patch", "graphcore.ai", "ipujobs") in known.asked else []


def _fast(operator: Operator) -> Operator:
    fast = {"resync_seconds": 0.0, "relist_resyncs": 1, "quote_at_apply": True}
    operator.config = operator.config.model_copy(update=fast)
    return operator


def watched(operator: Operator) -> set[Right]:
    registry = handlers.build_registry(operator)
    selectors = registry._watching.get_all_selectors() | registry._indexing.get_all_selectors()
    return {(verb, str(s.group or ""), str(s.any_name)) for s in selectors for verb in ("list", "watch")}


async def test_the_chart_grants_what_the_operator_asks_and_nothing_beyond(server: tuple[ApiServer, Cluster]) -> None:
    known, cluster = server
    operator = await live(known, cluster)
    asked = known.asked | watched(operator)
    assert asked - granted() == set(), "the chart lacks these"
    # who may list and watch sees as much as who may get, and people expect the three together
    beyond = {(verb, *what) for verb, *what in granted() - asked if verb != "get" or ("list", *what) not in asked}
    assert beyond == set(), "nobody asks for these, or no step of live() shows it"


async def test_every_method_and_every_path_of_the_operator_was_asked(server: tuple[ApiServer, Cluster]) -> None:
    known, cluster = server
    await live(known, cluster)
    assert known.methods == set(re.findall(r'_request\("([A-Z]+)"', inspect.getsource(Cluster)))
    resources = {PATH.fullmatch(template.format("x"))[2] for template in paths._COLLECTIONS.values()}
    assert {what.partition("/")[0] for _, _, what in known.asked} >= resources
