"""What the operator does about a run whose flavor has Graphcore's IPU Operator: each attempt is an IPUJob."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.unit.operator.builders import (
    CONFIG,
    JOB_UID,
    UID,
    WITH_IPUS,
    PodBuilder,
    at,
    condition,
    decide,
    example,
    make_flavor,
    make_job,
    make_pod,
    make_run,
    reasons,
    started,
    told,
)
from tests.unit.operator.test_manifests import ON_IPU_OPERATOR
from tests.unit.operator.test_workers import FakeCluster, make_operator, run_until_idle
from xray_operator import names
from xray_operator.cluster import paths
from xray_operator.cluster.capacity import fetch_capacity
from xray_operator.core.attempts import attempts_from_status, render_time
from xray_operator.core.ipu_job import (
    RELEASE_SECONDS,
    count_promised,
    find_ipu_job,
    handle_of,
    judge,
    read_ipu_job,
    with_claim,
    with_gone_claim,
)
from xray_operator.core.manifests import build_config_map, build_job
from xray_operator.core.observed import Capacity, Observed, Volume, read_pods, read_xray_job
from xray_operator.core.plan import make_plan, runs_on
from xray_operator.core.reconcile import Decision, reconcile
from xray_operator.core.spec import FlavorSpec, Problem, parse_part
from xray_operator.errors import ClusterError, NotFound, Refused
from xray_operator.index import Index

SPEC = {"dataset": {"source": {"pvc": {"claimName": "nih"}}}}
PLAN = make_run(make_job().spec(**SPEC), ON_IPU_OPERATOR, WITH_IPUS)
NAME = build_job(PLAN)["metadata"]["name"]
POD = f"{NAME}-worker-0"
ENDED = {"completionTime": render_time(at(130))}
"""What its controller says of an IPUJob once it has let go of the partition."""
BEGUN: dict[str, Any] = {"rerun": 0, "state": "Queued", "run": {"jobName": NAME}}


def ipu_job(created: float = 2, name: str = NAME, **status: Any) -> dict[str, Any]:
    """As the API server gives it."""
    raw = build_job(PLAN)
    raw["metadata"] |= {"name": name, "uid": JOB_UID, "creationTimestamp": render_time(at(created))}
    return raw | {"status": status}


def worker(name: str = POD) -> PodBuilder:
    return make_pod(name, 3)


def attempt(*pods: PodBuilder, status: Any = None, gone: tuple[PodBuilder, ...] = (), **of_job: Any) -> Observed:
    """What is seen of an IPUJob and its pods."""
    raw = ipu_job(**of_job)
    handle = handle_of(raw)
    shown = read_pods([pod.raw() for pod in pods], handle, [pod.raw() for pod in gone])
    attempts = attempts_from_status((status or {}).get("attempts", ()))
    job = read_ipu_job(raw, handle, PLAN.snapshot, shown, attempts)
    return Observed(job=job, pods=with_claim(shown, raw), snapshot=PLAN.snapshot)


def look(observed: Observed, status: Any = None, now: float = 200, **spec: Any) -> Decision:
    return decide(observed, status, now, **SPEC | spec)


def written(observed: Observed, status: Any = None, now: float = 200, **spec: Any) -> dict[str, Any]:
    return told(look(observed, status, now, **spec))


def failed(code: int, name: str = POD, begin: float = 10) -> PodBuilder:
    message = json.dumps(json.loads(example("error-result.json")) | {"exit_code": code})
    return worker(name).scheduled(begin).prepared(begin + 1, begin + 2).trained(begin + 3, begin + 50, code, message)


def row(name: str, code: int | None = 21, reason: str = "AcceleratorNotAcquired") -> dict[str, Any]:
    """An earlier attempt's."""
    times = {"startedAt": "2026-11-22T09:00:00Z", "finishedAt": "2026-11-22T09:10:00Z"}
    return {"podName": name, "reason": reason, **times} | ({} if code is None else {"exitCode": code})


def test_status_and_event_call_an_ipu_job_by_its_kind() -> None:
    decision = look(attempt())
    run = told(decision)["run"]
    assert (run["jobName"], run["jobKind"]) == (NAME, names.IPU_JOB_KIND)
    created = next(event for event in decision.events if event["reason"] == names.CREATED)
    assert created["message"].startswith(f"IPUJob {NAME}; ")
    assert "jobKind" not in told(decide(started()))["run"], "a Job is a Job"


def test_an_ipu_job_without_a_pod_is_queued_and_its_controllers_last_word_is_told() -> None:
    status = written(attempt(lastMessage="no 4 IPUs are free"))
    assert status["state"] == names.QUEUED
    assert condition(status, names.RUNNING)[2] == f"waiting for IPUJob {NAME} to make a pod: no 4 IPUs are free"


