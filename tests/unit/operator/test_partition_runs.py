"""What the operator does about a run whose flavor has a partition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.operator.builders import (
    CONFIG,
    JOB_UID,
    UID,
    Observed,
    at,
    condition,
    decide,
    make_flavor,
    make_job,
    make_pod,
    make_run,
    started,
    told,
)
from xray_operator import names
from xray_operator.cluster import paths
from xray_operator.cluster.execute import change_job
from xray_operator.core.attempts import render_time
from xray_operator.core.manifests import build_config_map, build_job
from xray_operator.core.observed import Entrant, HeldPod, Line, Unreadable, Volume
from xray_operator.core.reconcile import Decision, reconcile
from xray_operator.core.turns import Change
from xray_operator.gather import Gatherer
from xray_operator.index import Index

POD4 = make_flavor(
    "vipuPartition",
    accelerators=4,
    partition={"host": "10.3.0.1", "id": "vpod4"},
    nodeSelector={"xray.example/vpod": "vpod4"},
)
PREPARED = {"dataset": {"source": {"pvc": {"claimName": "nih"}}}}


def entrant(uid: str = JOB_UID, namespace: str = "radiology", **fields: Any) -> Entrant:
    usual: dict[str, Any] = {
        "run": f"run-{uid}",
        "version": "7",
        "turn": names.WAITS,
        "suspended": True,
        "holds": False,
    }
    return Entrant(uid=uid, namespace=namespace, created=at(1), **usual | fields)


def waiting(*others: Entrant | HeldPod, mine: str = names.WAITS) -> Observed:
    """A run whose Job waits at a partition, beside these."""
    entrants = [each for each in others if isinstance(each, Entrant)]
    pods = [each for each in others if isinstance(each, HeldPod)]
    observed = started(flavor=POD4, job=make_job().spec(**PREPARED))
    return replace(observed, line=Line((entrant(turn=mine), *entrants), tuple(pods)))


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        (
            waiting(entrant("a", suspended=False, holds=True)),
            "waits for partition vpod4 of 10.3.0.1: held by run run-a",
        ),
        (waiting(entrant("b", "heart", holds=True)), "held by a run of another namespace"),
        (waiting(HeldPod("c", "radiology", "cxr-2")), "held by run cxr-2"),
        (waiting(entrant("0")), "next is run run-0"),
    ],
)
def test_a_run_whose_partition_is_held_is_queued_and_says_by_whom(observed: Observed, message: str) -> None:
    decision = decide(observed, **PREPARED)
    status = told(decision)
    assert status["state"] == names.QUEUED
    assert condition(status, names.RECONCILING)[1] == names.PARTITION_HELD
    assert message in condition(status, names.RUNNING)[2]
    assert decision.turn is None
    assert decision.suspend is None


def test_the_first_in_line_claims_and_goes_on_when_it_has_seen_its_claim() -> None:
    assert decide(waiting(), **PREPARED).turn == Change(True, names.CLAIMS, "7")
    assert decide(waiting(mine=names.CLAIMS), **PREPARED).turn == Change(False, "", "7")


def test_a_suspended_run_leaves_the_line_and_lets_the_partition_go_once_its_job_has_begun() -> None:
    wish = PREPARED | {"suspend": True}
    assert turn_of(running(suspended=True, turn=names.WAITS), **wish) == Change(True, "", "9")
    assert turn_of(running(suspended=True, turn=""), **wish) is None
    assert turn_of(running(suspended=False, begun=True), **wish) == Change(True, "", "9")
    assert turn_of(running(suspended=False, begun=False), **wish) is None, "its controller may be making a pod"


def running(**fields: Any) -> Observed:
    observed = started(make_pod().scheduled(5).prepares(6), flavor=POD4, job=make_job().spec(**PREPARED))
    assert observed.job is not None
    return replace(observed, job=replace(observed.job, version="9", **fields))


def turn_of(observed: Observed, **spec: Any) -> Change | None:
    return decide(observed, **spec).turn


def test_a_run_whose_record_is_lost_keeps_nobody_waiting() -> None:
    observed = started(flavor=POD4, job=make_job().spec(**PREPARED))
    assert observed.job is not None
    lost = Observed(unreadable=Unreadable("ConfigMap gone", observed.job.handle, "5"))
    assert decide(lost, **PREPARED).turn == Change(True, "", "5")


def test_a_pod_that_the_server_refuses_is_told_of() -> None:
    words = 'pods "cxr-x" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)'
    status = told(decide(started(pod_refused=words)))
    assert (status["state"], condition(status, names.RUNNING)[1]) == (names.QUEUED, names.POD_REFUSED)
    assert "violates PodSecurity" in condition(status, names.READY)[2]


def offered() -> Observed:
    volumes = {claim: Volume(access_modes=frozenset({"ReadWriteMany"})) for claim in ("nih", "out", "models")}
    flavors = {"demo-vpod4": POD4, "cheap": make_flavor("cpu")}
    return Observed(flavors=flavors, volumes=volumes)


def start(queue: str | None = None, **spec: Any) -> Decision:
    job = make_job().spec(**PREPARED).spec(**spec)
    job = job.labelled(**{names.LABEL_QUEUE: queue}) if queue else job
    return reconcile(job.build(), offered(), at(1), CONFIG.model_copy(update={"default_prepare_flavor": "cheap"}))


def test_what_the_operator_and_kueue_would_both_decide_is_refused() -> None:
    assert start().create is not None
    refused = told(start("research"))
    assert condition(refused, names.ACCEPTED)[1] == names.FLAVOR_UNFIT
    assert 'metadata.labels[kueue.x-k8s.io/queue-name]: "research" can\'t be had' in condition(refused, names.READY)[2]


def test_nothing_is_prepared_on_the_host_of_a_partition() -> None:
    refused = told(start(dataset=PREPARED["dataset"] | {"prepare": "InitContainer"}))
    assert condition(refused, names.STALLED)[:2] == ("True", names.FLAVOR_UNFIT)
    assert 'spec.dataset.prepare: "InitContainer" can\'t be had' in condition(refused, names.READY)[2]


class Server:
    """Has the run's record, and nobody in the line."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        self.listed: list[tuple[str, str]] = []
        self.patch: dict[str, Any] = {}

    async def get(self, path: str, query: Any = None) -> dict[str, Any]:
        if path == paths.item_of(self.record):
            return self.record
        self.listed.append((path, query["labelSelector"]))
        return {"items": []}

    async def merge(self, _: str, body: dict[str, Any]) -> None:
        self.patch = body


@pytest.mark.parametrize(
    ("served", "order"), [((), (None,)), (("archive", "radiology", "ward"), ("radiology", "archive", "ward"))]
)
async def test_the_line_is_listed_anew_jobs_first_its_own_namespace_first_and_a_changed_job_takes_no_step(
    served: tuple[str, ...], order: tuple[str | None, ...]
) -> None:
    job = make_job().spec(**PREPARED)
    run = make_run(job, POD4)
    waits = build_job(run)
    waits["metadata"] |= {"uid": JOB_UID, "resourceVersion": "7", "creationTimestamp": render_time(at(1))}
    server: Any = Server(build_config_map(run))
    session: Any = None
    config = CONFIG.model_copy(update={"namespaces": served})
    observed = await Gatherer(Index(batch_jobs={UID: [waits]}), server, session, config).observe(job.build())
    selector = f"{names.LABEL_PARTITION}={run.partition_key}"
    assert server.listed == [(paths.listing(kind, place), selector) for kind in ("Job", "Pod") for place in order]
    assert observed.line == Line((), ())
    await change_job(server, job.build(), Decision(turn=Change(False, "", "7")))
    assert server.patch["metadata"]["resourceVersion"] == "7"
    assert server.patch["spec"] == {"suspend": False}
