"""The report's bill says what the status says, and nothing beyond."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.contract.schemas import REPOSITORY
from xray_cli.billing import BLOCK, bill_lines, duration, with_bill

PAGE = "<section id='cost'><!-- cost --><p>elsewhere</p><!-- /cost --></section><p>rest</p>"
STATUS: dict[str, Any] = {
    "rerun": 1,
    "run": {"flavor": "vpod4-vm"},
    "cost": {
        "priced": True,
        "currency": "USD",
        "perHour": "8.50",
        "heldSeconds": 118,
        "billedSeconds": 120,
        "total": "0.2833",
        "display": "0.28 USD",
        "phases": [
            {"name": "Queued", "seconds": 4, "amount": "0.0000"},
            {"name": "Training", "seconds": 118, "amount": "0.2833"},
        ],
    },
    "preparation": {"flavor": "prepare-cpu", "seconds": 31, "amount": "0.0100", "cost": "0.01 USD"},
    "modelPreparation": {"flavor": "prepare-cpu", "seconds": 5, "cost": "shared"},
    "attempts": [
        {
            "podName": "a",
            "startedAt": "2026-11-22T10:00:00Z",
            "trainingSeconds": 40,
            "billedSeconds": 40,
            "amount": "0.0944",
            "lostSeconds": 10,
            "lostAmount": "0.0236",
            "reason": "Killed",
            "exitCode": 137,
        },
        {
            "podName": "b",
            "startedAt": "2026-11-22T10:01:00Z",
            "finishedAt": "2026-11-22T10:02:18Z",
            "trainingSeconds": 78,
            "billedSeconds": 80,
            "amount": "0.1889",
        },
    ],
    "formerRuns": [{"rerun": 0, "state": "Succeeded", "cost": "0.30 USD"}],
}


def text(status: dict[str, Any]) -> str:
    """What a reader sees."""
    return " ".join(re.sub("<[^>]*>", " ", " ".join(bill_lines(status))).split())


def test_the_bill_is_that_of_the_status() -> None:
    told = text(STATUS)
    assert told.startswith("This run held flavor vpod4-vm at 8.50 USD an hour: 0.2833 USD .")
    assert (
        "Total 1 min 58 s, billed as 2 min 0 s 0.2833 USD Queued 4 s 0.0000 USD Training 1 min 58 s 0.2833 USD" in told
    )
    assert "Preparing the data held flavor prepare-cpu for 31 s, for 0.01 USD, which the total includes." in told
    assert "Fetching the model held flavor prepare-cpu for 5 s, which another run pays that shares it" in told
    assert (
        "1 2026-11-22T10:00:00Z 40 s 0.0944 USD 0.0236 USD Killed, exit code 137 "
        "2 2026-11-22T10:01:00Z 1 min 18 s 0.1889 USD 2026-11-22T10:02:18Z" in told
    )
    assert told.endswith("Runs before this one, not part of it: rerun 0: Succeeded, 0.30 USD.")


def test_what_has_no_price_has_no_amount() -> None:
    cost = {"priced": False, "heldSeconds": 60, "display": "unpriced", "phases": [{"name": "Training", "seconds": 60}]}
    told = text({"run": {"flavor": "cpu"}, "cost": cost})
    assert told == (
        "This run held flavor cpu, which has no price: unpriced . "
        "Phase Held Cost Total 1 min 0 s unpriced Training 1 min 0 s unpriced"
    )


def test_a_total_without_a_preparation_that_has_no_price_is_not_passed_off_as_the_whole() -> None:
    cost = STATUS["cost"]
    told = text({**STATUS, "cost": {**cost, "phases": [*cost["phases"], {"name": "DataPreparation", "seconds": 31}]}})
    assert told.startswith("This run held flavor vpod4-vm at 8.50 USD an hour: 0.2833 USD + unpriced .")
    assert " 0.2833 USD + unpriced Queued " in told
    assert " DataPreparation 31 s unpriced " in told


def test_a_bill_that_is_estimated_says_why() -> None:
    """Whether a pod vanished, its node was lost or its IPUJob deleted."""
    told = text({**STATUS, "cost": {**STATUS["cost"], "estimated": True}})
    assert " Estimated: the end of an attempt was not told; it counts until that was seen. " in told
    assert "Estimated" not in text(STATUS)


def test_the_block_is_replaced_and_stays_a_block() -> None:
    once = with_bill(PAGE, STATUS)
    assert "elsewhere" not in once
    assert once.startswith("<section id='cost'><!-- cost -->\n<p class=\"bill\">")
    assert once.endswith("</div>\n<p class=\"small soft\">Runs before this one, not part of it: "
                         "rerun 0: Succeeded, 0.30 USD.</p>\n<!-- /cost --></section><p>rest</p>")  # fmt: skip
    assert with_bill(once, STATUS) == once


def test_the_trainers_page_has_the_block_and_its_tables_look_like_this() -> None:
    page = (REPOSITORY / "trainer-image" / "xray_trainer" / "report" / "page.html").read_text()
    assert len(BLOCK.findall(page)) == 1
    example = (REPOSITORY / "tests" / "contract" / "examples" / "report-cost.html").read_text()
    assert BLOCK.fullmatch(example.strip())
    classes = re.compile('class="([^"]*)"')
    assert set(classes.findall(example)) <= set(classes.findall("".join(bill_lines(STATUS))))


def test_a_page_without_the_block_stays_as_it_is() -> None:
    assert with_bill("<p>older</p>", STATUS) == "<p>older</p>"


def test_markup_in_the_status_is_text() -> None:
    status = STATUS | {"run": {"flavor": "<script>"}, "attempts": [{**STATUS["attempts"][0], "reason": "<b>\\1"}]}
    page = with_bill(PAGE, status)
    assert "<script>" not in page
    assert "&lt;b&gt;\\1" in page


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7325, "2 h 2 min")]
)
def test_durations(seconds: int, told: str) -> None:
    assert duration(seconds) == told