def test_the_attempt_holds_its_partition_since_its_ipu_job_was_made() -> None:
    status = written(attempt(worker().scheduled(30).prepared(31, 40).trains(42)), now=100)
    assert status["state"] == names.TRAINING
    assert status["attempts"][0]["startedAt"] == render_time(at(2))
    assert status["cost"]["heldSeconds"] == 98
    assert status["cost"]["total"] == "0.2314"


def test_the_attempt_holds_its_partition_until_its_controller_lets_go_of_it() -> None:
    """The time after its pod's end is held without work, and the run is over when it is."""
    pod = worker().scheduled(10).prepared(11, 12).trained(13, 110)
    waits = written(attempt(pod, launcherStatus="Running"), now=120)
    assert waits["state"] not in names.FINAL_STATES
    assert condition(waits, names.RUNNING)[1:] == (names.RELEASING, f"IPUJob {NAME} lets go of its partition")
    assert waits["cost"]["heldSeconds"] == 118
    status = written(attempt(pod, **ENDED), waits)
    assert status["state"] == names.SUCCEEDED
    assert status["cost"]["heldSeconds"] == 128
    assert status["attempts"][0]["finishedAt"] == render_time(at(130))
    assert status["attempts"][0]["idleSeconds"] == 30
    assert "estimated" not in status["cost"]


PRICE_LIMIT = {"limit": "2.00", "currency": "USD"}


def test_a_partition_is_billed_while_its_pod_waits_for_a_node() -> None:
    status = written(attempt(worker()), BEGUN, now=602)
    assert (status["state"], status["cost"]["heldSeconds"]) == (names.QUEUED, 600)
    later = written(attempt(worker().scheduled(700).prepares(701)), status, now=710)
    assert later["cost"]["heldSeconds"] == 708
    assert [each["podName"] for each in later["attempts"]] == [POD]


def test_a_partition_is_billed_while_there_is_no_pod_and_its_row_becomes_the_pods() -> None:
    bare = attempt(iPUPartitionCreated=True)
    status = written(bare, BEGUN, now=602)
    assert (status["cost"]["heldSeconds"], status["attempts"][0]["idleSeconds"]) == (600, 600)
    later = written(attempt(worker().scheduled(700).prepares(701), status=status), status, now=710)
    assert [(each["podName"], each["idleSeconds"]) for each in later["attempts"]] == [(POD, 699)]
    of_another_name = worker(f"{NAME}-worker-a").scheduled(700).prepares(701)
    status = written(attempt(of_another_name, status=status), status, now=710)
    assert [(each["podName"], each["idleSeconds"]) for each in status["attempts"]] == [(f"{NAME}-worker-a", 699)]


def test_what_has_no_partition_yet_is_not_billed() -> None:
    assert written(attempt(lastMessage="no 4 IPUs are free"), BEGUN, now=602)["cost"]["heldSeconds"] == 0


def test_an_ipu_job_that_ended_without_a_pod_has_failed_and_is_paid() -> None:
    status = written(attempt(iPUPartitionCreated=True), BEGUN, now=602)
    ended = {"iPUPartitionCreated": True, "completionTime": render_time(at(620)), "lastMessage": "no pod"}
    failed_run = written(attempt(status=status, **ended), status, now=630)
    assert (failed_run["state"], failed_run["cost"]["heldSeconds"]) == (names.FAILED, 618)


def test_the_wait_of_a_pod_for_a_node_counts_for_the_limits_of_time_money_and_patience() -> None:
    observed = attempt(worker())
    for limits in (
        {"limits": {"runSeconds": 500}},
        {"budget": PRICE_LIMIT},
        {"limits": {"queueSeconds": 500}},
    ):
        assert look(observed, BEGUN, 1202, **limits).delete is not None, limits
    assert look(observed, BEGUN, 302, budget=PRICE_LIMIT).delete is None


def test_a_run_that_is_done_is_not_stopped_while_its_partition_is_let_go_of() -> None:
    pod = worker().scheduled(10).prepared(11, 12).trained(13, 110)
    decision = look(attempt(pod), now=900, budget=PRICE_LIMIT, limits={"runSeconds": 60})
    assert decision.delete is None
    assert condition(told(decision), names.RUNNING)[1] == names.RELEASING


LAST_FAILURES: dict[str, tuple[int, tuple[str, ...]]] = {"fatal": (15, ()), "third": (21, ("a", "b"))}
"""The exit code, and the names of the attempts before it."""


def left_after(code: int, former: tuple[str, ...]) -> tuple[Observed, dict[str, Any]]:
    """An IPUJob that nobody ends after its pod has failed for good, and what status told of it at first."""
    status: dict[str, Any] = BEGUN | {"attempts": [row(name) for name in former]}
    observed = attempt(failed(code), status=status, launcherStatus="Failed", iPUPartitionCreated=True)
    return observed, written(observed, status, now=200)


