"""A quote says what it stands on, what it leaves out, and with nothing to stand on what to give."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command_line import xray
from tests.unit.operator.builders import make_flavor
from tests.unit.operator.test_estimate import attempt, finished, prepared
from xray_cli.errors import CommandError
from xray_cli.knowledge import Knowledge, read_hints
from xray_cli.quoting import Quote, quote_job, tell
from xray_operator.core.history import read_finished_runs

NOW = datetime(2026, 11, 22, tzinfo=UTC)
EUROS = {"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "EUR", "perHour": "1"}
FIRST = {"source": {"pvc": {"claimName": "nih"}}, "prepareFlavor": "cheap"}


def knowing(*jobs: dict[str, Any], **flavors: dict[str, Any]) -> Knowledge:
    specs = {"demo-vpod4": make_flavor(), "cheap": make_flavor("cpu")} | flavors
    return Knowledge(specs, read_finished_runs(jobs), "this cluster")


def quoted(known: Knowledge, *hints: str, images: int | None = None, **spec: Any) -> Quote:
    return quote_job(finished(spec=spec), known, read_hints(hints), images, NOW)


def text(quote: Quote) -> str:
    assert quote.estimate is not None
    return "\n".join(tell(quote, quote.estimate))


def test_it_says_how_many_runs_of_which_model_on_which_flavor() -> None:
    runs = [finished(attempt(training=seconds)) for seconds in (100, 200)]
    told = text(quoted(knowing(*runs)))
    assert told.startswith("cxr on demo-vpod4: vit-tiny on claim radiology/models, 1,000 images, 3 epochs\n")
    assert "From 2 runs of this model that finished on demo-vpod4 in this cluster" in told
    assert "Of 2 runs p90 is the longest" in told
    assert "At 8.50 USD an hour, what is rounded up included." in told
    rows = [" ".join(line.split()) for line in told.splitlines()]
    assert "PHASE TIME P50 TIME P90 COST P50 COST P90 FROM" in rows
    assert "Training 1 min 40 s 3 min 20 s 0.24 USD 0.47 USD history (2 runs)" in rows
    assert "Total 2 min 15 s 3 min 55 s 0.32 USD 0.55 USD" in rows


def test_a_single_image() -> None:
    quote = quoted(knowing(finished()), images=1, training={"epochs": 1})
    assert quote.title == "cxr on demo-vpod4: vit-tiny on claim radiology/models, 1 image, 1 epoch"


def test_of_ten_runs_nothing_is_excused() -> None:
    assert "more would tell more" not in text(quoted(knowing(*[finished() for _ in range(10)])))


def test_hints_are_called_hints() -> None:
    told = text(quoted(knowing(), "demo-vpod4:trainImagesPerSecond=70,prepareImagesPerSecond=10", images=1000))
    assert "From hints, for no run of this model has finished on demo-vpod4 in this cluster" in told
    assert "They know no spread" in told


def test_hints_of_the_command_line_go_before_those_of_the_flavor() -> None:
    own = make_flavor(hints={"trainImagesPerSecond": "7", "prepareImagesPerSecond": "10", "startSeconds": 9})
    quote = quoted(knowing(**{"demo-vpod4": own}), "demo-vpod4:trainImagesPerSecond=70", images=1000)
    assert quote.estimate is not None
    told = {line.name: line.seconds.p50 for line in quote.estimate.phases}
    assert told == {"Preparing": 100, "Training": 30, "Evaluating": 3, "Idle": 9}


def test_with_neither_it_says_what_to_give() -> None:
    quote = quoted(knowing())
    assert quote.estimate is None
    assert quote.objection == (
        "cxr: no run of vit-tiny on claim radiology/models at 224 pixels has finished on flavor demo-vpod4 in this cluster, "
        "and the hints don't suffice: give how many images there are, trainImagesPerSecond of flavor demo-vpod4, "
        "prepareImagesPerSecond of flavor demo-vpod4 (--images N, --hint demo-vpod4:NAME=VALUE, or spec.hints of the flavor)"
    )


def test_without_a_price_it_is_unpriced() -> None:
    told = text(quoted(knowing(finished(), **{"demo-vpod4": make_flavor(prices=[])})))
    assert "Flavor demo-vpod4 has no price: unpriced." in told
    assert "unpriced unpriced history (1 run)" in " ".join(told.split())


def test_a_price_that_is_not_in_force_yet_is_not_paid() -> None:
    later = {"effectiveFrom": "2027-01-01T00:00:00Z", "currency": "USD", "perHour": "1"}
    assert quoted(knowing(**{"demo-vpod4": make_flavor(prices=[later])})).price is None


def test_a_preparation_of_its_own_is_told_with_who_pays() -> None:
    known = knowing(finished(spec={"dataset": FIRST}, preparation=prepared()))
    told = text(quoted(known, dataset=FIRST))
    assert "DataPreparation 10 min 0 s 10 min 0 s" in " ".join(told.split())
    assert "What is prepared on cheap is paid by the first run that needs it, and by no other." in told


def test_that_the_flavor_that_prepares_is_assumed_is_told() -> None:
    told = text(quoted(knowing(finished(spec={"dataset": FIRST}, preparation=prepared())), dataset=FIRST))
    assert "no prepareFlavor" not in told
    first = FIRST | {"prepareFlavor": None}
    job = finished(spec={"dataset": first}, preparation=prepared(flavor="prepare-cpu"))
    told = text(quoted(knowing(job), dataset=first))
    assert "The job names no prepareFlavor: prepare-cpu, the chart's default, is taken to be the operator's." in told
    assert "no prepareFlavor" not in text(quoted(knowing(finished()))), "its own pod prepares"


def test_repeats_on_prepared_data_do_not_make_preparing_cheap() -> None:
    jobs = [prepared("data-1", 6300), *(prepared(f"data-{n}", 6) for n in range(2, 11))]
    told = text(quoted(knowing(*(finished(spec={"dataset": FIRST}, preparation=job) for job in jobs)), dataset=FIRST))
    rows = [" ".join(line.split()) for line in told.splitlines()]
    assert any(
        row.startswith("DataPreparation 1 h 45 min 1 h 45 min") and row.endswith("history (1 run)") for row in rows
    )


def test_that_the_preparation_is_missing_is_told() -> None:
    known = knowing(finished(spec={"dataset": FIRST}, preparation=prepared(flavor="other")))
    told = text(quoted(known, dataset=FIRST))
    assert "Without preparing the data: nothing is known of that on cheap" in told


def test_that_a_preparation_is_not_in_the_total_is_told() -> None:
    known = knowing(finished(spec={"dataset": FIRST}, preparation=prepared()), cheap=make_flavor("cpu", prices=[EUROS]))
    told = text(quoted(known, dataset=FIRST))
    assert "Flavor cheap has no price in USD: what is prepared there is not in the total." in told


def test_an_edit_of_the_job_is_scaled() -> None:
    quote = quoted(knowing(finished()), training={"epochs": 30}, images=2000)
    assert quote.estimate is not None
    assert {line.name: line.seconds.p50 for line in quote.estimate.phases}["Training"] == 2000


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"flavor": "nope"}, 'spec.flavor: "nope" is not a flavor here; cheap, demo-vpod4 are'),
        ({"training": {"epochs": 0}}, "spec.training.epochs: 0 is refused"),
    ],
)
def test_what_would_not_be_accepted_has_no_quote(spec: dict[str, Any], told: str) -> None:
    with pytest.raises(CommandError, match="XRayTrainingJob") as error:
        quoted(knowing(), **spec)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        ("vpod4", "is not like FLAVOR:trainImagesPerSecond=400"),
        ("vpod4:speed=1", "vpod4 has no speed; hints are prepareImagesPerSecond, startSeconds, trainImagesPerSecond"),
        ("vpod4:startSeconds=soon", 'vpod4.startSeconds: "soon" is refused'),
        ("vpod4:trainImagesPerSecond=0", 'vpod4.trainImagesPerSecond: "0" is refused'),
    ],
)
def test_hints_that_make_no_sense(hint: str, told: str) -> None:
    with pytest.raises(CommandError) as error:
        read_hints([hint])
    assert told in str(error.value)


def test_files_do_in_place_of_a_cluster(tmp_path: Path) -> None:
    flavor = {"apiVersion": "xray.training/v1alpha1", "kind": "AcceleratorFlavor", "metadata": {"name": "demo-vpod4"}}
    kinds = {"flavors.yaml": flavor | {"spec": make_flavor()}, "runs.yaml": finished(), "job.yaml": finished()}
    for name, document in kinds.items():
        (tmp_path / name).write_text(yaml.safe_dump(document))
    files = [str(tmp_path / name) for name in kinds]
    done = xray(None, "quote", "-f", files[2], "--from", files[0], "--from", files[1], "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    (item,) = json.loads(done.stdout)["items"]
    assert (item["source"], item["runs"], item["total"]["amount"]) == (
        "history (1 run)",
        1,
        {"p50": "0.3188", "p90": "0.3188"},
    )
    nothing = xray(None, "quote", "-f", files[2], "--from", files[0])
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert nothing.stderr.startswith("error: cxr: no run of vit-tiny")
