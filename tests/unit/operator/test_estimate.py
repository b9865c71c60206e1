"""What a run will take: from finished runs of the same flavor and model, scaled; else from hints; else nothing is said."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.builders import make_job
from xray_operator import names
from xray_operator.core.cost import amount_of, billed_seconds
from xray_operator.core.estimate import Spread, estimate, lacking, nearest_rank
from xray_operator.core.history import FinishedRun, Workload, count_images, read_finished_run, read_finished_runs
from xray_operator.core.spec import Hints, Price

PRICE = Price.model_validate({"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "USD", "perHour": "36"})
BY_THE_MINUTE = PRICE.model_copy(update={"minimum_seconds": 300, "increment_seconds": 60})
CHEAP = PRICE.model_copy(update={"per_hour": Decimal("3.6")})
HINTS = Hints.model_validate({"trainImagesPerSecond": "100", "prepareImagesPerSecond": "50", "startSeconds": 30})


def attempt(name: str = "p1", *, training: int = 100, idle: int = 20, **more: int) -> dict[str, Any]:
    seconds = {"idle": idle, "preparing": 5, "training": training, "evaluating": 10} | more
    told = {f"{phase}Seconds": each for phase, each in seconds.items()}
    return {"podName": name, "startedAt": "2026-11-22T10:00:00Z", "finishedAt": "2026-11-22T10:30:00Z"} | told


def prepared(job: str = "data-1", seconds: int = 600, flavor: str = "cheap") -> dict[str, Any]:
    row = {"podName": job, "startedAt": "2026-11-22T09:00:00Z", "preparingSeconds": seconds, "idleSeconds": 0}
    return {"jobName": job, "flavor": flavor, "startedAt": row["startedAt"], "seconds": seconds, "attempts": [row]}


def finished(
    *attempts: dict[str, Any], images: int = 1000, spec: dict[str, Any] | None = None, **status: Any
) -> dict[str, Any]:
    """A resource as Kubernetes gives it."""
    told = {"state": names.SUCCEEDED, "attempts": list(attempts or [attempt()]), "data": {"images": images}}
    return make_job().spec(**(spec or {})).status(told | status).raw()


def run_of(*attempts: dict[str, Any], **more: Any) -> FinishedRun:
    run = read_finished_run(finished(*attempts, **more))
    assert run is not None
    return run


def asked(**fields: Any) -> Workload:
    return replace(run_of().workload, **fields)


def test_one_finished_run_says_what_it_took_and_costs_it_at_todays_price() -> None:
    told = estimate(asked(), PRICE, [run_of()])
    assert told is not None
    assert str(told.source) == "history (1 run)"
    assert {line.name: line.seconds.p50 for line in told.phases} == {
        "Idle": 20,
        "Preparing": 5,
        "Training": 100,
        "Evaluating": 10,
    }
    assert told.held.seconds == Spread(135, 135)
    assert told.total == Spread(Decimal("1.3500"), Decimal("1.3500"))
    assert sum(line.amount.p50 for line in told.phases if line.amount) == Decimal("1.3500")


def test_of_ten_runs_p50_is_the_fifth_and_p90_the_ninth() -> None:
    told = estimate(asked(), PRICE, [run_of(attempt(training=seconds)) for seconds in range(1000, 0, -100)])
    assert told is not None
    assert told.source.runs == 10
    assert {line.name: line.seconds for line in told.phases}["Training"] == Spread(500, 900)
    assert told.total == Spread(Decimal("5.3500"), Decimal("9.3500"))


def test_of_few_runs_p90_is_the_longest() -> None:
    told = estimate(asked(), None, [run_of(attempt(training=seconds)) for seconds in (100, 300, 200)])
    assert told is not None
    assert told.held.seconds == Spread(235, 335)
    assert told.held.amount is None
    assert told.total is None


def test_training_grows_with_images_and_epochs_and_starting_does_not() -> None:
    did = run_of(attempt(compiling=40), images=1000)
    told = estimate(asked(images=4000, epochs=6), PRICE, [did])
    assert told is not None
    assert {line.name: line.seconds.p50 for line in told.phases} == {
        "Idle": 20,
        "Compiling": 40,
        "Preparing": 20,
        "Training": 800,
        "Evaluating": 40,
    }


def test_a_pod_that_only_verifies_takes_as_long_with_more_images() -> None:
    did = run_of(preparation=prepared())
    told = estimate(asked(images=5000, prepare_flavor="cheap"), PRICE, [did])
    assert told is not None
    assert {line.name: line.seconds.p50 for line in told.phases}["Preparing"] == 5


def test_images_that_nobody_has_counted_are_as_many_as_those_of_the_runs() -> None:
    told = estimate(asked(images=None), None, [run_of(images=1000)])
    assert told is not None
    assert told.held.seconds.p50 == 135


def test_a_what_if_of_many_times_the_data_needs_no_count() -> None:
    told = estimate(asked(images=None, dataset_scale=500), None, [run_of()])
    assert told is not None
    assert {line.name: line.seconds.p50 for line in told.phases}["Training"] == 50_000


@pytest.mark.parametrize(
    "spec",
    [
        {"flavor": "vpod4-vm"},
        {"model": {"name": "vit-other", "claimName": "models"}},
        {"model": {"name": "vit-tiny", "claimName": "elsewhere"}},
        {"dataset": {"source": {"pvc": {"claimName": "nih"}}, "imageSize": 384}},
    ],
)
def test_another_flavor_model_or_image_size_says_nothing(spec: dict[str, Any]) -> None:
    assert estimate(asked(), PRICE, [run_of(spec=spec)]) is None


def test_a_run_whose_pod_prepared_says_nothing_of_one_whose_data_a_job_prepares() -> None:
    assert estimate(asked(prepare_flavor="cheap"), PRICE, [run_of()]) is None


@pytest.mark.parametrize(
    "status",
    [
        {"state": names.FAILED},
        {"state": names.TRAINING},
        {"rerun": 1},
        {"results": {"adopted": True}},
        {"results": {"resumedFromStep": 100}},
        {"attempts": []},
        {"conditions": [{"type": names.ACCEPTED, "reason": names.EDITS_PENDING}]},
    ],
)
def test_what_did_not_take_a_whole_run_is_no_history(status: dict[str, Any]) -> None:
    assert read_finished_runs([finished(**status)]) == []


def test_a_job_without_status_or_with_a_spec_of_other_times_is_no_history() -> None:
    assert read_finished_runs([make_job().raw(), finished(spec={"model": {}})]) == []


def test_a_run_that_was_stopped_and_went_on_took_all_its_attempts() -> None:
    did = run_of(attempt("p1", training=50), attempt("p2", training=50), results={"resumedFromStep": 9})
    told = estimate(asked(), BY_THE_MINUTE, [did])
    assert told is not None
    assert told.held.seconds.p50 == 170
    assert told.total == Spread(Decimal("6.0000"), Decimal("6.0000"))  # each is billed the minimum
    assert told.phases[-1].name == names.ROUNDED_UP
    assert told.phases[-1].seconds.p50 == 430


def test_the_price_of_the_run_itself_and_what_its_rows_were_billed_do_not_count() -> None:
    old = attempt() | {"billedSeconds": 9999, "amount": "99.0000"}
    told = estimate(asked(), PRICE, [run_of(old)])
    assert told is not None
    assert told.total == Spread(Decimal("1.3500"), Decimal("1.3500"))


def test_preparations_are_of_their_own_flavor_and_each_is_taken_once() -> None:
    other = {"dataset": {"source": {"pvc": {"claimName": "other"}}}}
    runs = [run_of(preparation=prepared("data-1", 600)), run_of(preparation=prepared("data-1", 600))]
    runs.append(run_of(preparation=prepared("data-2", 800), spec=other))
    runs.append(run_of(preparation=prepared("data-3", 9000, flavor="fast")))
    told = estimate(asked(prepare_flavor="cheap"), PRICE, runs, prepare_price=CHEAP)
    assert told is not None
    (data,) = told.preparations
    assert (data.line.name, data.flavor, str(data.source)) == ("DataPreparation", "cheap", "history (2 runs)")
    assert data.line.seconds == Spread(600, 800)
    assert data.line.amount == Spread(Decimal("0.6000"), Decimal("0.8000"))
    assert told.seconds == Spread(735, 935)
    assert told.total == Spread(Decimal("1.9500"), Decimal("2.1500"))


def test_repeats_that_found_the_data_prepared_do_not_make_preparing_cheap() -> None:
    """Their Jobs were made anew and needed seconds."""
    repeats = [run_of(preparation=prepared(f"data-{n}", 6)) for n in range(2, 11)]
    told = estimate(
        asked(prepare_flavor="cheap"),
        PRICE,
        [run_of(preparation=prepared("data-1", 6300)), *repeats],
        prepare_price=CHEAP,
    )
    assert told is not None
    (data,) = told.preparations
    assert (data.line.seconds, str(data.source)) == (Spread(6300, 6300), "history (1 run)")
    assert str(told.source) == "history (10 runs)"
    assert told.seconds == Spread(6435, 6435)


def test_repeats_that_found_the_data_prepared_in_place_do_not_make_preparing_cheap() -> None:
    runs = [run_of(attempt(preparing=seconds)) for seconds in (6, 6300, 6)]
    told = estimate(asked(images=2000), PRICE, runs)
    assert told is not None
    assert {line.name: line.seconds for line in told.phases}["Preparing"] == Spread(12_600, 12_600)


def test_one_job_name_may_have_prepared_twice() -> None:
    """A rerun's Job has the name of the one before: of more data it tells too, of the same it has found them done."""
    first = prepared("data-1", 600)
    later = {"startedAt": "2026-11-22T15:00:00Z"}
    more, again = prepared("data-1", 1600) | later, prepared("data-1", 6) | later
    for second, images, told_of in ((more, 2000, Spread(600, 800)), (again, 1000, Spread(600, 600))):
        runs = [run_of(preparation=first), run_of(preparation=second, images=images)]
        told = estimate(asked(prepare_flavor="cheap"), PRICE, runs)
        assert told is not None
        (data,) = told.preparations
        assert (data.line.seconds, data.source.runs) == (told_of, len({1000, images}))