@pytest.mark.parametrize(("code", "former"), LAST_FAILURES.values(), ids=LAST_FAILURES)
def test_a_partition_that_its_controller_keeps_after_a_failed_end_is_taken_from_it(
    code: int, former: tuple[str, ...]
) -> None:
    """What Graphcore's controller writes of a failed IPUJob is not published: it may never say that it has ended."""
    observed, status = left_after(code, former)
    assert status["state"] not in names.FINAL_STATES
    assert look(observed, status, 60 + RELEASE_SECONDS - 1).delete is None
    late = 60 + RELEASE_SECONDS + 60
    status = told(look(observed, status, late))
    assert look(observed, status, late).delete == handle_of(ipu_job())
    assert observed.job is not None
    bare = replace(observed.job, ending=None, gone=True)
    left = judge(bare, observed.pods[-1], attempts_from_status(status["attempts"]), released=True)
    gone = Observed(job=left, pods=with_gone_claim(observed.pods, at(2)), snapshot=PLAN.snapshot)
    closed = written(gone, status, now=late + 10)
    assert closed["state"] == names.FAILED
    assert closed["cost"]["heldSeconds"] >= late - 2, "held until it is gone"


@pytest.mark.parametrize(("code", "former"), LAST_FAILURES.values(), ids=LAST_FAILURES)
def test_a_run_that_has_failed_for_good_is_not_tried_again_by_an_operator_that_saw_neither_pod_nor_ipu_job_go(
    code: int, former: tuple[str, ...]
) -> None:
    _, status = left_after(code, former)
    deleted = ipu_job(launcherStatus="Failed", iPUPartitionCreated=True)
    deleted["metadata"]["deletionTimestamp"] = render_time(at(421))
    job = read_ipu_job(deleted, handle_of(deleted), PLAN.snapshot, (), attempts_from_status(status["attempts"]))
    status = written(Observed(job=job, pods=with_claim((), deleted), snapshot=PLAN.snapshot), status, now=430)
    nothing = Observed(snapshot=PLAN.snapshot, capacity=Capacity(partitions=4))
    for now in (440, 450, 460):
        decision = look(nothing, status, now)
        assert decision.create is None
        status = decision.status or status
    assert status["state"] == names.FAILED
    assert condition(status, names.READY)[1] == status["attempts"][-1]["reason"]
    assert f"exit code {code}" in condition(status, names.READY)[2]


def test_one_that_is_done_keeps_its_ipu_job_for_its_controller_to_end() -> None:
    observed = attempt(worker().scheduled(10).prepared(11, 12).trained(13, 60), iPUPartitionCreated=True)
    status = written(observed, BEGUN, now=60 + RELEASE_SECONDS + 60)
    assert look(observed, status, 60 + RELEASE_SECONDS + 60).delete is None


def test_one_that_completed_without_saying_when_has_held_until_its_pods_end() -> None:
    status = written(attempt(worker().scheduled(10).prepared(11, 12).trained(13, 110), launcherStatus="Completed"))
    assert (status["state"], status["cost"]["heldSeconds"]) == (names.SUCCEEDED, 108)


def test_the_attempt_holds_its_partition_until_its_deleted_ipu_job_is_gone() -> None:
    """No time stamp tells when that was: it counts until it is seen, and says that it is estimated."""
    leaving = attempt(failed(143).deleted(100, 120))
    status = written(leaving, now=150, suspend=True)
    assert "finishedAt" not in status["attempts"][0]
    assert leaving.job is not None
    job = replace(leaving.job, gone=True)
    gone = Observed(job=job, pods=with_gone_claim(leaving.pods, at(2)), snapshot=PLAN.snapshot)
    closed = written(gone, status, now=170, suspend=True)
    assert closed["cost"]["heldSeconds"] == 168
    assert closed["attempts"][0]["exitCode"] == 143
    assert closed["cost"]["estimated"]
    assert look(gone, closed, now=500, suspend=True).status is None, "the first word on it stands"


def test_a_pod_that_came_back_goes_on_with_what_the_one_before_it_held() -> None:
    first = worker().scheduled(10).prepared(11, 12).trains(13)
    second = make_pod(POD + "-again", 60).scheduled(61).prepared(62, 63).trained(64, 110)
    status = written(attempt(second, gone=(first,), **ENDED))
    assert [(each["startedAt"], each["finishedAt"]) for each in status["attempts"]] == [
        (render_time(at(2)), render_time(at(60))),
        (render_time(at(60)), render_time(at(130))),
    ]
    assert status["cost"]["heldSeconds"] == 128


