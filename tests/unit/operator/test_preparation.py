"""Data are prepared by a Job of their own, shared and without accelerators, before a run's flavor is held."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.unit.operator.builders import (
    CONFIG,
    FLAVORS,
    PRICE,
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
    make_progress,
    reasons,
    started,
    told,
)
from xray_operator import names
from xray_operator.core.attempts import render_time
from xray_operator.core.manifests import build_shared_job
from xray_operator.core.observed import Observed, SharedJob, Volume, read_shared_job
from xray_operator.core.plan import JobRef, Snapshot, make_plan, plan_preparations, read_snapshot
from xray_operator.core.reconcile import Decision
from xray_operator.core.run_file import ORDERED_BY, build_run_file
from xray_operator.core.spec import FlavorSpec, JobSpec

CHEAP = make_flavor(
    "cpu",
    nodeSelector={"pool": "cpu"},
    prices=[{"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "USD", "perHour": "0.36"}],
)
OFFERED = FLAVORS | {"prepare-cpu": CHEAP}
CLAIMS = {
    "nih": Volume(frozenset({"ReadWriteOnce"}), uid="claim-1"),
    "out": Volume(frozenset({"ReadWriteOnce"}), uid="claim-2"),
}
ALONE = Observed(flavors=OFFERED, volumes=CLAIMS)
ELSE = "0b0f4c1e-5f0f-4b54-9a53-2f7b1d1c0002"
DATASET = {"source": {"pvc": {"claimName": "nih", "path": "nih"}}}
decide_first = partial(
    decide, config=CONFIG.model_copy(update={"default_prepare_flavor": "prepare-cpu"}), dataset=DATASET
)


def fixed(**spec: Any) -> Snapshot:
    """What is fixed of a run that begins now."""
    decision = decide_first(ALONE, now=1, **spec)
    assert decision.create is not None
    return read_snapshot(decision.create)


FIXED = fixed()
PREPARATION = FIXED.preparation
assert PREPARATION is not None
NAME = PREPARATION.job_name


def data_pod(
    *,
    prepares: float | None = None,
    ends: float | None = None,
    code: int = 0,
    message: str = "",
    ip: str = "10.0.0.7",
) -> PodBuilder:
    """The preparation's pod: its only container is `prepare`."""
    pod = make_pod("xray-data-pod").scheduled(10).owned_by("data-uid")
    if prepares is not None:
        pod = pod.prepares(prepares, ip)
    if ends is None:
        return pod
    pod = pod.prepared(12, ends, code, message or example("prepare-result.json"))
    return pod if code else pod.phase("Succeeded")


def data_job(*pods: PodBuilder, owners: tuple[str, ...] = (UID,), over: str = "", at_second: float = 40) -> SharedJob:
    raw = build_shared_job(make_plan(JobRef("radiology", "cxr", UID), FIXED), PREPARATION)
    references = [raw["metadata"]["ownerReferences"][0] | {"uid": uid} for uid in owners]
    raw["metadata"] |= {"uid": "data-uid", "resourceVersion": "7", "ownerReferences": references}
    if over:
        row = {"type": over, "status": "True", "reason": over, "lastTransitionTime": render_time(at(at_second))}
        raw["status"] = {"conditions": [row]}
    return read_shared_job(raw, [pod.raw() for pod in pods])


def seen(*jobs: SharedJob, snapshot: Snapshot = FIXED) -> Observed:
    return Observed(snapshot=snapshot, shared_jobs={job.name: job for job in jobs})


PREPARED = data_job(data_pod(ends=40), over="Complete")