def test_a_preparation_says_something_of_other_models_and_more_images() -> None:
    other = run_of(preparation=prepared(), spec={"flavor": "vpod4-vm"}, images=1000)
    told = estimate(asked(prepare_flavor="cheap", images=3000), PRICE, [other], HINTS, CHEAP)
    assert told is not None
    assert str(told.source) == "hints"
    assert told.preparations[0].line.seconds.p50 == 1800


def test_a_model_that_was_fetched_on_its_own_is_a_line_of_its_own() -> None:
    did = run_of(preparation=prepared(), modelPreparation=prepared("model-1", 60))
    told = estimate(asked(prepare_flavor="cheap"), PRICE, [did], prepare_price=CHEAP)
    assert told is not None
    assert [each.line.name for each in told.preparations] == ["DataPreparation", "ModelPreparation"]


def test_amounts_in_another_currency_are_not_added() -> None:
    euros = CHEAP.model_copy(update={"currency": "EUR"})
    told = estimate(asked(prepare_flavor="cheap"), PRICE, [run_of(preparation=prepared())], prepare_price=euros)
    assert told is not None
    assert told.preparations[0].line.amount is None
    assert told.total == told.held.amount


def test_that_nothing_is_known_of_the_preparation_is_told() -> None:
    other = run_of(preparation=prepared(flavor="fast"))
    told = estimate(asked(prepare_flavor="cheap"), PRICE, [other])
    assert told is not None
    assert told.lacks_preparation
    assert told.preparations == ()