def test_without_an_image_for_ipus_it_is_told_that_they_are_held_and_not_used() -> None:
    snapshot = make_run(make_job().spec(**SPEC), ON_IPU_OPERATOR, CONFIG).snapshot
    assert "the 4 IPUs of a partition of its own of flavor demo-vpod4 are held and not used" in runs_on(snapshot)


def test_a_pod_that_succeeded_is_the_run_s_success() -> None:
    decision = look(attempt(worker().scheduled(10).prepared(11, 12).trained(13, 110), **ENDED))
    assert told(decision)["state"] == names.SUCCEEDED
    assert decision.delete is None, "its log stays readable, as a Job's"


def test_an_ipu_job_that_completed_and_whose_pod_is_gone_has_succeeded_unread() -> None:
    assert condition(written(attempt(launcherStatus="Completed")), names.SUCCEEDED)[1] == names.RESULT_UNREAD


def test_an_ipu_job_that_ended_without_a_pod_has_failed_with_its_controllers_last_word() -> None:
    status = written(attempt(completionTime="2026-11-22T10:01:00Z", lastMessage="no such allocation"))
    assert status["state"] == names.FAILED
    assert condition(status, names.SUCCEEDED)[2] == f"IPUJob {NAME} failed: no such allocation"


def test_the_end_of_an_ipu_job_whose_pod_is_gone_is_no_end_of_the_run() -> None:
    """Its pod was seen, and its end written down: another attempt follows, also while this one is being deleted."""
    ended = {"completionTime": "2026-11-22T10:01:00Z", "launcherStatus": "Failed", "lastMessage": "an instance failed"}
    status = told(look(attempt(failed(21))))
    observed = attempt(status=status, **ended)
    decision = look(observed, status)
    assert told(decision)["state"] == names.QUEUED
    assert look(observed, told(decision)).delete is not None
    raw = ipu_job(**ended)
    raw["metadata"]["deletionTimestamp"] = render_time(at(100))
    leaving = read_ipu_job(raw, handle_of(raw), PLAN.snapshot, (), ())
    assert (leaving.failed, leaving.complete, leaving.spent) == (None, False, False)


@pytest.mark.parametrize(
    ("code", "former", "state"),
    [
        (20, [], "Queued"),
        (21, [21], "Queued"),
        (137, [21], "Queued"),
        (21, [21, 21], "Failed"),
        (21, [143, 143, 143, 21], "Queued"),
        (21, [None, None, 21], "Queued"),
        (21, [16, 21], "Queued"),
        (143, [143] * 20, "Queued"),
        (143, [21, 21], "Queued"),
        *((code, [], "Failed") for code in (10, 11, 12, 13, 14, 15)),
        (16, [], "Stopped"),
    ],
)
def test_the_retry_table_is_that_of_jobs(code: int, former: list[int | None], state: str) -> None:
    rows = [row(f"former-{n}", each, "Evicted" if each is None else "X") for n, each in enumerate(former)]
    status = BEGUN | {"attempts": rows}
    assert written(attempt(failed(code), status=status, **ENDED), status)["state"] == state


def test_a_pod_that_its_node_never_took_counts_as_a_failure() -> None:
    rows = [row(f"former-{n}", None, "OutOfcpu") for n in range(2)]
    pod = worker().scheduled(10).phase("Failed")
    observed = attempt(pod, status=BEGUN | {"attempts": rows}, **ENDED)
    assert written(observed, BEGUN | {"attempts": rows})["state"] == names.FAILED


def test_a_failed_attempt_is_written_down_before_its_ipu_job_goes_and_another_is_made() -> None:
    observed = attempt(failed(21))
    first = look(observed)
    assert first.delete is None
    assert reasons(first)[-1] == names.ATTEMPT_FAILED
    second = look(observed, told(first))
    assert second.delete == observed.job.handle if observed.job else None
    assert second.delete is not None
    assert second.delete.kind == "IPUJob"
    gone = Observed(snapshot=PLAN.snapshot, capacity=Capacity(1))
    closed = look(gone, prepared(told(first)), now=230)
    assert closed.create is None, "what it held until it was gone is written down before"
    third = look(gone, prepared(told(closed)), now=231)
    assert third.create is not None
    assert third.create["kind"] == "IPUJob"
    assert third.create["metadata"]["name"] == PLAN.job.run_name(0, POD)


def test_a_failed_run_keeps_its_ipu_job() -> None:
    observed = attempt(failed(15), **ENDED)
    assert look(observed, told(look(observed))).delete is None


def prepared(status: dict[str, Any] | None = None) -> dict[str, Any]:
    """Of a run whose data are there; the plan of the tests has no preparation of its own."""
    return dict(status or BEGUN)