def test_a_batch_that_the_images_do_not_fill_ends_a_run_before_its_ipus_are_held() -> None:
    config = WITH_IPUS.model_copy(update={"default_prepare_flavor": "prepare-cpu"})
    model = {"config": {"hiddenSize": 64, "layers": 4, "heads": 2, "patchSize": 16}}
    spec = {"model": model, "training": {"globalBatchSize": 521}}
    snapshot = fixed(config=config, **spec)
    decision = decide_first(seen(PREPARED, snapshot=snapshot), now=41, config=config, **spec)
    status = told(decision)
    assert decision.create is None
    words = (
        "spec.training.globalBatchSize: 521 takes 521 images per update, and there are 520 to train on; nearest is 520"
    )
    assert (status["state"], condition(status, "Stalled")) == ("Failed", ("True", "SizingImpossible", words))
    assert condition(status, "DataReady")[0] == "True"
    assert (status["cost"]["heldSeconds"], status["cost"]["total"]) == (0, "0.0030"), "its preparation alone"
    assert decide_first(seen(PREPARED, snapshot=snapshot), status, now=60, config=config, **spec) == Decision()
    off_ipus = fixed(**spec)
    assert told(decide_first(seen(PREPARED, snapshot=off_ipus), now=41, **spec))["state"] == "Preparing"


def name_for(spec: dict[str, Any], uids: dict[str, str] | None = None, image: str = "prepare:1") -> str:
    typed = JobSpec.model_validate(make_job().spec(dataset=DATASET).spec(**spec).build().spec)
    flavor = FlavorSpec.model_validate(CHEAP)
    preparation, *_ = plan_preparations(typed, "prepare-cpu", flavor, uids or {"nih": "1", "out": "2"}, image, at(1))
    return preparation.job_name


def test_accelerators_are_not_held_while_data_are_prepared() -> None:
    job = decide_first(seen()).create
    assert job is not None
    pod = job["spec"]["template"]["spec"]
    assert [container["name"] for container in pod["containers"]] == ["prepare"]
    assert "graphcore.ai/ipu" not in json.dumps([container["resources"] for container in pod["containers"]])
    assert pod["nodeSelector"] == {"pool": "cpu"}
    assert "output" not in {volume["name"] for volume in pod["volumes"]} - {"cache"}
    order = json.loads(pod["containers"][0]["args"][2])
    assert order["dataset"]["root"] == "/mnt/dataset/nih"


def found(message: str) -> Observed:
    """What is seen when the Job has prepared, and has said this."""
    return seen(data_job(data_pod(ends=40, message=message), over="Complete"))


def finished_answer(folder: str) -> str:
    """Of a preparation whose run was finished already."""
    result = json.loads(example("result.json")) | {"adopted": True, "phases": [], "output_folder": folder}
    return json.dumps(json.loads(example("prepare-result.json")) | result)


def test_a_finished_run_is_adopted_before_its_flavor_is_held() -> None:
    """Its pod would hold the flavor for seconds, and pay the price's minimum."""
    before = told(decide_first(seen(data_job(data_pod(prepares=12))), now=30))
    decision = decide_first(found(finished_answer(before["run"]["folder"])), before, now=41)
    assert decision.create is None
    status = told(decision)
    assert (status["state"], condition(status, "Succeeded")[:2]) == ("Succeeded", ("True", "Adopted"))
    assert (condition(status, "DataReady")[0], condition(status, "Ready")[0]) == ("True", "True")
    assert condition(status, "Reconciling")[0] == "False"
    assert status["results"]["adopted"] is True
    assert status["results"]["aurocMacro"] == "0.5124"
    assert status["data"]["images"] == 748
    assert status["trainerStatus"]["progress"] == "100%"
    assert (status["cost"]["heldSeconds"], status["cost"]["total"]) == (0, "0.0030"), "its preparation alone"
    assert "attempts" not in status
    assert names.SUCCEEDED in reasons(decision)
    assert decide_first(found(finished_answer("x")), status, now=60) == Decision(), "it is over"


@pytest.mark.parametrize("message", [finished_answer("another-0123456789ab"), example("prepare-result.json")])
def test_the_result_of_another_run_that_shares_the_preparation_is_none_of_this_one(message: str) -> None:
    status = told(decide_first(found(message), now=41))
    assert (status["state"], "results" in status) == ("Preparing", False)
    assert decide_first(found(message), status, now=42).create is not None


