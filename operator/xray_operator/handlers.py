"""The only module that knows kopf: it watches, keeps the index and says which job to look at."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import replace
from typing import Any

import kopf

from xray_operator import names
from xray_operator.cluster import paths
from xray_operator.cluster.client import Cluster
from xray_operator.config import OperatorConfig
from xray_operator.errors import ClusterError, NotFound
from xray_operator.workers import Operator

logger = logging.getLogger(__name__)

JOBS = (names.GROUP, names.VERSION, names.JOBS)
FLAVORS = (names.GROUP, names.VERSION, names.FLAVORS)
BUDGETS = (names.GROUP, names.VERSION, names.BUDGETS)
POD_BULK = ("containers", "initContainers", "volumes", "tolerations")
BATCH_JOBS = ("batch", "v1", "jobs")
PODS = ("", "v1", "pods")


async def run_kopf(operator: Operator) -> None:
    """Watch until a signal comes; ends with an exception if a watch dies."""
    config = operator.config
    await kopf.operator(
        registry=build_registry(operator),
        settings=build_settings(config),
        standalone=True,
        clusterwide=not config.namespaces,
        namespaces=config.namespaces,
    )


def build_settings(config: OperatorConfig) -> kopf.OperatorSettings:
    """kopf as a watcher: no events, no annotations, no finalizers, and no wait without an end."""
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = NoRecords()
    settings.persistence.finalizer = f"{names.GROUP}/never"  # kopf takes its own off, even another operator's
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.request_timeout = config.request_timeout_seconds
    settings.networking.connect_timeout = config.request_timeout_seconds
    # about a minute in all, as by default; but who was away for long is asked again soon
    settings.networking.error_backoffs = (1, 1, 2, 3, *[5] * 10)
    settings.watching.connect_timeout = config.request_timeout_seconds
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.chunk_size = 100  # what has come and isn't slim yet; the start's peak of memory
    for children in (BATCH_JOBS, PODS):
        settings.watching.label_selectors[children] = names.LABEL_JOB_UID
    return settings


class NoRecords(kopf.DiffBaseStorage):
    """kopf reads its record of every object, used or not; anybody may spoil one, and kopf is deaf for that object."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> None:
        pass

    def store(self, **_: Any) -> None:
        pass


def build_registry(operator: Operator) -> kopf.OperatorRegistry:
    """All handlers, bound to one operator."""
    registry = kopf.OperatorRegistry()
    _login(registry)
    _register_start(registry, operator)
    _register_index(registry)
    _register_jobs(registry, operator)
    _register_children(registry, operator)
    _register_flavors(registry, operator)
    _register_budgets(registry, operator)
    return registry


def _login(registry: kopf.OperatorRegistry) -> None:
    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        in_pod = kopf.login_with_service_account(**kwargs)
        if in_pod is None:
            return kopf.login_with_kubeconfig(**kwargs)
        # kopf asks DNS for the API server; its address is in every pod's environment
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        return replace(in_pod, server=f"https://{f'[{host}]' if ':' in host else host}:{port}")