def test_suspending_deletes_the_ipu_job_and_the_run_stands_still_when_it_is_gone() -> None:
    running = attempt(worker().scheduled(10).prepared(11, 12).trains(13))
    decision = look(running, suspend=True)
    assert decision.delete is not None
    assert condition(told(decision), names.RECONCILING)[1] == names.SUSPENDING
    over = failed(143).deleted(100, 120)
    leaving = look(attempt(over), told(decision), suspend=True)
    assert told(leaving)["state"] != names.SUSPENDED
    assert f"IPUJob {NAME} lets go of its partition" in condition(told(leaving), names.RUNNING)[2]
    closed = look(Observed(snapshot=PLAN.snapshot, capacity=Capacity(1)), told(leaving), suspend=True)
    gone = look(Observed(snapshot=PLAN.snapshot, capacity=Capacity(1)), told(closed), suspend=True)
    assert told(gone)["state"] == names.SUSPENDED
    assert gone.create is None
    goes_on = look(Observed(snapshot=PLAN.snapshot, capacity=Capacity(1)), told(gone))
    assert goes_on.create is not None


def test_a_raised_run_limit_lets_the_next_attempt_begin() -> None:
    limit = {"limits": {"runSeconds": 60}}
    observed = attempt(failed(16, begin=20), **ENDED)
    stopped = look(observed, **limit)
    assert told(stopped)["state"] == names.STOPPED
    assert stopped.delete is None
    raised = look(observed, told(stopped), limits={"runSeconds": 6000})
    assert raised.delete is not None


def test_another_rerun_ends_the_ipu_job_of_the_former() -> None:
    observed = attempt(worker().scheduled(10).prepared(11, 12).trains(13))
    decision = look(observed, told(look(observed)), rerun=1)
    assert decision.delete == (observed.job.handle if observed.job else None)
    assert condition(told(decision), names.RUNNING)[1] == names.SUPERSEDED


URL = ON_IPU_OPERATOR["vipuProxyUrl"]


@pytest.mark.parametrize(
    ("capacity", "reason", "message"),
    [
        (Capacity(0), names.NO_PARTITION_FREE, f"waits for a partition of 4 IPUs: V-IPU proxy {URL} has none"),
        (Capacity(2, promised=2), names.NO_PARTITION_FREE, f"{URL} has 2, for runs whose IPUJobs were made before"),
        (
            Capacity(trouble="does not answer within 5 s"),
            names.CAPACITY_UNKNOWN,
            "does not answer within 5 s; nothing is",
        ),
        (None, names.CAPACITY_UNKNOWN, "was not asked"),
    ],
)
def test_nothing_is_claimed_before_a_partition_is_known_to_be_free(
    capacity: Capacity | None, reason: str, message: str
) -> None:
    decision = look(Observed(snapshot=PLAN.snapshot, capacity=capacity), prepared())
    assert decision.create is None
    status = told(decision)
    assert status["state"] == names.QUEUED
    assert condition(status, names.RECONCILING)[:2] == ("True", reason)
    assert message in condition(status, names.RUNNING)[2]
    again = look(Observed(snapshot=PLAN.snapshot, capacity=capacity), status, now=300)
    assert again == Decision(), "the same answer is no news"


def test_who_waited_too_long_for_a_partition_stays_stopped_until_the_limit_is_raised() -> None:
    full, free = (Observed(snapshot=PLAN.snapshot, capacity=Capacity(n)) for n in (0, 1))
    limit = {"limits": {"queueSeconds": 60}}
    assert written(full, prepared(), 30, **limit)["state"] == names.QUEUED
    assert look(free, prepared(), 1000, **limit).create is not None, "nobody asked before: the operator was away"
    stopped = written(full, prepared(), 62, **limit)
    assert (stopped["state"], condition(stopped, names.STALLED)[1]) == ("Stopped", names.QUEUE_LIMIT_REACHED)
    assert look(free, stopped, 70, **limit).create is None
    assert look(free, stopped, 70, limits={"queueSeconds": 600}).create is not None


def test_who_waits_too_long_for_the_pod_of_its_ipu_job_lets_go_of_it() -> None:
    decision = look(attempt(created=50), BEGUN, 100, limits={"queueSeconds": 60})
    assert decision.delete is not None, "the time before the IPUJob was made counts too"


def test_of_several_ipu_jobs_that_of_a_former_run_comes_first_and_then_the_oldest() -> None:
    former = ipu_job(created=9, name="former")
    former["metadata"]["labels"] = former["metadata"]["labels"] | {names.LABEL_RERUN: "0"}
    mine, copy = ipu_job(created=10, name="mine"), ipu_job(created=11, name="copy")
    for raw in (mine, copy):
        raw["metadata"]["labels"] = raw["metadata"]["labels"] | {names.LABEL_RERUN: "1"}
    foreign = ipu_job(created=1, name="foreign")
    foreign["metadata"]["ownerReferences"] = []
    ref = make_job().build().ref
    assert [found[1].name for found in [find_ipu_job([copy, mine, former, foreign], ref, 1)] if found] == ["former"]
    assert [found[1].name for found in [find_ipu_job([copy, mine, foreign], ref, 1)] if found] == ["mine"]
    assert find_ipu_job([foreign], ref, 1) is None


