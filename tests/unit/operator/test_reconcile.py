"""Scenarios at the one function that decides."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.builders import (
    FLAVORS,
    WITH_IPUS,
    condition,
    decide,
    ended,
    example,
    make_flavor,
    make_job,
    make_pod,
    make_progress,
    make_snapshot,
    reasons,
    started,
    told,
    train_result,
)
from xray_operator import names
from xray_operator.config import OperatorConfig
from xray_operator.core.observed import Observed, Refusal, Unreadable
from xray_operator.core.plan import runs_on
from xray_operator.core.reconcile import Decision

FINISHED = make_pod().scheduled(10).prepared(12, 40).trained(42, 110)


def test_a_run_begins_with_its_config_map_and_nothing_else() -> None:
    decision = decide(Observed(flavors=FLAVORS))
    assert decision.create is not None
    assert decision.create["kind"] == "ConfigMap"
    assert (decision.status, decision.events) == (None, ())


def test_the_job_is_built_from_the_snapshot_that_is_stored_not_from_the_flavor_as_it_is_now() -> None:
    stored = make_snapshot(make_flavor(accelerators=16))
    decision = decide(Observed(flavors=FLAVORS, snapshot=stored))
    assert decision.create is not None
    assert decision.create["kind"] == "Job"
    train = decision.create["spec"]["template"]["spec"]["containers"][0]
    assert train["resources"]["limits"]["graphcore.ai/ipu"] == "16"


REFUSALS = [
    (
        Observed(flavors=FLAVORS),
        {"flavor": "vpod99"},
        names.FLAVOR_NOT_FOUND,
        'spec.flavor: "vpod99" is not a flavor here; demo-vpod4, vpod4-vm are',
    ),
    (Observed(), {}, names.FLAVOR_NOT_FOUND, "there is none yet"),
    (
        Observed(
            flavors={"demo-vpod4": make_flavor(namespaceSelector={"matchLabels": {"team": "x"}})},
            namespace_labels={"team": "y"},
        ),
        {},
        names.FLAVOR_NOT_ALLOWED,
        'spec.flavor: "demo-vpod4" is not for namespace radiology, which lacks the label team=x',
    ),
    (
        Observed(flavors=FLAVORS, volumes={"nih": None, "out": None}),
        {},
        names.CLAIM_NOT_FOUND,
        'spec.dataset.source.pvc.claimName: "nih" is not a PersistentVolumeClaim in namespace radiology',
    ),
    (
        Observed(flavors=FLAVORS, snapshot=make_snapshot(), taken="Job cxr-1234567"),
        {},
        names.NAME_TAKEN,
        "Job cxr-1234567 exists in namespace radiology",
    ),
    (
        Observed(flavors=FLAVORS, refused=Refusal("ConfigMap cxr-1234567", "exceeded quota: no-jobs")),
        {},
        names.CREATION_REFUSED,
        "ConfigMap cxr-1234567 is refused by the API server, and will be tried again: exceeded quota",
    ),
    (
        Observed(flavors=FLAVORS, snapshot=make_snapshot(), refused=Refusal("Job cxr-1234567", "no")),
        {},
        names.CREATION_REFUSED,
        "Job cxr-1234567",
    ),
    (
        Observed(flavors=FLAVORS, unreadable=Unreadable("ConfigMap cxr-1234567: unreadable snapshot.json")),
        {},
        names.RECORD_UNREADABLE,
        "ConfigMap cxr-1234567: unreadable snapshot.json: what the run uses and costs is not known; raise rerun",
    ),
    (Observed(flavors=FLAVORS), {"training": {"epochs": 0}}, names.SPEC_INVALID, "spec.training.epochs: 0 "),
    (Observed(flavors={"demo-vpod4": {"backend": "tpu"}}), {}, names.FLAVOR_INVALID, "AcceleratorFlavor demo-vpod4"),
    (Observed(flavors={"demo-vpod4": make_flavor(host={"cpu": -5})}), {}, names.FLAVOR_INVALID, "-5"),
    (Observed(flavors={"demo-vpod4": "nonsense"}), {}, names.FLAVOR_INVALID, "AcceleratorFlavor demo-vpod4"),
]


@pytest.mark.parametrize(("observed", "spec", "reason", "message"), REFUSALS)
def test_a_job_that_cannot_start_says_why(observed: Observed, spec: dict[str, Any], reason: str, message: str) -> None:
    decision = decide(observed, **spec)
    assert decision.create is None
    status = told(decision)
    assert condition(status, "Accepted")[:2] == ("False", reason)
    assert message in condition(status, "Accepted")[2]
    assert status["state"] == "Pending"
    assert reasons(decision) == ["Rejected"]


@pytest.mark.parametrize(("observed", "spec", "reason", "message"), REFUSALS)
def test_what_may_pass_by_itself_is_not_the_end(
    observed: Observed,
    spec: dict[str, Any],
    reason: str,
    message: str,
) -> None:
    status = told(decide(observed, **spec))
    passes = reason in (names.FLAVOR_NOT_FOUND, names.CLAIM_NOT_FOUND, names.CREATION_REFUSED)
    says, silent = ("Reconciling", "Stalled") if passes else ("Stalled", "Reconciling")
    assert condition(status, silent)[0] == "False"
    assert condition(status, says)[:2] == ("True", reason)
    assert condition(status, "Ready")[:2] == ("Unknown" if passes else "False", reason)
    assert message in condition(status, says)[2]
    assert message in condition(status, "Ready")[2]


def test_a_refusal_that_only_counts_on_is_not_told_again() -> None:
    def refused(words: str) -> Observed:
        return Observed(flavors=FLAVORS, refused=Refusal("Job cxr-1234567", words))

    known = told(decide(refused("denied by hook, request 5f0a-11, at 10:00")))
    assert decide(refused("denied by hook, request 77b2-31, at 10:01"), status=known) == Decision()
    assert told(decide(refused("exceeded quota: no-jobs"), status=known)) != known


def test_an_image_that_is_not_set_yet_may_pass() -> None:
    status = told(decide(Observed(flavors=FLAVORS), config=OperatorConfig()))
    assert condition(status, "Ready")[:2] == ("Unknown", names.IMAGE_NOT_CONFIGURED)


def test_one_reason_that_needs_an_edit_outweighs_those_that_may_pass() -> None:
    taken = "Job cxr-1234567"
    status = told(decide(Observed(flavors=FLAVORS, volumes={"nih": None}, taken=taken)))
    assert condition(status, "Stalled")[:2] == ("True", names.NAME_TAKEN)
    assert '"nih" is not a PersistentVolumeClaim' in condition(status, "Stalled")[2]


@pytest.mark.parametrize(
    "gone", [Observed(), Observed(unreadable=Unreadable("ConfigMap cxr-1234567: unreadable snapshot.json"))]
)
def test_a_refusal_keeps_what_was_recorded_of_a_run_that_had_begun(gone: Observed) -> None:
    pod = make_pod().scheduled(10).prepared(12, 40).trains(42)
    known = told(decide(started(pod, progress=make_progress()), now=100))
    refused = told(decide(gone, status=known, now=200))
    assert refused["state"] == "Pending"
    for section in ("runsOn", "run", "cost", "times", "attempts", "data"):
        assert refused[section] == known[section]
    assert "trainerStatus" not in refused, "nothing makes progress"
    assert decide(gone, status=refused, now=900) == Decision()
    again = told(decide(started(make_pod("cxr-2", 300).scheduled(310)), status=refused, now=320))
    assert again["cost"]["heldSeconds"] == 310 + 10, "its absence was seen at 320"


def test_all_objections_come_at_once() -> None:
    observed = Observed(flavors=FLAVORS, volumes={"nih": None, "out": None, "models": None})
    message = condition(told(decide(observed, config=OperatorConfig())), "Accepted")[2]
    wanted = ("source.pvc.claimName", "output.claimName", "model.claimName", "images.prepare", "images.torch")
    assert all(path in message for path in wanted)


def test_a_refusal_is_written_once_and_ends_when_the_reason_does() -> None:
    refused = told(decide(Observed()))
    assert decide(Observed(), status=refused, now=900) == Decision()
    assert decide(Observed(flavors=FLAVORS), status=refused, now=900).create is not None


STATES = [
    (started(), "Queued", "Queued", "waiting for Job cxr-"),
    (started(make_pod()), "Queued", "Queued", "waits for a node"),
    (started(make_pod().unschedulable("0/3 nodes: no ipu")), "Queued", "Unschedulable", "0/3 nodes: no ipu"),
    (started(make_pod().scheduled(10)), "Preparing", "Preparing", "prepares the data"),
    (
        started(make_pod().scheduled(10).prepare_waits("ImagePullBackOff", "Back-off")),
        "Preparing",
        "ImagePullBackOff",
        "prepare waits: ImagePullBackOff: Back-off",
    ),
    (started(make_pod().scheduled(10).prepared(12, 40)), "Preparing", "Preparing", "starts to train"),
    (
        started(make_pod().scheduled(10).prepared(12, 40).trains(42), progress=make_progress()),
        "Training",
        "Training",
        "held and not used",
    ),
    (
        started(
            make_pod().scheduled(10).prepared(12, 40).trains(42),
            progress=make_progress(phases=[{"name": "Evaluating", "started_at": "2026-11-22T10:01:40Z"}]),
        ),
        "Evaluating",
        "Evaluating",
        "held and not used",
    ),
    (started(FINISHED), "Evaluating", "Evaluating", "held and not used"),
    (
        started(FINISHED, end="Complete"),
        "Succeeded",
        "Completed",
        "AUROC 0.5124 (95 % interval 0.4708 to 0.5561) over 13 findings on 152 held-out",
    ),
    (
        started(make_pod().scheduled(10).prepared(12, 40).trained(42, 50, 20, "log tail"), end=""),
        "Queued",
        "AttemptFailed",
        "the last attempt failed: train ended with exit code 20",
    ),
    (
        started(make_pod().scheduled(10).prepared(12, 40, 11, example("error-result.json")), end="PodFailurePolicy"),
        "Failed",
        "DataCorrupt",
        "prepare: exit code 11: images_001.tar.gz: member 17",
    ),
    (started(end="BackoffLimitExceeded"), "Failed", "BackoffLimitExceeded", "failed: BackoffLimitExceeded"),
]


@pytest.mark.parametrize(("observed", "state", "reason", "message"), STATES)
def test_what_is_seen_gives_one_state(observed: Observed, state: str, reason: str, message: str) -> None:
    status = told(decide(observed))
    assert status["state"] == state
    assert condition(status, "Running")[1] == reason
    assert message in condition(status, "Running")[2]


def test_a_last_word_of_the_job_waits_for_the_pods_of_the_index() -> None:
    status = told(decide(started(make_pod().scheduled(10).prepared(12, 40).trains(42), end="Complete")))
    assert status["state"] == "Training"


def test_a_finished_run_is_left_alone_whatever_becomes_of_its_children() -> None:
    finished = told(decide(started(FINISHED, end="Complete")))
    for observed in (started(end="Complete"), Observed(flavors=FLAVORS), started(end="Other")):
        assert decide(observed, status=finished, now=9999) == Decision()


def test_a_result_that_cannot_be_read_invents_no_number_and_may_still_come() -> None:
    silent = make_pod().scheduled(10).prepared(12, 40).trained(42, 110, message="cut of")
    status = told(decide(started(silent, end="Complete")))
    assert condition(status, "Succeeded")[:2] == ("True", "ResultUnread")
    assert "results" not in status
    assert decide(Observed(flavors=FLAVORS), status=status) == Decision(), "and it is never run again"
    late = decide(started(FINISHED, end="Complete"), status=status)
    results = told(late)["results"]
    assert (results["aurocMacro"], results["aurocInterval"]) == ("0.5124", ["0.4708", "0.5561"])
    assert results["aurocFloor"] == "0.6012"
    assert (results["images"], results["model"], results["report"]) == (152, "model", "report.html")


def test_the_device_that_the_trainer_names_corrects_what_was_expected() -> None:
    assert told(decide(started(FINISHED, end="Complete")))["runsOn"] == (
        "torch backend, ran on the CPU; the 4 graphcore.ai/ipu of flavor demo-vpod4 were held and not used, "
        "for the operator has no IPU image"
    )
    on_gpu = make_pod().scheduled(10).prepared(12, 40).trained(42, 110, message=train_result(device="cuda:0"))
    status = told(decide(started(on_gpu, end="Complete", flavor=make_flavor("gpu"))))
    assert status["runsOn"] == "torch backend, ran on one GPU; 4 nvidia.com/gpu of flavor demo-vpod4 were held"


def test_what_the_trainer_runs_on_is_told_while_it_trains_and_when_it_has_failed() -> None:
    pod = make_pod().scheduled(10).prepared(12, 40).trains(42)
    silent = told(decide(started(pod, flavor=make_flavor("gpu")), now=45))
    assert "device" not in silent["run"]
    training = told(
        decide(started(pod, flavor=make_flavor("gpu"), progress=make_progress(device="cpu")), status=silent, now=50)
    )
    words = "torch backend on the CPU; the 4 nvidia.com/gpu of flavor demo-vpod4 are held and not used"
    assert (training["runsOn"], training["run"]["device"]) == (words, "cpu")
    failed = told(decide(started(pod.trained(42, 60, 15, ""), flavor=make_flavor("gpu")), status=training, now=61))
    assert (failed["runsOn"], failed["run"]["device"]) == (words, "cpu")


@pytest.mark.parametrize(
    ("flavor", "device", "words"),
    [
        (make_flavor("gpu"), None, "torch backend on one GPU; 4 nvidia.com/gpu of flavor x are held"),
        (make_flavor("gpu", accelerators=1), None, "torch backend on one GPU"),
        (make_flavor("gpu", accelerators=1), "cuda", "torch backend, ran on one GPU"),
        (
            make_flavor("gpu", accelerators=1),
            "cpu",
            "torch backend, ran on the CPU; the 1 nvidia.com/gpu of flavor x were held and not used",
        ),
        (
            make_flavor(),
            None,
            "torch backend on the CPU; the 4 graphcore.ai/ipu of flavor x are held and not used, "
            "for the operator has no IPU image",
        ),
        (
            make_flavor(resourceName="example.com/npu"),
            None,
            "torch backend on the CPU; the 4 example.com/npu of flavor x are held and not used",
        ),
        (make_flavor("cpu"), None, "torch backend on the CPU"),
        (make_flavor("cpu"), "cpu", "torch backend, ran on the CPU"),
    ],
)
def test_one_gpu_is_used_however_many_are_held(flavor: dict[str, Any], device: str | None, words: str) -> None:
    assert runs_on(make_snapshot(flavor, make_job().flavor("x")), device, over=device is not None) == words


@pytest.mark.parametrize(
    ("accelerators", "device", "words"),
    [
        (4, None, "ipu backend on 4 IPUs: 1 replica of 4"),
        (16, None, "ipu backend on 16 IPUs: 4 replicas of 4"),
        (2, "ipu", "ipu backend, ran on 2 IPUs: 1 replica of 2"),
        (4, "emulated IPU", "ipu backend, ran on 4 emulated IPUs: 1 replica of 4"),
    ],
)
def test_a_stand_in_for_ipus_is_told_as_such(accelerators: int, device: str | None, words: str) -> None:
    snapshot = make_snapshot(make_flavor(accelerators=accelerators), config=WITH_IPUS)
    assert runs_on(snapshot, device, over=device is not None) == words


def test_a_crash_without_a_result_does_not_pass_on_the_log() -> None:
    crashed = make_pod().scheduled(10).prepared(12, 40).trained(42, 50, 1, "Traceback: patient 00012345")
    status = told(decide(started(crashed, end="BackoffLimitExceeded")))
    assert condition(status, "Succeeded")[:2] == ("False", "ContainerFailed")
    assert "00012345" not in str(status)


def test_out_of_memory_has_a_name() -> None:
    pod = make_pod().scheduled(10).prepared(12, 40).trained(42, 50, 137)
    raw_state = ended(42, 50, 137, "", "OOMKilled")
    pod._container("", "train", raw_state)
    assert condition(told(decide(started(pod, end="BackoffLimitExceeded"))), "Stalled")[1] == "OOMKilled"


def test_no_answer_from_the_pod_keeps_what_was_known() -> None:
    pod = make_pod().scheduled(10).prepared(12, 40).trains(42)
    known = told(decide(started(pod, progress=make_progress()), now=100))
    assert known["trainerStatus"]["progress"] == "40%"
    assert known["trainerStatus"]["eta"] == "52s"
    assert decide(started(pod), status=known, now=101) == Decision()


def test_progress_of_a_dead_attempt_is_not_shown_for_the_next() -> None:
    first = make_pod("cxr-1", 2).scheduled(10).prepared(12, 40)
    known = told(decide(started(first.trains(42), progress=make_progress()), now=100))
    first.trained(42, 110, 20, "")
    assert told(decide(started(first), status=known, now=112))["trainerStatus"]["progress"] == "40%"
    second = make_pod("cxr-2", 120).scheduled(121)
    assert "trainerStatus" not in told(decide(started(first, second), status=known, now=122))


def test_progress_of_prepare_is_told_and_is_not_shown_for_train() -> None:
    pod = make_pod().scheduled(10).prepares(12)
    images = [{"name": "images", "value": "512"}]
    preparing = make_progress(phase="Preparing", phases=[], progress_percentage=80, metrics=images)
    known = told(decide(started(pod, progress=preparing), now=30))
    assert known["state"] == "Preparing"
    assert known["trainerStatus"]["progress"] == "80%"
    assert known["trainerStatus"]["metrics"] == images
    ready = told(decide(started(pod.prepared(12, 40)), status=known, now=41))
    assert ready["trainerStatus"]["progress"] == "80%"
    assert "trainerStatus" not in told(decide(started(pod.trains(42)), status=ready, now=43))


def test_evaluating_stays_evaluating_when_the_pod_stops_answering() -> None:
    pod = make_pod().scheduled(10).prepared(12, 40).trains(42)
    phases = [{"name": "Evaluating", "started_at": "2026-11-22T10:01:40Z"}]
    known = told(decide(started(pod, progress=make_progress(phases=phases)), now=110))
    later = told(decide(started(pod), status=known, now=200))
    assert later["state"] == "Evaluating"
    assert later["times"]["training"]["seconds"] == 60


def test_the_clock_alone_is_written_seldom() -> None:
    pod = make_pod().scheduled(10).prepared(12, 40).trains(42)
    seen = started(pod, progress=make_progress())
    known = told(decide(seen, now=100))
    assert decide(seen, status=known, now=129) == Decision()
    assert told(decide(seen, status=known, now=130))["cost"]["heldSeconds"] == 120


def test_the_same_arguments_give_the_same_decision() -> None:
    observed = started(FINISHED, end="Complete")
    assert decide(observed) == decide(observed)
