"""What a run is fixed to, what an edit does to it, and how another run begins: by `rerun` and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.builders import (
    FLAVORS,
    condition,
    decide,
    make_job,
    make_pod,
    make_progress,
    make_snapshot,
    started,
    told,
    train_result,
)
from xray_operator import names
from xray_operator.core.observed import JobHandle, Observed, Refusal, Unreadable
from xray_operator.core.reconcile import Decision
from xray_operator.core.spec import JobSpec

RUNNING = make_pod().scheduled(10).prepared(12, 40).trains(42)
FINISHED = make_pod().scheduled(10).prepared(12, 40).trained(42, 110)


def test_an_edit_of_a_live_run_is_told_and_changes_nothing() -> None:
    status = told(decide(started(RUNNING, progress=make_progress()), training={"epochs": 9}, generation=2))
    assert condition(status, "Accepted")[:2] == ("True", "EditsPending")
    assert "spec.training.epochs: edited after the start; takes effect with rerun 1" in condition(status, "Accepted")[2]
    assert status["state"] == "Training"
    assert status["observedGeneration"] == 2


def test_an_edit_that_is_taken_back_is_forgotten() -> None:
    edited = told(decide(started(RUNNING, progress=make_progress()), training={"epochs": 9}, generation=2))
    status = told(decide(started(RUNNING, progress=make_progress()), status=edited, generation=3))
    assert condition(status, "Accepted")[1] == "Accepted"


@pytest.mark.parametrize(
    "live", [{"suspend": True}, {"readyWhen": "Succeeded"}, {"limits": {"runSeconds": 6000}}, {"training": {}}]
)
def test_what_acts_at_once_is_no_pending_edit(live: dict[str, Any]) -> None:
    status = told(decide(started(RUNNING, progress=make_progress()), **live))
    assert condition(status, "Accepted")[1] == "Accepted"


def test_an_edit_before_the_start_simply_counts() -> None:
    decision = decide(Observed(flavors=FLAVORS), training={"epochs": 9}, generation=2)
    assert decision.create is not None
    assert '"epochs": 9' in decision.create["data"]["run.json"]


def test_an_edit_after_the_end_is_acknowledged_and_starts_nothing() -> None:
    finished = told(decide(started(FINISHED, end="Complete")))
    gone = Observed(snapshot=make_snapshot())
    acknowledged = told(decide(gone, status=finished, generation=2, training={"epochs": 9}))
    assert acknowledged["observedGeneration"] == 2
    assert {row["observedGeneration"] for row in acknowledged["conditions"]} == {2}
    assert condition(acknowledged, "Accepted")[1] == "EditsPending"
    assert {k: v for k, v in acknowledged.items() if k not in ("observedGeneration", "conditions")} == {
        k: v for k, v in finished.items() if k not in ("observedGeneration", "conditions")
    }
    assert decide(gone, status=acknowledged, generation=2, training={"epochs": 9}) == Decision()


@pytest.mark.parametrize("change", [{"suspend": True}, {"limits": {"runSeconds": 60}}, {"training": {"epochs": 9}}])
@pytest.mark.parametrize("children", [started(FINISHED, end="Complete"), Observed(flavors=FLAVORS)])
def test_nothing_but_rerun_runs_a_finished_job_again(children: Observed, change: dict[str, Any]) -> None:
    finished = told(decide(started(FINISHED, end="Complete")))
    decision = decide(children, status=finished, generation=2, **change)
    assert (decision.create, decision.delete, decision.suspend) == (None, None, None)


def test_a_job_that_finished_before_there_were_reruns_is_not_run_again() -> None:
    finished = told(decide(started(FINISHED, end="Complete")))
    del finished["rerun"]
    assert decide(Observed(flavors=FLAVORS), status=finished) == Decision()


def test_rerun_while_running_stops_the_run_first_and_goes_on_counting_what_it_costs() -> None:
    before = told(decide(started(RUNNING, progress=make_progress()), now=100))
    decision = decide(started(RUNNING), status=before, now=130, generation=2, rerun=1)
    assert decision.delete is not None
    assert (decision.create, decision.delete.rerun) == (None, 0)
    status = told(decision)
    assert status["rerun"] == 0
    assert condition(status, "Reconciling")[:2] == ("True", "Superseded")
    assert status["cost"]["heldSeconds"] == 120
    ending = decide(started(RUNNING, deleting=True), status=status, now=140, generation=2, rerun=1)
    assert ending.delete is None, "it was told once"
    assert (
        told(decide(started(RUNNING, deleting=True), status=status, now=170, generation=2, rerun=1))["cost"][
            "heldSeconds"
        ]
        == 160
    )


def test_the_end_of_a_former_run_is_no_failure_for_who_waits_for_the_next() -> None:
    before = told(decide(started(RUNNING, progress=make_progress()), now=100))
    ended = decide(started(gone=[RUNNING], job_gone=True), status=before, now=130, generation=2, rerun=1)
    status = told(ended)
    assert (status["state"], status["rerun"], status["observedGeneration"]) == ("Stopped", 0, 2)
    assert condition(status, "Stalled")[0] == "False"
    assert condition(status, "Ready")[:2] == ("Unknown", "Superseded")
    assert condition(status, "Reconciling")[0] == "True"
    assert decide(Observed(flavors=FLAVORS), status=status, now=131, generation=2, rerun=1).create is not None


def test_the_queue_of_a_rerun_begins_with_the_rerun() -> None:
    finished = told(decide(started(FINISHED, end="Complete")))
    second = make_job().spec(rerun=1)
    seen = started(make_pod("cxr-2", 100002), job=second, started_at=100000)
    status = told(decide(seen, finished, 100010, 2, rerun=1))
    assert status["times"]["queued"] == {"startedAt": "2026-11-23T13:46:40Z"}


def test_an_edit_while_the_job_is_refused_is_told_to_wait() -> None:
    refused = Observed(snapshot=make_snapshot(), refused=Refusal("Job cxr-1234567", "exceeded quota"))
    message = condition(told(decide(refused, flavor="cheaper", generation=2)), "Accepted")[2]
    assert "exceeded quota" in message
    assert "spec.flavor: edited after the start; takes effect with rerun 1" in message


def test_rerun_after_the_end_makes_a_new_run_and_keeps_what_the_former_one_gave_and_cost() -> None:
    finished = told(decide(started(FINISHED, end="Complete")))
    over = started(FINISHED, end="Complete")
    assert decide(over, status=finished, generation=2, rerun=1) == Decision(
        delete=over.job.handle if over.job else None
    )
    fresh = decide(Observed(flavors=FLAVORS), status=finished, now=300, generation=2, rerun=1)
    assert fresh.create is not None
    second = make_job().spec(rerun=1)
    status = told(decide(started(make_pod("cxr-2", 305), job=second), finished, 310, 2, rerun=1))
    assert status["state"] == "Queued"
    assert status["rerun"] == 1
    assert status["cost"]["heldSeconds"] == 0
    assert "results" not in status
    (row,) = status["formerRuns"]
    assert (row["rerun"], row["state"], row["aurocMacro"]) == (0, "Succeeded", "0.5124")
    assert row["cost"] == finished["cost"]["display"]
    assert row["folder"] == finished["run"]["folder"] != status["run"]["folder"]


def test_a_rerun_tells_its_milestones_as_its_own() -> None:
    finished = told(decide(started(FINISHED, end="Complete")))
    second = make_job().spec(rerun=1)
    decision = decide(started(make_pod("cxr-2", 305), job=second), finished, 310, 2, rerun=1)
    assert [event["reason"] for event in decision.events] == ["Accepted", "Created"]


def test_only_the_last_ten_former_runs_are_kept() -> None:
    status: Any = None
    for rerun in range(12):
        job = make_job().spec(rerun=rerun)
        status = told(decide(started(FINISHED, end="Complete", job=job), status, rerun=rerun))
    assert [row["rerun"] for row in status["formerRuns"]] == list(range(1, 11))


def test_a_former_run_without_its_record_is_ended_too() -> None:
    handle = JobHandle("radiology", "cxr-1234567", "uid", rerun=0, deleting=False)
    decision = decide(Observed(unreadable=Unreadable("ConfigMap cxr-1234567 is gone", handle)), rerun=1)
    assert decision == Decision(delete=handle)


def test_a_run_that_was_fixed_and_has_no_job_goes_on_as_it_was_fixed() -> None:
    snapshot = make_snapshot()
    decision = decide(Observed(snapshot=snapshot), training={"epochs": 9}, flavor="vpod99", generation=2)
    assert decision.create is not None
    assert decision.create["kind"] == "Job"
    assert decision.create["metadata"]["labels"][names.LABEL_FLAVOR] == "demo-vpod4"


def folder(uid: str = "u", name: str = "cxr", trains_with: str = "torch", **spec: Any) -> str:
    job = make_job(name).spec(**spec).build()
    return job.ref.__class__("radiology", name, uid).output_folder(JobSpec.model_validate(job.spec), trains_with)


def test_a_job_that_is_created_again_finds_its_folder_and_no_other_run_does() -> None:
    dataset = {"source": {"pvc": {"claimName": "nih", "path": "nih"}}}
    again = [folder(uid="v"), folder(suspend=True), folder(limits={"runSeconds": 60}), folder(training={"epochs": 3})]
    again += [folder(checkpoint={"keep": 1}), folder(dataset=dataset | {"cache": {"claimName": "c"}})]
    again += [folder(dataset=dataset | {"verify": "Always"}), folder(ipu={}), folder(ipu={"scaling": "Keep"})]
    assert set(again) == {folder()}
    others = [folder(rerun=1), folder(name="cxr2"), folder(training={"epochs": 4}), folder(flavor="vpod4-vm")]
    others += [folder(dataset=dataset | {"imageSize": 256}), folder(model={"name": "vit"})]
    others += [folder(ipu={"scaling": "Linear"}), folder(trains_with="ipu")]
    assert len({folder(), *others}) == 1 + len(others)


def test_an_adopted_result_says_so() -> None:
    pod = make_pod().scheduled(10).prepared(12, 14).trained(15, 17, message=train_result(adopted=True, phases=[]))
    status = told(decide(started(pod, end="Complete")))
    assert condition(status, "Succeeded")[:2] == ("True", "Adopted")
    assert "nothing was computed again" in condition(status, "Succeeded")[2]
    assert status["results"]["adopted"] is True
    assert status["cost"]["heldSeconds"] == 7