def offered(**observed: Any) -> Observed:
    volumes = {claim: Volume(access_modes=frozenset({"ReadWriteMany"})) for claim in ("nih", "out", "models")}
    flavors = {"demo-vpod4": ON_IPU_OPERATOR, "cheap": make_flavor("cpu")}
    return Observed(flavors=flavors, volumes=volumes, **observed)


def start(observed: Observed, queue: str | None = None, **spec: Any) -> Decision:
    job = make_job().spec(**SPEC).spec(**spec)
    job = job.labelled(**{names.LABEL_QUEUE: queue}) if queue else job
    return reconcile(job.build(), observed, at(1), CONFIG.model_copy(update={"default_prepare_flavor": "cheap"}))


def test_a_cluster_without_ipu_jobs_is_told_of_and_may_get_them() -> None:
    refused = told(start(offered(absent="IPUJob")))
    assert condition(refused, names.ACCEPTED)[:2] == ("False", names.BACKEND_NOT_INSTALLED)
    assert "Graphcore's IPU Operator is not installed" in condition(refused, names.ACCEPTED)[2]
    assert condition(refused, names.RECONCILING)[0] == "True"
    assert start(offered()).create is not None


def test_what_needs_a_suspend_or_reads_foreign_files_on_the_host_is_refused() -> None:
    queued = told(start(offered(), "research"))
    assert "its runs are IPUJobs, which can't be suspended" in condition(queued, names.READY)[2]
    in_place = told(start(offered(), dataset=SPEC["dataset"] | {"prepare": "InitContainer"}))
    assert condition(in_place, names.STALLED)[:2] == ("True", names.FLAVOR_UNFIT)


@pytest.mark.parametrize(
    ("backend", "fields", "message"),
    [
        ("ipuOperator", {"vipuProxyUrl": URL}, "must be a power of two"),
        ("ipuOperator", {"vipuProxyUrl": URL, "accelerators": 3}, "must be a power of two"),
        ("ipuOperator", {"accelerators": 4}, "needs vipuProxyUrl"),
        ("ipuOperator", {"accelerators": 4, "vipuProxyUrl": URL, "resourceName": "a/b"}, "neither resourceName nor"),
        ("devicePlugin", {"vipuProxyUrl": URL}, "vipuProxyUrl is for ipuOperator flavors only"),
        ("cpu", {"vipuProxyUrl": URL}, "vipuProxyUrl is for ipuOperator flavors only"),
        (
            "vipuPartition",
            {"vipuProxyUrl": URL, "accelerators": 4, "partition": {"host": "h", "id": "i"}, "nodeSelector": {"a": "b"}},
            "vipuProxyUrl is for ipuOperator flavors only",
        ),
        (
            "vipuPartition",
            {"accelerators": 4, "partition": {"host": "v:8090", "id": "i"}, "nodeSelector": {"a": "b"}},
            'partition.host "v:8090" has a port, which belongs into partition.port',
        ),
        (
            "vipuPartition",
            {"accelerators": 4, "partition": {"host": "v.example.", "id": "i"}, "nodeSelector": {"a": "b"}},
            "spec.partition.host",
        ),
        ("gpu", {"host": {"hostNetwork": True}}, "are for vipuPartition and ipuOperator flavors only"),
    ],
)
def test_a_flavor_says_what_its_backend_needs_and_nothing_else(
    backend: str, fields: dict[str, Any], message: str
) -> None:
    problems = parse_part(FlavorSpec, make_flavor(backend, **fields), "spec", names.FLAVOR_INVALID)
    assert isinstance(problems, list)
    assert message in str(Problem.__str__(problems[0]))


# What is asked, and of whom


class ServerWithIpuJobs(FakeCluster):
    """Has the run's record, and these IPUJobs, or an error in their place."""

    def __init__(self, *raws: dict[str, Any], error: ClusterError | None = None) -> None:
        super().__init__()
        self.raws, self.error = list(raws), error
        record = build_config_map(PLAN)
        self.objects[paths.item_of(record)] = record

    async def get(self, path: str, query: Any = None) -> dict[str, Any]:
        if not path.endswith("/ipujobs"):
            return await super().get(path, query)
        if self.error:
            raise self.error
        made = [raw for raw in self.objects.values() if raw["kind"] == "IPUJob"]
        for raw in made:
            raw["metadata"] |= {"uid": "made", "creationTimestamp": render_time(at(1))}
        label, _, value = query["labelSelector"].partition("=")
        return {"items": [raw for raw in (*self.raws, *made) if raw["metadata"]["labels"][label] == value]}