@pytest.mark.parametrize(("more", "asks"), [({}, True), ({"cache": {"claimName": "fast"}}, False)])
def test_a_preparation_is_asked_for_a_result_where_it_mounts_the_run_s_folder(more: dict[str, Any], asks: bool) -> None:
    plan = make_plan(JobRef("radiology", "cxr", UID), fixed(dataset=DATASET | more))
    assert plan.snapshot.preparation is not None
    (container,) = build_shared_job(plan, plan.snapshot.preparation)["spec"]["template"]["spec"]["containers"]
    told = [json.loads(each["value"]) for each in container["env"] if each["name"] == ORDERED_BY]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert [each["output_dir"] for each in told] == ([f"/mnt/cache/{plan.output_folder}"] if asks else [])
    assert [each | {"output_dir": ""} for each in told] == ([build_run_file(plan) | {"output_dir": ""}] if asks else [])
    assert "/mnt/cache" in mounted


@pytest.mark.parametrize(
    ("spec", "same"),
    [
        ({"training": {"epochs": 9}}, True),
        ({"flavor": "vpod4-vm"}, True),
        ({"rerun": 3}, True),
        ({"dataset": DATASET | {"verify": "Always"}}, True),
        ({"dataset": DATASET | {"imageSize": 64}}, False),
        ({"dataset": DATASET | {"split": {"seed": 1}}}, False),
        ({"dataset": {"source": {"pvc": {"claimName": "nih", "path": "other"}}}}, False),
    ],
)
def test_runs_that_need_the_same_data_share_a_preparation(spec: dict[str, Any], same: bool) -> None:
    assert (name_for(spec) == name_for({})) == same


def test_a_claim_that_was_made_anew_holds_other_data() -> None:
    assert name_for({}, {"nih": "3", "out": "2"}) != name_for({})
    assert name_for({}, image="prepare:2") != name_for({})


def test_while_data_are_prepared_the_run_has_no_job() -> None:
    decision = decide_first(seen(data_job(data_pod(prepares=12))), now=30)
    status = told(decision)
    assert (decision.create, decision.join, status["state"]) == (None, None, "Preparing")
    assert condition(status, "DataReady") == ("False", "Preparing", "pod xray-data-pod prepares the data")
    assert condition(status, "Ready")[0] == "Unknown"
    assert status["preparation"] == {
        "jobName": NAME,
        "flavor": "prepare-cpu",
        "startedAt": "2026-11-22T10:00:10Z",
        "seconds": 20,
        "billedSeconds": 20,
        "amount": "0.0020",
        "cost": "0.00 USD",
        "price": PRICE | {"perHour": "0.36", "minimumSeconds": 0, "incrementSeconds": 1},
        "attempts": [
            {
                "podName": "xray-data-pod",
                "startedAt": "2026-11-22T10:00:10Z",
                "preparingSeconds": 18,
                "idleSeconds": 2,
                "billedSeconds": 20,
                "amount": "0.0020",
            }
        ],
    }
    assert status["cost"]["heldSeconds"] == 0
    assert status["cost"]["total"] == "0.0020"
    assert status["cost"]["phases"][-1] == {"name": "DataPreparation", "seconds": 20, "amount": "0.0020"}


def test_a_run_joins_the_preparation_of_another_and_does_not_pay() -> None:
    theirs = data_job(data_pod(prepares=12), owners=(ELSE,))
    decision = decide_first(seen(theirs), now=30)
    assert (decision.join, decision.create) == (theirs, None)
    assert told(decision)["preparation"]["cost"] == "shared"
    assert "amount" not in told(decision)["preparation"]
    assert told(decision)["cost"]["total"] == "0.0000"
    assert "DataPreparation" not in {row["name"] for row in told(decision)["cost"]["phases"]}