def test_hints_are_taken_where_nothing_has_finished() -> None:
    told = estimate(asked(images=10_000, prepare_flavor="cheap"), PRICE, [], HINTS, CHEAP, HINTS)
    assert told is not None
    assert str(told.source) == "hints"
    assert {line.name: line.seconds for line in told.phases} == {
        "Idle": Spread(30, 30),
        "Training": Spread(210, 210),  # 7000 images, 3 epochs
        "Evaluating": Spread(20, 20),
    }
    assert told.preparations[0].line.seconds.p50 == 200
    assert told.total == Spread(Decimal("2.8000"), Decimal("2.8000"))


def test_hints_of_a_flavor_that_prepares_in_place_say_how_fast() -> None:
    told = estimate(asked(images=10_000), PRICE, [], HINTS)
    assert told is not None
    assert {line.name: line.seconds.p50 for line in told.phases}["Preparing"] == 200


def test_history_goes_before_hints() -> None:
    told = estimate(asked(), PRICE, [run_of()], HINTS)
    assert told is not None
    assert told.source.kind == "history"


def test_with_neither_nothing_is_said_but_what_is_lacking() -> None:
    workload = asked(images=None)
    assert estimate(workload, PRICE, []) is None
    assert lacking(workload, Hints()) == [
        "how many images there are",
        "trainImagesPerSecond of flavor demo-vpod4",
        "prepareImagesPerSecond of flavor demo-vpod4",
    ]
    assert lacking(asked(images=9, prepare_flavor="cheap"), Hints(train_images_per_second=Decimal(1))) == []