async def gather(cluster: ServerWithIpuJobs, status: Any = BEGUN, index: Index | None = None, **spec: Any) -> Observed:
    job = make_job().spec(**SPEC).spec(**spec).status(status)
    operator = make_operator(cluster, job.raw())
    operator.index.flavors = {"demo-vpod4": [{"spec": ON_IPU_OPERATOR}]}
    if index:
        operator.index.pods, operator.index._gone_pods = index.pods, index._gone_pods
    async with aiohttp.ClientSession() as session:
        object.__setattr__(operator.gatherer, "session", session)
        return await operator.gatherer.observe(job.build())


async def test_the_attempt_that_goes_on_is_found_by_asking() -> None:
    observed = await gather(ServerWithIpuJobs(ipu_job()))
    assert observed.job is not None
    assert observed.job.handle == handle_of(ipu_job())
    assert observed.capacity is None, "nobody is asked for a second partition"


@pytest.mark.parametrize(
    ("error", "field"), [(NotFound("", 404, ""), "absent"), (Refused("", 403, "ipujobs is forbidden"), "refused")]
)
@pytest.mark.parametrize("status", [None, BEGUN])
async def test_an_api_server_without_ipu_jobs_or_that_keeps_them_from_us_is_told_of_and_nothing_more(
    error: ClusterError, field: str, status: Any
) -> None:
    observed = await gather(ServerWithIpuJobs(error=error), status)
    assert getattr(observed, field)
    decision = reconcile(make_job().spec(**SPEC).status(status).build(), observed, at(100), CONFIG)
    assert decision.create is None
    assert condition(told(decision), names.ACCEPTED)[0] == "False"


async def test_an_api_server_in_trouble_is_asked_again_and_nothing_is_concluded() -> None:
    with pytest.raises(ClusterError):
        await gather(ServerWithIpuJobs(error=ClusterError("", 503, "")))


async def test_the_end_of_an_attempt_whose_ipu_job_is_gone_is_read_from_its_pod() -> None:
    raw = failed(143).raw()
    raw["metadata"] |= {"namespace": "radiology", "labels": {}}
    index = Index()
    index._gone_pods = {UID: {POD: raw}}
    running = attempt(worker().scheduled(10).prepared(11, 12).trains(13))
    status = written(running, suspend=True)
    observed = await gather(ServerWithIpuJobs(), status, index, suspend=True)
    assert observed.job is not None
    assert observed.job.gone
    after = written(observed, status, suspend=True)
    assert after["attempts"][0]["exitCode"] == 143
    assert after["state"] == names.SUSPENDED
    settled = await gather(ServerWithIpuJobs(), after, index, suspend=True)
    assert settled.job is None


async def test_the_pod_of_an_ipu_job_before_is_not_taken_for_the_end_of_this_one() -> None:
    raw = worker().deleted(50, 0).owned_by("another").raw()
    index = Index()
    index._gone_pods = {UID: {POD: raw}}
    observed = await gather(ServerWithIpuJobs(ipu_job()), BEGUN, index)
    assert observed.pods == ()


async def test_an_ipu_job_is_made_once_and_looked_for_at_once() -> None:
    """Also by the next process, if this one dies before it hears that its IPUJob was made."""
    job = make_job().spec(**SPEC).status(prepared())

    async def free(_: web.Request) -> web.Response:
        return web.json_response({"available": True, "numOfPartitions": 1, "message": ""})

    async with answering(free) as url:
        record = build_config_map(make_run(make_job().spec(**SPEC), ON_IPU_OPERATOR | {"vipuProxyUrl": url}, WITH_IPUS))
        cluster = ServerWithIpuJobs()
        cluster.objects[paths.item_of(record)] = record
        for _ in range(2):
            operator = make_operator(cluster, job.raw())
            async with aiohttp.ClientSession() as session:
                object.__setattr__(operator.gatherer, "session", session)
                operator.queue.add(UID)
                await run_until_idle(operator)
    assert len([raw for raw in cluster.objects.values() if raw["kind"] == "IPUJob"]) == 1
    assert cluster.writes().count("POST ipujobs") == 1


