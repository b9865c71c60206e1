"""Runs of one job on several flavors, as rows of a table, and where the bigger flavor wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.test_estimate import BY_THE_MINUTE, CHEAP, PRICE, attempt, finished, prepared, run_of
from xray_operator.core.comparison import HINT, HISTORY, MEASURED, Crossing, Entry, crossings, sample
from xray_operator.core.cost import amount_of, billed_seconds
from xray_operator.core.courses import (
    Course,
    course_of,
    hinted_course,
    hinted_preparation,
)
from xray_operator.core.history import FinishedRun, Workload, read_finished_runs
from xray_operator.core.sharing import prepared_alone
from xray_operator.core.spec import Hints, Price

FLAVOR = run_of().workload.flavor
PRICES = {FLAVOR: PRICE, "cheap": CHEAP}
JOB = {"dataset": {"source": {"pvc": {"claimName": "nih"}}, "prepare": "Job", "prepareFlavor": "cheap"}}


def entry(runs: Sequence[FinishedRun], source: str = MEASURED, prices: dict[str, Price | None] | None = None) -> Entry:
    asked = runs[0].workload
    told = PRICES if prices is None else prices
    courses = [course_of(run, asked, PRICES | told) for run in prepared_alone(runs)]
    return Entry(asked.flavor, 4, source, tuple(course for course in courses if course))


def run_by_job(**more: Any) -> FinishedRun:
    seconds, job = more.pop("prepares", 600), more.pop("job", "data-1")
    return run_of(attempt(**more), preparation=prepared(job, seconds))


def test_a_finished_run_takes_at_its_own_size_what_it_has_taken() -> None:
    row = entry([run_by_job(training=100), run_by_job(training=104), run_by_job(training=102)]).row(1000)
    assert (row.source, row.runs, row.scaled, row.currency) == (MEASURED, 3, False, "USD")
    assert row.preparation.seconds == sample([600], Decimal(1))
    assert row.preparation.amount == sample([Decimal("0.6000")], Decimal("0.0001"))
    assert row.training.seconds == sample([135, 139, 137], Decimal("0.1"))
    assert (row.training.seconds.mean, row.training.seconds.deviation) == (137, 2)
    assert row.training.amount is not None
    assert row.training.amount.mean == Decimal("1.3700")
    assert (row.training.amount.least, row.training.amount.most) == (Decimal("1.3500"), Decimal("1.3900"))
    assert row.total.amount is not None
    assert row.total.amount.mean == Decimal("1.9700")


def test_each_attempt_is_billed_by_itself() -> None:
    twice = run_of(attempt("p1", training=100), attempt("p2", training=200), preparation=prepared())
    row = entry([twice], prices={FLAVOR: BY_THE_MINUTE, "cheap": CHEAP}).row(1000)
    assert row.training.seconds.mean == 135 + 235
    assert row.training.amount is not None
    assert row.training.amount.mean == amount_of(300 + 300, BY_THE_MINUTE)


def test_with_more_images_what_is_there_for_each_of_them_grows() -> None:
    one = entry([run_by_job()])
    grown = one.row(500_000)
    assert grown.scaled
    assert grown.preparation.seconds.mean == 500 * 600
    assert grown.training.seconds.mean == 500 * (100 + 10) + 20 + 5
    assert grown.training.amount is not None
    assert grown.training.amount.mean == amount_of(500 * 110 + 25, PRICE)


def test_whoever_finds_the_data_prepared_is_counted_as_if_it_had_prepared_them() -> None:
    """The second one's Job has found everything within seconds."""
    row = entry([run_by_job(prepares=600), run_by_job(job="data-2", prepares=3)]).row(1000)
    assert (row.preparation.seconds.mean, row.preparation.seconds.count) == (600, 1)
    in_place = entry([run_of(attempt(preparing=300)), run_of(attempt(preparing=4))])
    row = in_place.row(1000)
    assert (row.preparation.seconds.mean, row.preparation.seconds.count) == (300, 1)
    assert row.training.seconds == sample([130, 130], Decimal("0.1"))
    assert row.preparation.amount is not None
    assert row.preparation.amount.mean == Decimal("3.0000")
    assert in_place.row(2000).preparation.seconds.mean == 600


def test_models_are_fetched_whatever_the_images() -> None:
    fetched = prepared("model-1", 50)
    row = entry([run_of(preparation=prepared(), modelPreparation=fetched)]).row(2000)
    assert row.preparation.seconds.mean == 1200 + 50


def test_other_epochs_and_another_split() -> None:
    run = run_by_job()
    asked = replace(run.workload, epochs=run.workload.epochs * 2, held_out_share=run.workload.held_out_share / 2)
    course = course_of(run, asked, PRICES)
    assert course is not None
    assert course.training(1000).seconds == 20 + 5 + 200 + 5


def test_without_a_price_there_are_times_and_no_amounts() -> None:
    row = entry([run_by_job()], prices={FLAVOR: None}).row(1000)
    assert (row.currency, row.preparation.amount, row.training.amount, row.total.amount) == (None, None, None, None)
    assert row.total.seconds.mean == 735
    unpriced_preparation = entry([run_by_job()], prices={"cheap": None}).row(1000)
    assert unpriced_preparation.preparation.amount is None
    assert unpriced_preparation.total.amount == unpriced_preparation.training.amount, "as on the bill"
    assert (unpriced_preparation.lacks_price, row.lacks_price) == (True, False)


