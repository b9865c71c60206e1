"""What a line, a bar and an exit code say of a job."""

from __future__ import annotations

from typing import Any

import pytest

from xray_cli.standing import read_standing, verdict_of


def job(generation: int = 1, observed: int = 1, stalled: str = "False", **status: Any) -> dict[str, Any]:
    conditions = [
        {"type": "Ready", "status": "Unknown", "reason": "Any", "message": "it is so"},
        {"type": "Stalled", "status": stalled, "reason": "Any", "message": ""},
    ]
    whole = {"observedGeneration": observed, "conditions": conditions, **status}
    return {"metadata": {"name": "cxr", "generation": generation}, "status": whole}


TRAINER = {"progressPercentage": 40, "eta": "52s", "metrics": [{"name": "loss", "value": "0.220449"}]}


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (job(state="Queued"), "cxr: Queued: it is so"),
        (job(state="Preparing"), "cxr: Preparing"),
        (job(state="Training", trainerStatus=TRAINER), "cxr: Training 40%, loss 0.2204, 52s left"),
        (
            job(state="Evaluating", trainerStatus=TRAINER, cost={"display": "unpriced"}),
            "cxr: Evaluating 40%, loss 0.2204, unpriced, 52s left",
        ),
        ({"metadata": {"name": "cxr", "generation": 1}}, "cxr: Pending"),
    ],
)
def test_a_line(found: dict[str, Any], line: str) -> None:
    assert read_standing(found).line == line


def test_figures_of_the_end_stand_for_those_of_the_way() -> None:
    metrics = {"metrics": [{"name": "loss", "value": "0.9"}, {"name": "validation_auroc_macro", "value": "0.6"}]}
    assert read_standing(job(state="Training", trainerStatus=metrics)).auroc == "0.6000"
    ended = read_standing(job(state="Succeeded", trainerStatus=metrics, results={"aurocMacro": "0.7", "loss": "0.2"}))
    assert (ended.auroc, ended.loss) == ("0.7", "0.2")


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (job(state="Succeeded"), 0),
        (job(state="Failed", stalled="True"), 1),
        (job(state="Stopped", stalled="True"), 1),
        (job(state="Pending", stalled="True"), 1),
        (job(state="Suspended"), None),
        (job(state="Training"), None),
        (job(state="Succeeded", generation=2), None),
        (job(state="Failed", stalled="True", generation=2), None),
        ({"metadata": {"name": "cxr", "generation": 1}}, None),
    ],
)
def test_when_waiting_is_over(found: dict[str, Any], verdict: int | None) -> None:
    assert verdict_of(found) == verdict


def test_a_clock_is_no_news_and_a_tenth_of_the_way_is() -> None:
    def news(**trainer: Any) -> tuple[object, ...]:
        return read_standing(job(state="Training", trainerStatus=trainer)).news

    assert news(progressPercentage=41, eta="9s") == news(progressPercentage=49, eta="8s")
    assert news(progressPercentage=49) != news(progressPercentage=50)
    assert read_standing(job(state="Queued")).news != read_standing(job(state="Preparing")).news