def test_the_flavor_is_claimed_when_the_data_are_ready_and_that_is_written_down() -> None:
    first = decide_first(seen(PREPARED), now=41)
    status = told(first)
    assert first.create is None
    assert status["data"]["images"] == 748
    assert condition(status, "DataReady")[0] == "True"
    assert (status["preparation"]["finishedAt"], status["preparation"]["seconds"]) == ("2026-11-22T10:00:40Z", 30)
    second = decide_first(seen(PREPARED), status, now=42)
    assert second.create is not None
    assert second.create["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["graphcore.ai/ipu"] == "4"


def test_progress_of_the_preparation_is_none_of_the_training() -> None:
    progress = make_progress(phases=[{"name": "Preparing", "started_at": "2026-11-22T10:00:12Z"}])
    preparing = told(decide_first(replace(seen(data_job(data_pod(prepares=12))), progress=progress), now=30))
    assert preparing["trainerStatus"]["progress"] == "40%"
    prepared = told(decide_first(seen(PREPARED), preparing, now=41))
    assert "trainerStatus" not in prepared
    assert "trainerStatus" not in told(decide_first(replace(started(), snapshot=FIXED), prepared, now=43))


def preparing(former: Any = None, now: float = 30, *, answers: bool = True, **fields: Any) -> Decision:
    """A look at a run while its data is prepared by a pod that tells how far it is."""
    progress = make_progress("progress-preparing.json", **fields) if answers else None
    return decide_first(replace(seen(data_job(data_pod(prepares=12))), progress=progress), former, now=now)


READ = {
    "archivesDone": 2,
    "archives": 12,
    "images": 21034,
    "expectedImages": 112120,
    "bytesRead": 8100000000,
    "totalBytes": 42000000000,
    "imagesPerSecond": "94.1",
}


def test_how_far_a_preparation_is_is_told_until_it_is_over() -> None:
    first = told(preparing())
    assert first["data"] == READ
    assert (first["trainerStatus"]["progress"], first["trainerStatus"]["eta"]) == ("19%", "15m57s")
    assert condition(first, "DataReady")[0] == "False"
    silent = told(preparing(first, now=70, answers=False))
    assert silent["data"] == READ, "no answer changes nothing"
    over = told(decide_first(seen(PREPARED), silent, now=80))
    assert over["data"].keys() >= {"archives", "images", "digest"}
    assert not over["data"].keys() & (READ.keys() - {"archives", "images"})


def test_another_pod_begins_anew() -> None:
    first = told(preparing())
    again = data_job(data_pod(ends=40, code=20), make_pod("second", 41).scheduled(42).owned_by("data-uid").prepares(43))
    assert "data" not in told(decide_first(seen(again), first, now=50))


def test_a_run_that_stands_still_tells_nothing_of_data_that_are_not_ready() -> None:
    status = told(decide_first(seen(data_job(data_pod(prepares=12))), told(preparing()), suspend=True))
    assert "data" not in status
    assert condition(status, "DataReady")[0] == "False"


def test_a_look_at_a_preparation_is_worth_a_write_when_the_share_done_or_half_a_minute_has_moved() -> None:
    first = told(preparing(now=30))
    counts = json.loads(example("progress-preparing.json"))["data"] | {"images": 21500, "images_per_second": 90.0}
    assert preparing(first, now=59, data=counts, estimated_remaining_seconds=900).status is None
    assert told(preparing(first, now=60, data=counts))["data"]["images"] == 21500
    moved = told(preparing(first, now=35, data=counts, progress_percentage=20))
    assert (moved["data"]["images"], moved["data"]["imagesPerSecond"]) == (21500, "90.0")
    assert moved["preparation"]["seconds"] == 25


@pytest.mark.parametrize(
    ("now", "answers", "reason"),
    [(89, True, "Preparing"), (90, True, "NoProgress"), (89, False, "Preparing"), (90, False, "ProgressUnknown")],
)
def test_a_preparation_that_does_not_move_is_told_of_and_never_ended(now: float, answers: bool, reason: str) -> None:
    told_at = {"last_updated_time": render_time(at(30)), "time": render_time(at(now))}
    progress = make_progress("progress-preparing.json", **told_at) if answers else None
    before = told(preparing(last_updated_time=render_time(at(30))))
    observed = replace(seen(data_job(data_pod(prepares=12))), progress=progress)
    limits = {"noProgressSeconds": 60, "onStall": "Restart"}
    decision = decide_first(observed, before, now=now, limits=limits)
    assert (decision.create, decision.suspend, decision.delete, decision.evict) == (None, None, None, "")
    assert told(decision)["state"] == "Preparing"
    assert condition(told(decision), "Running")[:2] == ("False", reason)
    assert condition(told(decision), "Stalled")[0] == str(reason == "NoProgress")
    assert [event for event in reasons(decision) if event == "NoProgress"] == ["NoProgress"] * (reason == "NoProgress")


def test_the_queue_begins_when_the_data_are_ready() -> None:
    status = told(decide_first(seen(PREPARED), now=41))
    run = replace(started(make_pod(created=42).scheduled(50)), snapshot=FIXED)
    followed = told(decide_first(run, status, now=52))
    assert followed["times"]["queued"] == {
        "startedAt": "2026-11-22T10:00:40Z",
        "finishedAt": "2026-11-22T10:00:50Z",
        "seconds": 10,
    }
    assert followed["preparation"] == status["preparation"]


def test_a_preparation_that_failed_is_the_end_of_the_run() -> None:
    pod = data_pod(ends=40, code=11, message=example("error-result.json"))
    decision = decide_first(seen(data_job(pod, over="Failed")), now=41)
    assert told(decision)["state"] == "Failed"
    status, reason, message = condition(told(decision), "Succeeded")
    assert (status, reason) == ("False", "DataCorrupt")
    assert message.startswith(f"Job {NAME}: prepare: exit code 11: images_001.tar.gz: member 17")
    assert reasons(decision)[-1] == "Failed"


@pytest.mark.parametrize("over", ["Complete", "Failed"])
def test_a_preparation_that_ended_before_the_run_began_is_made_anew(over: str) -> None:
    decision = decide_first(seen(data_job(over=over, at_second=0)), now=30)
    assert decision.delete is not None
    assert decision.delete.uid == "data-uid"
    assert told(decision)["state"] == "Preparing"
    assert "preparation" not in told(decision)


def test_an_attempt_at_preparation_that_may_be_repeated_is_no_end() -> None:
    pod = data_pod(ends=40, code=137, message="log tail")
    decision = decide_first(seen(data_job(pod)), now=41)
    assert told(decision)["state"] == "Preparing"
    event = decision.events[-1]
    assert (event["type"], event["reason"]) == ("Warning", "AttemptFailed")
    assert event["message"].startswith("the last attempt failed: prepare ended with exit code 137 and left no result")
    assert event["message"].endswith("; it may be tried again")
    assert reasons(decide_first(seen(data_job(pod)), told(decision), now=42)) == []


def test_a_cpu_flavor_prepares_in_place() -> None:
    offered = OFFERED | {"demo-vpod4": make_flavor("cpu")}
    decision = decide_first(Observed(flavors=offered, volumes=CLAIMS))
    assert decision.create is not None
    assert read_snapshot(decision.create).preparation is None


@pytest.mark.parametrize(
    ("flavor", "reason", "message"),
    [
        (None, names.FLAVOR_NOT_FOUND, "defaultPrepareFlavor"),
        ("nowhere", names.FLAVOR_NOT_FOUND, 'spec.dataset.prepareFlavor: "nowhere" is not a flavor here'),
        ("vpod4-vm", names.FLAVOR_INVALID, 'spec.dataset.prepareFlavor: "vpod4-vm" has backend devicePlugin'),
        ("closed", names.FLAVOR_NOT_ALLOWED, 'spec.dataset.prepareFlavor: "closed" is not for namespace radiology'),
    ],
)
def test_without_a_flavor_to_prepare_on_the_job_is_refused(flavor: str | None, reason: str, message: str) -> None:
    closed = make_flavor("cpu", namespaceSelector={"matchLabels": {"team": "x"}})
    observed = replace(ALONE, flavors=OFFERED | {"closed": closed}, namespace_labels={})
    decision: Decision = decide(observed, dataset=DATASET | {"prepareFlavor": flavor})
    assert condition(told(decision), "Accepted")[:2] == ("False", reason)
    assert message in condition(told(decision), "Accepted")[2]


def test_a_preparation_on_a_lost_node_is_told_and_left_alone() -> None:
    lost = data_job(data_pod(prepares=12).on_node("rack-7").ready(containers=True, pod=False, since=20))
    decision = decide_first(seen(lost), told(preparing()), now=400)
    assert (decision.create, decision.delete) == (None, None)
    status = told(decision)
    assert status["state"] == "Preparing"
    assert condition(status, "Ready")[:2] == ("Unknown", "NodeLost")
    assert condition(status, "DataReady")[:2] == ("False", "NodeLost")


def test_two_currencies_on_one_bill_are_refused() -> None:
    in_euros = CHEAP | {"prices": [PRICE | {"currency": "EUR"}]}
    refused = told(decide_first(replace(ALONE, flavors=OFFERED | {"prepare-cpu": in_euros})))
    assert condition(refused, "Accepted")[:2] == ("False", names.FLAVOR_UNFIT)
    message = condition(refused, "Accepted")[2]
    assert 'spec.dataset.prepareFlavor: "prepare-cpu" is priced in EUR, flavor demo-vpod4 in USD' in message
    unpriced = replace(ALONE, flavors=OFFERED | {"prepare-cpu": CHEAP | {"prices": []}})
    assert decide_first(unpriced).create is not None, "what has no price clashes with none"


def test_amounts_in_a_currency_of_their_own_are_never_added_to_a_run_that_was_started_before_that_was_refused() -> None:
    assert PREPARATION is not None
    assert PREPARATION.price is not None
    in_euros = PREPARATION.model_copy(update={"price": PREPARATION.price.model_copy(update={"currency": "EUR"})})
    snapshot = FIXED.model_copy(update={"preparation": in_euros})
    status = told(decide_first(seen(data_job(data_pod(prepares=12)), snapshot=snapshot), now=1010))
    assert (status["preparation"]["cost"], status["cost"]["total"]) == ("0.10 EUR", "0.0000")
    assert status["cost"]["phases"][-1] == {"name": "DataPreparation", "seconds": 1000}


def test_what_was_paid_for_a_preparation_goes_to_who_pays_in_the_end() -> None:
    paid = told(decide_first(seen(data_job(data_pod(prepares=12))), now=1010))
    assert paid["cost"]["total"] == "0.1000"
    left = told(decide_first(seen(data_job(data_pod(prepares=12), owners=(ELSE, UID))), paid, now=1050))
    assert (left["preparation"]["cost"], left["cost"]["total"]) == ("shared", "0.0000")
    back = told(decide_first(seen(data_job(data_pod(prepares=12), owners=(UID,))), left, now=1100))
    assert back["cost"]["total"] == "0.1090"


def test_a_pod_of_a_preparation_that_is_gone_stays_on_the_bill() -> None:
    first = told(decide_first(seen(data_job(data_pod(prepares=12))), now=110))
    again = data_job(make_pod("second", 150).scheduled(160).owned_by("data-uid").prepares(163))
    status = told(decide_first(seen(again), first, now=170))
    assert [row["podName"] for row in status["preparation"]["attempts"]] == ["xray-data-pod", "second"]
    assert (status["preparation"]["seconds"], status["preparation"]["estimated"]) == (160 + 10, True)
    assert status["cost"]["estimated"]