def test_runs_whose_images_were_not_counted_tell_nothing_of_other_sizes() -> None:
    (run,) = read_finished_runs([finished(data={}, spec=JOB)])
    assert course_of(run, run.workload, PRICES) is None


def asked_for(**fields: Any) -> Workload:
    return replace(run_by_job().workload, prepare_flavor="cheap", **fields)


def test_hints() -> None:
    hints = Hints.model_validate({"trainImagesPerSecond": "100", "startSeconds": 30})
    claims = hinted_preparation(Hints.model_validate({"prepareImagesPerSecond": "50"}), CHEAP)
    assert claims is not None
    asked = asked_for(epochs=3, train_share=Fraction(7, 10), held_out_share=Fraction(2, 10))
    course = hinted_course(asked, 1000, hints, PRICE, (claims,))
    assert course is not None
    row = Entry("vpod4-vm", 4, HINT, (course,)).row(1000)
    assert (row.source, row.runs, row.scaled) == (HINT, 0, False)
    assert row.preparation.seconds.mean == 20
    assert row.training.seconds == sample([30 + 21 + 2], Decimal("0.1"))
    assert row.total.amount is not None
    assert row.total.amount.mean == Decimal("0.0200") + Decimal("0.5300")
    assert row.training.seconds.deviation is None
    in_place = replace(asked, prepare_flavor=None)
    assert hinted_course(in_place, 1000, hints, PRICE) is None, "nobody knows how fast it prepares"
    assert hinted_course(asked, 1000, Hints(), PRICE) is None
    assert hinted_preparation(Hints(), PRICE) is None
    reads = hints.model_copy(update={"prepare_images_per_second": Decimal(10)})
    prepares = hinted_course(in_place, 1000, reads, PRICE)
    assert prepares is not None
    assert (prepares.preparation(1000).seconds, prepares.training(1000).seconds) == (100, 53)


def hinted(flavor: str, accelerators: int, rate: str, start: int, price: Price | None) -> Entry:
    asked = asked_for(epochs=1, train_share=Fraction(8, 10), held_out_share=Fraction(2, 10))
    hints = Hints.model_validate({"trainImagesPerSecond": rate, "startSeconds": start})
    prepares = hinted_preparation(Hints.model_validate({"prepareImagesPerSecond": "50"}), CHEAP)
    course = hinted_course(asked, 1000, hints, price, (prepares,) if prepares else ())
    assert course is not None
    return Entry(flavor, accelerators, HINT, (course,))


def test_truck_or_boeing() -> None:
    """The bigger one starts later and is twice as fast, for three times the money by the hour."""
    truck = hinted("truck", 4, "100", 60, PRICE)
    dear = PRICE.model_copy(update={"per_hour": PRICE.per_hour * 3})
    assert crossings([hinted("boeing", 16, "200", 120, dear), truck]) == [
        Crossing("boeing", "truck", time=12_001, money=None, priced=True)
    ]
    fair = PRICE.model_copy(update={"per_hour": PRICE.per_hour * Decimal("1.5")})
    (crossing,) = crossings([truck, hinted("boeing", 16, "200", 120, fair)])
    # 1.5 * (120 + n/200) < 60 + n/100 from n = 48,000 on, and each rounds to its next second
    assert crossing.money is not None
    assert crossing.money == pytest.approx(48_001, abs=800)
    assert crossing.both == crossing.money
    (alike,) = crossings([truck, replace(truck, flavor="later")])
    assert (alike.bigger, alike.smaller, alike.time, alike.money) == ("later", "truck", None, None)


@pytest.mark.parametrize("other", [None, PRICE.model_copy(update={"currency": "EUR"})])
def test_money_without_a_common_currency_is_not_compared(other: Price | None) -> None:
    (crossing,) = crossings([hinted("a", 4, "100", 60, PRICE), hinted("b", 4, "200", 60, other)])
    assert (crossing.time, crossing.money, crossing.both, crossing.priced) == (1, None, None, False)


@given(
    st.lists(st.integers(50, 400), min_size=1, max_size=3),
    st.lists(st.integers(50, 400), min_size=1, max_size=3),
    st.integers(1, 3000),
)
def test_the_mean_of_the_repeats_is_what_is_compared(small: list[int], big: list[int], images: int) -> None:
    """Counted from the courses themselves, in exact money, at one size."""
    entries = [_repeats(small, PRICE), _repeats(big, BY_THE_MINUTE)]
    (crossing,) = crossings([replace(each, flavor=name) for each, name in zip(entries, "ab", strict=True)])
    means = [_mean_cost(each, images) for each in entries]
    if crossing.money is not None and images >= crossing.money:
        assert means[1] < means[0]
    if crossing.money is not None and crossing.money > 1:
        at = crossing.money - 1
        assert _mean_cost(entries[1], at) >= _mean_cost(entries[0], at)


def _repeats(seconds: list[int], price: Price) -> Entry:
    return entry([run_by_job(training=each) for each in seconds], HISTORY, {FLAVOR: price, "cheap": CHEAP})


def _mean_cost(of: Entry, images: int) -> Fraction:
    return sum((_exact_cost(course, images) for course in of.courses), Fraction(0)) / len(of.courses)


def _exact_cost(course: Course, images: int) -> Fraction:
    claims = [*course.claims, *(claim for job in course.preparations for claim in job)]
    return sum(
        (
            Fraction(claim.price.per_hour) * billed_seconds(claim.seconds(images), claim.price) / 3600
            for claim in claims
            if claim.price
        ),
        Fraction(0),
    )
