"""Which containers speak of a run, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from xray_cli.errors import CommandError
from xray_cli.sources import CONTAINERS, earlier_attempt, find_sources, has_trained, pods_selector

RUN, DATA, MODEL = "cxr-1", "xray-data-1", "xray-model-1"


def job(attempts: int | list[dict[str, Any]] = 1, **status: Any) -> dict[str, Any]:
    """Args:
    attempts: rows of status, or how many usual ones.
    """
    usual = [{"podName": f"{RUN}-{number}", "trainingSeconds": number} for number in range(3)]
    rows = usual[:attempts] if isinstance(attempts, int) else attempts
    told = {
        "run": {"jobName": RUN},
        "attempts": rows,
        "preparation": {"jobName": DATA},
        "modelPreparation": {"jobName": MODEL},
    }
    return {"metadata": {"name": "cxr", "uid": "uid-1"}, "status": told | status}


def pod(of: str, number: int = 0, owner: str | None = None, **states: str) -> dict[str, Any]:
    """Of a Job; its containers are in these states."""
    rows = [{"name": name, "state": {state: {}}} for name, state in states.items()]
    alone = of != RUN
    return {
        "metadata": {
            "name": f"{of}-{number}",
            "creationTimestamp": f"2026-11-22T10:00:0{number}Z",
            "ownerReferences": [{"controller": True, "name": owner or of}],
        },
        "spec": {"containers": [{"name": "prepare" if alone else "train"}]}
        | ({} if alone else {"initContainers": [{"name": "prepare"}]}),
        "status": {"initContainerStatuses": rows[:-1], "containerStatuses": rows[-1:]},
    }


TRAINS = pod(RUN, prepare="terminated", train="running")


def test_what_prepares_comes_before_what_trains() -> None:
    pods = [
        TRAINS,
        pod(MODEL, prepare="terminated"),
        pod(DATA, 0, prepare="terminated"),
        pod(DATA, 1, prepare="running"),
    ]
    found = [(source.pod, source.container, source.started) for source in find_sources(job(), pods, CONTAINERS, None)]
    assert found == [
        (f"{DATA}-1", "prepare", True),
        (f"{MODEL}-0", "prepare", True),
        (f"{RUN}-0", "prepare", True),
        (f"{RUN}-0", "train", True),
    ]


def test_of_one_container_only_and_of_what_waits() -> None:
    waits = pod(RUN, prepare="running", train="waiting")
    (source,) = find_sources(job(), [waits, pod(DATA, prepare="terminated")], ["train"], None)
    assert (source.pod, source.started, source.prefix) == (f"{RUN}-0", False, f"[pod/{RUN}-0/train] ")


def test_a_label_alone_makes_no_pod_the_runs() -> None:
    assert find_sources(job(), [pod(RUN, owner="cxr-of-before", prepare="running")], CONTAINERS, None) == []


def test_of_several_attempts_the_latest_counts_if_none_is_named() -> None:
    pods = [pod(RUN, number, prepare="terminated", train="terminated") for number in (2, 0, 1)]
    told = job(attempts=3)
    assert {source.pod for source in find_sources(told, pods, CONTAINERS, None)} == {f"{RUN}-2"}
    assert {source.pod for source in find_sources(told, pods, CONTAINERS, 2)} == {f"{RUN}-1"}
    assert earlier_attempt(told, pods) == 2


def test_the_pod_of_a_later_ipu_job_is_found_by_its_attempt() -> None:
    worker = pod("cxr-2", prepare="terminated", train="running")
    worker["metadata"]["name"] = "cxr-2-worker-0"
    worker["spec"] = TRAINS["spec"]
    rows = [{"podName": "cxr-1-worker-0", "exitCode": 143}, {"podName": "cxr-2-worker-0"}]
    told = job(attempts=rows, run={"jobName": RUN, "jobKind": "IPUJob"})
    found = [(source.pod, source.container) for source in find_sources(told, [worker], CONTAINERS, None)]
    assert found == [("cxr-2-worker-0", "prepare"), ("cxr-2-worker-0", "train")]
    worker["metadata"]["ownerReferences"][0]["name"] = "somebodys"
    assert find_sources(told, [worker], CONTAINERS, None) == []


@pytest.mark.parametrize(
    ("attempts", "number", "told"),
    [
        (0, 1, "cxr has had no attempt yet"),
        (2, 3, "cxr has had 2: there is no"),
        (2, 1, "pod cxr-1-0 of attempt 1 is gone"),
    ],
)
def test_an_attempt_that_cannot_be_read_is_refused(attempts: int, number: int, told: str) -> None:
    with pytest.raises(CommandError, match=told):
        find_sources(job(attempts), [], CONTAINERS, number)


def test_there_is_no_earlier_attempt_whose_pod_is_gone() -> None:
    assert earlier_attempt(job(attempts=2), [pod(RUN, 1, train="running")]) is None
    assert earlier_attempt(job(attempts=1), [TRAINS]) is None


def test_all_pods_are_found_by_one_selector() -> None:
    assert pods_selector(job()) == f"xray.training/job-uid in (uid-1,{DATA},{MODEL})"
    assert pods_selector({"metadata": {"uid": "uid-1"}}) == "xray.training/job-uid in (uid-1)"


@pytest.mark.parametrize(
    ("given", "has"),
    [
        (job(attempts=0, state="Queued"), False),
        (job(attempts=1, state="Queued"), False),  # its seconds of training are 0
        (job(attempts=2, state="Queued"), True),
        (job(attempts=0, state="Training"), True),
        (job(attempts=0, state="Succeeded"), True),
        ({"metadata": {}}, False),
    ],
)
def test_only_what_has_trained_has_a_log(given: dict[str, Any], has: bool) -> None:
    assert has_trained(given) is has