def _register_start(registry: kopf.OperatorRegistry, operator: Operator) -> None:
    @kopf.on.startup(id="start", registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    async def start(**kwargs: Any) -> None:
        for name in ("jobs", "batch_jobs", "pods", "flavors", "budgets"):
            setattr(operator.index, name, kwargs[name])
        await _wait_for_resources(operator)
        operator.connected.set()


async def _wait_for_resources(operator: Operator) -> None:
    """Until both can be listed. Of an absent CRD kopf would only warn, and never watch it."""
    told = ""
    while obstacle := await _obstacle(operator):
        if obstacle != told:
            logger.warning("not started yet: %s", obstacle)
        told = obstacle
        await asyncio.sleep(operator.config.resync_seconds)


async def _obstacle(operator: Operator) -> str:
    """Why not all can be listed; "" if they can. A server that answers so has been heard."""
    namespace = next(iter(operator.config.namespaces), None)
    try:
        missing = await _missing_resources(operator.cluster)
        for path in () if missing else (paths.listing(names.JOB_KIND, namespace), paths.flavors()):
            await operator.cluster.get(path, {"limit": "1"})
    except ClusterError as error:
        return str(error)
    operator.freshness.heard(time.monotonic())
    return f"not installed: {', '.join(missing)}; kubectl apply --server-side -f crds/" if missing else ""


async def _missing_resources(cluster: Cluster) -> list[str]:
    """By the list in which kopf will look for them; it may come later than the resources."""
    try:
        listed = (await cluster.get(paths.api()))["resources"]
    except NotFound:
        listed = []
    served = {resource["name"] for resource in listed}
    return [f"{name}.{names.GROUP}" for name in (names.JOBS, names.FLAVORS, names.BUDGETS) if name not in served]


def _register_index(registry: kopf.OperatorRegistry) -> None:
    @kopf.index(*JOBS, id="jobs", registry=registry)
    def jobs(body: kopf.Body, uid: str, **_: Any) -> dict[str, dict[str, Any]]:
        return {uid: slim(body)}

    @kopf.index(*BATCH_JOBS, id="batch_jobs", registry=registry, labels={names.LABEL_JOB_UID: kopf.PRESENT})
    def batch_jobs(body: kopf.Body, labels: kopf.Labels, **_: Any) -> dict[str, dict[str, Any]]:
        return {labels[names.LABEL_JOB_UID]: slim(body, "template", "podFailurePolicy")}

    @kopf.index(*PODS, id="pods", registry=registry, labels={names.LABEL_JOB_UID: kopf.PRESENT})
    def pods(body: kopf.Body, labels: kopf.Labels, **_: Any) -> dict[str, dict[str, Any]]:
        return {labels[names.LABEL_JOB_UID]: slim(body, *POD_BULK)}

    @kopf.index(*FLAVORS, id="flavors", registry=registry)
    def flavors(body: kopf.Body, name: str, **_: Any) -> dict[str, dict[str, Any]]:
        return {name: slim(body)}

    @kopf.index(*BUDGETS, id="budgets", registry=registry)
    def budgets(body: kopf.Body, uid: str, **_: Any) -> dict[str, dict[str, Any]]:
        return {uid: slim(body)}


def slim(body: kopf.Body, *of_spec: str) -> dict[str, Any]:
    """The object without the bulk that nobody reads: managed fields, and these parts of its spec.

    Taken out in place: kopf holds every object of the first lists until all of them are in the index.
    """
    raw = dict(body)
    raw["metadata"].pop("managedFields", None)
    for part in of_spec:
        raw["spec"].pop(part, None)
    return raw


def _register_jobs(registry: kopf.OperatorRegistry, operator: Operator) -> None:
    @kopf.on.event(*JOBS, registry=registry)
    def job_changed(uid: str, type: str | None, body: kopf.Body, **_: Any) -> None:
        operator.primed.set()  # kopf calls no handler before every index is full
        if type == "DELETED":
            operator.freshness.gone(uid)
            operator.index.forget_gone_pods(uid)
            operator.index.job_is_gone(slim(body))
        else:
            operator.freshness.saw(uid, body["metadata"]["resourceVersion"])
        operator.queue.add(uid)
        operator.job_changed(body["metadata"]["namespace"])


def _register_children(registry: kopf.OperatorRegistry, operator: Operator) -> None:
    @kopf.on.event(*BATCH_JOBS, registry=registry, labels={names.LABEL_JOB_UID: kopf.PRESENT})
    def batch_job_changed(labels: kopf.Labels, type: str | None, **_: Any) -> None:
        operator.freshness.saw_child(labels[names.LABEL_JOB_UID], gone=type == "DELETED")
        operator.child_changed(labels[names.LABEL_JOB_UID], labels.get(names.LABEL_PARTITION))

    @kopf.on.event(*PODS, registry=registry, labels={names.LABEL_JOB_UID: kopf.PRESENT})
    def pod_changed(labels: kopf.Labels, type: str | None, body: kopf.Body, **_: Any) -> None:
        if type == "DELETED":
            operator.index.pod_is_gone(labels[names.LABEL_JOB_UID], slim(body, *POD_BULK))
        operator.child_changed(labels[names.LABEL_JOB_UID], labels.get(names.LABEL_PARTITION))


def _register_flavors(registry: kopf.OperatorRegistry, operator: Operator) -> None:
    @kopf.on.event(*FLAVORS, registry=registry)
    def flavor_changed(**_: Any) -> None:
        operator.look_at_waiting_jobs()


def _register_budgets(registry: kopf.OperatorRegistry, operator: Operator) -> None:
    @kopf.on.event(*BUDGETS, registry=registry)
    def budget_changed(uid: str, type: str | None, body: kopf.Body, **_: Any) -> None:
        operator.queue.add(uid)
        if type == "DELETED" or body["metadata"]["generation"] != body.get("status", {}).get("observedGeneration"):
            operator.look_at_waiting_jobs()
