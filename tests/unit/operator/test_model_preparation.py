"""A hub model is fetched by a Job of its own, beside the one that prepares the data and shared apart from it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.unit.operator.builders import (
    CONFIG,
    UID,
    PodBuilder,
    at,
    condition,
    example,
    fix_run,
    make_flavor,
    make_job,
    make_pod,
    make_progress,
    make_run,
    started,
    told,
)
from tests.unit.operator.test_preparation import CHEAP, DATASET, decide_first, fixed
from xray_operator.config import CaBundle, OperatorConfig, Pod
from xray_operator.core.attempts import render_time
from xray_operator.core.manifests import build_job, build_shared_job
from xray_operator.core.observed import Observed, SharedJob, read_shared_job
from xray_operator.core.plan import JobRef, Plan, Preparation, make_plan, plan_preparations
from xray_operator.core.spec import FlavorSpec, JobSpec

MODEL = {"name": "google/vit-base-patch16-224-in21k", "revision": "main"}
COMMIT = json.loads(example("model-result.json"))["model"]["commit"]
decide_model = partial(decide_first, model=MODEL)
FIXED = fixed(model=MODEL)
DATA, FETCH = FIXED.preparations
PLAN = make_plan(JobRef("radiology", "cxr", UID), FIXED)


def model_plan(config: OperatorConfig = CONFIG, **model: str | None) -> Plan:
    """A run from a hub model, whose data and model have Jobs of their own."""
    job = make_job().spec(model=model, dataset=DATASET)
    spec = JobSpec.model_validate(job.build().spec)
    flavors = [FlavorSpec.model_validate(flavor) for flavor in (make_flavor(), CHEAP)]
    preparations = plan_preparations(spec, "prepare-cpu", flavors[1], {}, "prepare:1", at(1))
    return make_plan(job.build().ref, fix_run(spec, flavors[0], config, preparations=preparations))


def shared(
    preparation: Preparation, *pods: PodBuilder, over: str = "", at_second: float = 40, owner: str = UID
) -> SharedJob:
    raw = build_shared_job(PLAN, preparation)
    raw["metadata"] |= {"uid": f"{preparation.kind}-uid", "resourceVersion": "7"}
    raw["metadata"]["ownerReferences"][0]["uid"] = owner
    if over:
        row = {"type": over, "status": "True", "reason": over, "lastTransitionTime": render_time(at(at_second))}
        raw["status"] = {"conditions": [row]}
    return read_shared_job(raw, [pod.owned_by(f"{preparation.kind}-uid").raw() for pod in pods])


def pod_of(preparation: Preparation) -> PodBuilder:
    return make_pod(f"{preparation.job_name}-pod").scheduled(10)


WAITING = {"data": shared(DATA, pod_of(DATA).prepares(12)), "model": shared(FETCH, pod_of(FETCH).prepares(12))}
DATA_READY = shared(DATA, pod_of(DATA).prepared(12, 40).phase("Succeeded"), over="Complete")
MODEL_READY = shared(
    FETCH,
    pod_of(FETCH).prepared(12, 45, message=example("model-result.json")).phase("Succeeded"),
    over="Complete",
    at_second=45,
)


def seen_both(**jobs: SharedJob) -> Observed:
    """Both Jobs are there; those that are not given go on."""
    found = (WAITING | jobs).values()
    return Observed(snapshot=FIXED, shared_jobs={job.name: job for job in found})


def test_both_jobs_are_made_before_the_run_s_own() -> None:
    first = decide_model(Observed(snapshot=FIXED)).create
    second = decide_model(Observed(snapshot=FIXED, shared_jobs={DATA.job_name: WAITING["data"]})).create
    assert first is not None
    assert second is not None
    assert [first["metadata"]["name"], second["metadata"]["name"]] == [DATA.job_name, FETCH.job_name]
    assert FETCH.job_name.startswith("xray-model-")
    assert decide_model(seen_both(), now=30).create is None


def test_the_model_s_job_mounts_the_cache_alone_and_holds_no_accelerator() -> None:
    pod = build_shared_job(PLAN, FETCH)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/mnt/cache", "/tmp", "/dev/shm"]
    assert [volume["name"] for volume in pod["volumes"]] == ["cache", "tmp", "shared-memory"]
    assert "graphcore.ai/ipu" not in json.dumps(pod)
    assert pod["nodeSelector"] == {"pool": "cpu"}
    command, _, order = container["args"]
    assert command == "prepare-model"
    assert json.loads(order) == {
        "version": 1,
        "name": FETCH.job_name,
        "hub_name": MODEL["name"],
        "revision": "main",
        "cache_dir": "/mnt/cache/xray-cache",
        "progress_port": 9400,
    }


def names_for(uids: dict[str, str] | None = None, image: str = "prepare:1", **spec: Any) -> tuple[str, ...]:
    typed = JobSpec.model_validate(make_job().spec(dataset=DATASET, model=MODEL).spec(**spec).build().spec)
    flavor = FlavorSpec.model_validate(CHEAP)
    planned = plan_preparations(typed, "prepare-cpu", flavor, uids or {"nih": "1", "out": "2"}, image, at(1))
    return tuple(preparation.job_name for preparation in planned)


@pytest.mark.parametrize(
    ("other", "same_data", "same_model"),
    [
        ({"training": {"epochs": 9}}, True, True),
        ({"model": MODEL | {"name": "example/vit"}}, True, False),
        ({"model": MODEL | {"revision": "v1"}}, True, False),
        ({"dataset": DATASET | {"split": {"seed": 1}}}, False, True),
        ({"uids": {"nih": "3", "out": "2"}}, False, True),
        ({"uids": {"nih": "1", "out": "3"}}, False, False),
        ({"image": "prepare:2"}, False, False),
    ],
)
def test_data_and_model_are_shared_apart(other: dict[str, Any], same_data: bool, same_model: bool) -> None:
    one, two = names_for(), names_for(**other)
    assert (one[0] == two[0], one[1] == two[1]) == (same_data, same_model)


@pytest.mark.parametrize("model", [{"name": "vit-tiny", "claimName": "models"}, {"config": {"hiddenSize": 64}}])
def test_a_model_that_is_of_no_hub_has_no_job(model: dict[str, Any]) -> None:
    config = {"layers": 2, "heads": 2, "patchSize": 16}
    model = {"config": model["config"] | config} if "config" in model else model
    assert len(names_for(model=model)) == 1


@pytest.mark.parametrize(
    ("jobs", "ready", "message"),
    [
        ({}, "False", f"pod {DATA.job_name}-pod prepares the data; pod {FETCH.job_name}-pod fetches the model"),
        ({"data": DATA_READY}, "False", f"pod {FETCH.job_name}-pod fetches the model"),
        ({"model": MODEL_READY}, "False", f"pod {DATA.job_name}-pod prepares the data"),
        ({"data": DATA_READY, "model": MODEL_READY}, "True", "748 images of 219 patients"),
    ],
)
def test_data_ready_says_what_is_waited_for(jobs: dict[str, SharedJob], ready: str, message: str) -> None:
    decision = decide_model(seen_both(**jobs), now=46)
    assert decision.create is None
    status, _, text = condition(told(decision), "DataReady")
    assert (status, text[: len(message)]) == (ready, message)
    assert ("data" in told(decision), "model" in told(decision)) == ("data" in jobs, "model" in jobs)


def test_the_flavor_is_claimed_when_both_are_over_and_the_commit_is_told() -> None:
    observed = seen_both(data=DATA_READY, model=MODEL_READY)
    status = told(decide_model(observed, now=46))
    assert status["model"] == {**MODEL, "commit": COMMIT, "bytes": 345600000}
    assert status["preparation"]["seconds"] == 30
    assert status["modelPreparation"]["seconds"] == 35
    created = decide_model(observed, status, now=47).create
    assert created is not None
    assert created["metadata"]["name"] == PLAN.run_name


@pytest.mark.parametrize(("jobs", "ready"), [({"data": DATA_READY}, "False"), ({}, "True")])
def test_what_is_suspended_has_its_data_when_both_are_there(jobs: dict[str, SharedJob], ready: str) -> None:
    former = told(decide_model(seen_both(**(jobs or {"data": DATA_READY, "model": MODEL_READY})), now=46))
    status = told(decide_model(seen_both(), former, suspend=True))
    assert (status["state"], condition(status, "DataReady")[0]) == ("Suspended", ready)


def test_the_queue_begins_when_the_later_of_both_is_over_and_the_commit_stays_told() -> None:
    status = told(decide_model(seen_both(data=DATA_READY, model=MODEL_READY), now=46))
    followed = told(decide_model(started(make_pod(created=46).scheduled(50)), status, now=52))
    assert followed["times"]["queued"]["startedAt"] == render_time(at(45))
    assert followed["model"] == status["model"]
    assert followed["modelPreparation"] == status["modelPreparation"]


@pytest.mark.parametrize("jobs", [{}, {"data": DATA_READY}, {"model": MODEL_READY}])
def test_a_look_at_two_preparations_is_worth_a_write_after_half_a_minute(jobs: dict[str, SharedJob]) -> None:
    observed = replace(seen_both(**jobs), progress=make_progress("progress-preparing.json"))
    before = told(decide_model(observed, now=46))
    assert decide_model(observed, before, now=75).status is None
    status = told(decide_model(observed, before, now=76))
    finished = {"preparation": "data" in jobs, "modelPreparation": MODEL_READY in jobs.values()}
    for section, over in finished.items():
        assert status[section]["seconds"] - before[section]["seconds"] == (0 if over else 30)


def test_what_the_run_s_own_pod_has_found_is_what_counts() -> None:
    """A branch may have moved between two attempts of a job that was created again; its first commit stays."""
    former = told(decide_model(seen_both(data=DATA_READY, model=MODEL_READY), now=46))
    pinned = {**MODEL, "commit": "0" * 40, "bytes": 7}
    message = json.dumps(json.loads(example("prepare-result.json")) | {"model": pinned})
    followed = told(decide_model(started(make_pod().scheduled(50).prepared(51, 52, 0, message)), former, now=53))
    assert followed["model"] == pinned


def test_a_model_that_can_not_be_had_ends_the_run_while_its_data_are_prepared() -> None:
    refused = json.dumps(
        json.loads(example("error-result.json"))
        | {"exit_code": 10, "reason": "ConfigurationInvalid", "message": "spec.model.name: a/b: not on the hub"}
    )
    failed = shared(FETCH, pod_of(FETCH).prepared(12, 20, 10, refused), over="Failed", at_second=20)
    status = told(decide_model(seen_both(model=failed), now=21))
    assert status["state"] == "Failed"
    assert condition(status, "Succeeded")[1] == "ConfigurationInvalid"
    assert condition(status, "Stalled")[2].endswith("spec.model.name: a/b: not on the hub")


REFUSED = json.loads(example("error-result.json")) | {"exit_code": 10, "reason": "ConfigurationInvalid"}
NO_MODEL = shared(FETCH, pod_of(FETCH).prepared(12, 20, 10, json.dumps(REFUSED)), over="Failed", at_second=20)


def data_of(*owners: str) -> SharedJob:
    going = shared(DATA, pod_of(DATA).prepares(12))
    return replace(going, owners=tuple(going.owners[0] | {"uid": owner} for owner in owners))


def test_what_nobody_else_waits_for_ends_with_the_run_that_failed_and_is_paid_until_then() -> None:
    former = told(decide_model(seen_both(), now=19))
    decision = decide_model(seen_both(model=NO_MODEL), former, now=21)
    assert (decision.delete.uid if decision.delete else None, decision.leave) == ("data-uid", None)
    status = told(decision)
    assert (status["state"], condition(status, "Stalled")[1]) == ("Failed", "ConfigurationInvalid")
    assert status["modelPreparation"]["finishedAt"] == render_time(at(20))
    told_of = status["preparation"]
    assert (told_of["finishedAt"], told_of["seconds"], told_of["amount"]) == (render_time(at(21)), 11, "0.0011")


@pytest.mark.parametrize("owners", [(UID, "another"), ("another", UID)])
def test_a_run_that_failed_leaves_what_others_wait_for_to_them(owners: tuple[str, ...]) -> None:
    data = data_of(*owners)
    decision = decide_model(
        seen_both(data=data, model=NO_MODEL), told(decide_model(seen_both(data=data), now=19)), now=21
    )
    assert (decision.leave, decision.delete) == (data, None)
    status = told(decision)
    assert status["state"] == "Failed"
    assert (status["preparation"]["finishedAt"], status["preparation"]["cost"]) == (render_time(at(21)), "shared")


@pytest.mark.parametrize(
    "data",
    [
        DATA_READY,
        replace(data_of(UID), deleting=True),
        data_of("another"),
        shared(DATA, over="Failed", at_second=0),
        None,
    ],
)
def test_a_run_that_failed_touches_nothing_that_is_over_or_not_its_own(data: SharedJob | None) -> None:
    jobs = [NO_MODEL, *([data] if data else [])]
    decision = decide_model(Observed(snapshot=FIXED, shared_jobs={job.name: job for job in jobs}), now=45)
    assert (decision.create, decision.join, decision.leave, decision.delete) == (None, None, None, None)
    assert told(decision)["state"] == "Failed"


def test_the_failure_is_told_though_the_operator_ended_between_the_deletion_and_its_word() -> None:
    former = told(decide_model(seen_both(), now=19))
    decision = decide_model(Observed(snapshot=FIXED, shared_jobs={FETCH.job_name: NO_MODEL}), former, now=60)
    assert told(decision)["state"] == "Failed"
    left = told(decision)["preparation"]
    assert (left["finishedAt"], left["seconds"], left["estimated"]) == (render_time(at(60)), 50, True)
    assert former["preparation"]["seconds"] == 9


def test_each_job_is_joined_and_made_anew_by_itself() -> None:
    theirs = shared(FETCH, pod_of(FETCH).prepares(12), owner="another")
    assert decide_model(seen_both(model=theirs), now=30).join == theirs
    former = shared(FETCH, over="Complete", at_second=0)
    decision = decide_model(seen_both(data=DATA_READY, model=former), now=46)
    assert decision.delete is not None
    assert decision.delete.uid == "model-uid"
    assert "modelPreparation" not in told(decision)
    assert told(decision)["preparation"]["jobName"] == DATA.job_name
    assert condition(told(decision), "Running")[2] == "waiting for a Job that fetches the model"


FETCHED = told(decide_model(seen_both(model=MODEL_READY), now=46))
"""The model is there, the data go on."""


@pytest.mark.parametrize("end", ["gone", "deleted", "fetched anew", "failed", "at another commit", "outdated"])
def test_a_run_that_has_its_model_keeps_it_whatever_becomes_of_the_job(end: str) -> None:
    """A later run of the same model deletes the Job and makes it anew, while this one waits for its data."""
    moved = json.dumps({"version": 1, "exit_code": 0, "model": {**MODEL, "commit": "0" * 40, "bytes": 7}})
    fetching = pod_of(FETCH)
    later = {
        "deleted": replace(MODEL_READY, deleting=True),
        "fetched anew": shared(FETCH, fetching.prepares(61), owner="another"),
        "failed": shared(FETCH, pod_of(FETCH).prepared(61, 62, 20), over="Failed", at_second=62, owner="another"),
        "at another commit": shared(
            FETCH, pod_of(FETCH).prepared(61, 62, 0, moved), over="Complete", at_second=62, owner="another"
        ),
        "outdated": shared(FETCH, over="Complete", at_second=0),
    }.get(end)
    jobs = [WAITING["data"], *([later] if later else [])]
    waiting = decide_model(Observed(snapshot=FIXED, shared_jobs={job.name: job for job in jobs}), FETCHED, now=80)
    assert (waiting.create, waiting.join, waiting.delete) == (None, None, None)
    assert told(waiting)["state"] == "Preparing"
    assert [told(waiting)[part] for part in ("model", "modelPreparation")] == [
        FETCHED["model"],
        FETCHED["modelPreparation"],
    ]
    jobs[0] = DATA_READY
    ready = decide_model(Observed(snapshot=FIXED, shared_jobs={job.name: job for job in jobs}), told(waiting), now=90)
    status = told(ready)
    assert condition(status, "DataReady")[0] == "True"
    assert (
        condition(status, "Running")[2]
        == f"Job {DATA.job_name} has prepared the data; Job {FETCH.job_name} has fetched the model"
    )
    assert status["modelPreparation"]["cost"] == FETCHED["modelPreparation"]["cost"] != "shared"
    assert decide_model(Observed(snapshot=FIXED), status, now=91).create is not None


def test_a_run_that_has_its_data_keeps_them_while_its_model_is_slower() -> None:
    former = told(decide_model(seen_both(data=DATA_READY), now=41))
    anew = shared(DATA, pod_of(DATA).prepared(50, 55, 20), over="Failed", at_second=55, owner="another")
    decision = decide_model(seen_both(data=anew), former, now=80)
    assert (decision.create, decision.join, decision.delete) == (None, None, None)
    assert told(decision)["state"] == "Preparing"
    assert (told(decision)["data"], told(decision)["preparation"]) == (former["data"], former["preparation"])


def test_a_rerun_has_everything_prepared_anew() -> None:
    again = fixed(model=MODEL, rerun=1)
    former = FETCHED | {"rerun": 0}
    observed = Observed(snapshot=again, shared_jobs={DATA.job_name: WAITING["data"]})
    created = decide_model(observed, former, now=80, rerun=1).create
    assert created is not None
    assert created["metadata"]["name"] == FETCH.job_name


def test_the_run_s_pod_is_given_the_commit_that_was_fetched_for_it() -> None:
    status = told(decide_model(seen_both(data=DATA_READY, model=MODEL_READY), now=46))
    created = decide_model(Observed(snapshot=FIXED), status, now=47).create
    assert created is not None
    (prepare,) = created["spec"]["template"]["spec"]["initContainers"]
    assert prepare["args"] == ["prepare", "--run-file", "/etc/xray/run.json", "--model-commit", COMMIT]


OFFLINE = {"name": "HF_HUB_OFFLINE", "value": "1"}


def test_a_run_that_was_fixed_before_models_had_jobs_can_still_fetch_its_own() -> None:
    pod = Pod(hugging_face_endpoint="https://hub.example", ca_bundle=CaBundle(config_map_name="hospital-ca"))
    plan = model_plan(CONFIG.model_copy(update={"pod": pod}), name="example/vit")
    old = replace(plan, snapshot=plan.snapshot.model_copy(update={"model_preparation": None}))
    own = build_job(old, COMMIT)["spec"]["template"]["spec"]
    for container in (*own["initContainers"], *own["containers"]):
        assert {"name": "HF_ENDPOINT", "value": "https://hub.example"} in container["env"]
        assert "ca-bundle" in {mount["name"] for mount in container["volumeMounts"]}
        assert OFFLINE not in container["env"]
        assert "--model-commit" not in container["args"]


def test_the_hub_s_address_reaches_those_who_fetch_and_nobody_else() -> None:
    pod = Pod(hugging_face_endpoint="https://hub.example", ca_bundle=CaBundle(config_map_name="hospital-ca"))
    config = CONFIG.model_copy(update={"pod": pod})
    plan = model_plan(config, name="example/vit")
    fetch = plan.snapshot.model_preparation
    assert fetch is not None
    own, fetching = (
        manifest["spec"]["template"]["spec"] for manifest in (build_job(plan), build_shared_job(plan, fetch))
    )
    assert {"name": "HF_ENDPOINT", "value": "https://hub.example"} in fetching["containers"][0]["env"]
    assert "hospital-ca" in json.dumps(fetching)
    assert "HF_ENDPOINT" not in json.dumps(own)
    assert "hospital-ca" not in json.dumps(own)
    assert OFFLINE in own["containers"][0]["env"]
    in_place = build_job(make_run(make_job().spec(model=MODEL), config=config))["spec"]["template"]["spec"]
    assert "HF_ENDPOINT" in json.dumps(in_place["initContainers"])
    assert "HF_ENDPOINT" not in json.dumps(in_place["containers"])