def test_images_are_known_where_a_run_has_counted_the_same_source() -> None:
    elsewhere = run_of(images=7, spec={"dataset": {"source": {"pvc": {"claimName": "other"}}}})
    assert count_images(asked(images=None), [run_of(images=5), elsewhere]).images == 5
    assert count_images(asked(images=None), [elsewhere]).images is None
    assert count_images(asked(images=3), [run_of(images=5)]).images == 3


@pytest.mark.parametrize(
    ("source", "images"),
    [({"synthetic": {"images": 600}}, 600), ({"http": {}}, 112_120), ({"http": {"configMapName": "mine"}}, None)],
)
def test_the_images_of_some_sources_are_known_beforehand(source: dict[str, Any], images: int | None) -> None:
    run = read_finished_run(finished(spec={"dataset": {"source": source}}, data={}))
    assert run is not None
    assert run.workload.images == images


@given(st.lists(st.integers(0, 10**6), min_size=1), st.integers(1, 100))
def test_so_many_percent_do_not_exceed_a_nearest_rank(values: list[int], percent: int) -> None:
    value = nearest_rank(values, percent)
    assert value in values
    assert 100 * sum(each <= value for each in values) >= percent * len(values)
    assert 100 * sum(each < value for each in values) < percent * len(values)


@given(
    st.lists(st.lists(st.integers(0, 10**5), min_size=1, max_size=3), min_size=1, max_size=5),
    st.integers(1, 3),
    st.integers(1, 10),
)
def test_what_is_estimated_is_what_the_operator_would_bill(trained: list[list[int]], epochs: int, images: int) -> None:
    """Against a bill made by hand of every attempt of every run; each prepares as long as the one with most attempts."""
    runs = [run_of(*(attempt(f"p{n}", training=each) for n, each in enumerate(run))) for run in trained]
    told = estimate(asked(epochs=epochs, images=images * 1000), BY_THE_MINUTE, runs)
    ratio = Fraction(images * epochs, 3)
    most = max(len(run) for run in trained)
    preparing = [[5 * images * (1 + most - len(run)), *[5 * images] * (len(run) - 1)] for run in trained]
    billed = [
        sum(
            billed_seconds(20 + prepares - int(-each * ratio // 1) + 10 * images, BY_THE_MINUTE)
            for each, prepares in zip(run, first, strict=True)
        )
        for run, first in zip(trained, preparing, strict=True)
    ]
    assert told is not None
    assert told.total is not None
    assert told.total.p90 == nearest_rank([amount_of(each, BY_THE_MINUTE) for each in billed], 90)
    assert told.total.p50 <= told.total.p90