async def test_of_several_runs_that_hear_of_the_last_partition_one_claims_it() -> None:
    """All are told that one is free, for Graphcore's operator has made no partition yet."""

    async def free(_: web.Request) -> web.Response:
        return web.json_response({"available": True, "numOfPartitions": 1, "message": ""})

    async with answering(free) as url, aiohttp.ClientSession() as session:
        cluster, snapshot = ServerWithIpuJobs(), PLAN.snapshot.model_copy(update={"vipu_proxy_url": url})
        raws = [make_job("cxr").in_namespace(f"tenant-{n}").spec(**SPEC).status(prepared()).raw() for n in range(3)]
        for raw in raws:
            record = build_config_map(make_plan(read_xray_job(raw).ref, snapshot))
            cluster.objects[paths.item_of(record)] = record
        operator = make_operator(cluster, *raws)
        object.__setattr__(operator.gatherer, "session", session)
        for raw in raws:
            operator.queue.add(raw["metadata"]["uid"])
        workers = [asyncio.create_task(operator.work()) for _ in raws]
        while len(operator.queue) or operator.queue.busy:
            await asyncio.sleep(0)
        for worker in workers:
            worker.cancel()
    assert cluster.writes().count("POST ipujobs") == 1


async def test_a_partition_that_an_ipu_job_gets_while_the_proxy_answers_is_not_free_as_well() -> None:
    other = ipu_job(name="other")
    other["metadata"] |= {"labels": other["metadata"]["labels"] | {names.LABEL_JOB_UID: "other"}}

    async def last(_: web.Request) -> web.Response:
        other["status"]["iPUPartitionCreated"] = True
        return web.json_response({"available": True, "numOfPartitions": 1, "message": ""})

    async with answering(last) as url:
        cluster = ServerWithIpuJobs(other)
        record = build_config_map(replace(PLAN, snapshot=PLAN.snapshot.model_copy(update={"vipu_proxy_url": url})))
        cluster.objects[paths.item_of(record)] = record
        assert (await gather(cluster)).capacity == Capacity(1, promised=1)


@pytest.mark.parametrize(
    ("size", "ipus", "status", "count"),
    [
        (4, "4", {}, 1),
        (4, "16", {}, 4),
        (16, "4", {}, 1),
        (4, "many", {}, 1),
        (4, "4", {"lastMessage": "no 4 IPUs are free"}, 1),
        (4, "4", {"iPUPartitionCreated": True}, 0),
        (4, "4", {"currentReplicas": 1}, 0),
        (4, "4", ENDED, 0),
        (4, "4", {"launcherStatus": "Completed"}, 0),
    ],
)
def test_what_an_ipu_job_without_its_partition_will_take_is_spoken_for(
    size: int, ipus: str, status: dict[str, Any], count: int
) -> None:
    raw = ipu_job(**status)
    raw["spec"]["ipusPerJobInstance"] = ipus
    assert count_promised([raw], size) == count
    assert count_promised([raw, raw], size) == 2 * count


# The V-IPU proxy

Answer = Callable[[web.Request], Awaitable[web.Response]]


class answering:
    """A V-IPU proxy on the loopback."""

    def __init__(self, answer: Answer) -> None:
        application = web.Application()
        application.router.add_post("/query", answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)

    async def __aenter__(self) -> str:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


async def test_the_proxy_is_asked_for_the_size_of_the_flavor_and_only_the_number_counts(
    session: aiohttp.ClientSession,
) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response({"available": True, "numOfPartitions": 0, "message": ""})

    async with answering(answer) as url:
        assert await fetch_capacity(session, url, 16) == Capacity(0)
    assert asked == [{"size": 16}]


@pytest.mark.parametrize(
    ("response", "trouble"),
    [
        (web.Response(status=500), "answers with status 500"),
        (web.Response(status=302, headers={"Location": "http://192.0.2.1/"}), "answers with status 302"),
        (web.Response(text="out of order"), "answers nonsense"),
        (web.json_response({"available": True}), "answers nonsense"),
        (web.json_response({"numOfPartitions": -1}), "answers nonsense"),
        (web.json_response({"numOfPartitions": "4"}), "answers nonsense"),
        (web.json_response([4]), "answers nonsense"),
        (web.Response(body=b'{"numOfPartitions": 4}' + b" " * 70000), "answers nonsense"),
    ],
)
async def test_a_proxy_that_talks_nonsense_has_said_nothing(
    session: aiohttp.ClientSession, response: web.Response, trouble: str
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return response

    async with answering(answer) as url:
        capacity = await fetch_capacity(session, url, 4)
    assert capacity.partitions is None
    assert trouble in capacity.trouble


async def test_a_proxy_that_is_slow_or_away_has_said_nothing(session: aiohttp.ClientSession) -> None:
    over = asyncio.Event()

    async def late(_: web.Request) -> web.Response:
        await over.wait()
        return web.json_response({"numOfPartitions": 4})

    async with answering(late) as url:
        assert await fetch_capacity(session, url, 4, 0.1) == Capacity(trouble="does not answer within 0.1 s")
        over.set()
    away = await fetch_capacity(session, url, 4)
    assert away == Capacity(trouble="can't be asked (ClientConnectorError)")
