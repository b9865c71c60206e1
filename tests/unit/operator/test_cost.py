"""What a run costs: exact, never invented, and the parts are the whole."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_operator.core.cost import (
    PLACES,
    Cost,
    PaidPreparation,
    amount_of,
    billed_seconds,
    price_in_force,
    running_amounts,
)
from xray_operator.core.spec import Price
from xray_operator.names import HELD_PHASES

SECONDS = st.fixed_dictionaries({phase: st.integers(0, 10**7) for phase in HELD_PHASES})
PRICES = st.builds(
    lambda hour, minimum, increment: price(str(hour), minimum, increment),
    st.decimals(0, 10**6, places=4),
    st.integers(0, 86400),
    st.integers(1, 86400),
)


def price(per_hour: str, minimum: int = 0, increment: int = 1, since: str = "2026-01-01T00:00:00Z") -> Price:
    return Price.model_validate(
        {
            "effectiveFrom": since,
            "currency": "USD",
            "perHour": per_hour,
            "minimumSeconds": minimum,
            "incrementSeconds": increment,
        }
    )


def cost_of(seconds: Mapping[str, int], paid: Price | None, lost: int = 0) -> Cost:
    """Of a run of one attempt."""
    held = {phase: seconds.get(phase, 0) for phase in HELD_PHASES}
    total = sum(held.values())
    return Cost(paid, held, billed_seconds(total, paid) if paid else total, lost)


@given(SECONDS, PRICES)
def test_phases_add_up_to_the_total_exactly(seconds: dict[str, int], paid: Price) -> None:
    cost = cost_of(seconds, paid)
    assert sum(cost.amounts.values()) == cost.total
    assert all(amount >= 0 for amount in cost.amounts.values())
    assert all(cost.amounts[phase] == 0 for phase in HELD_PHASES if seconds[phase] == 0)


@given(SECONDS, PRICES)
def test_the_total_is_the_billed_time_times_the_price_rounded_once(seconds: dict[str, int], paid: Price) -> None:
    cost = cost_of(seconds, paid)
    assert cost.total is not None
    exact = Fraction(paid.per_hour) * cost.billed_seconds / 3600
    assert Fraction(cost.total) == Fraction(round(exact * 10000), 10000), "Python rounds a Fraction's half to even"


@given(SECONDS, PRICES)
def test_a_part_is_off_the_price_of_its_seconds_by_less_than_one_place_and_a_half(
    seconds: dict[str, int], paid: Price
) -> None:
    cost = cost_of(seconds, paid)
    for phase in HELD_PHASES:
        exact = Fraction(paid.per_hour) * seconds[phase] / 3600
        assert abs(Fraction(cost.amounts[phase]) - exact) < Fraction(PLACES) * 3 / 2


@given(st.integers(0, 10**6), PRICES)
def test_billed_time_is_at_least_held_and_minimum_and_a_multiple_of_the_increment(held: int, paid: Price) -> None:
    billed = billed_seconds(held, paid)
    assert billed % paid.increment_seconds == 0
    assert billed == 0 if held == 0 else held <= billed
    assert held == 0 or paid.minimum_seconds <= billed < max(held, paid.minimum_seconds) + paid.increment_seconds


@given(st.lists(st.integers(0, 10**6), max_size=40), PRICES)
def test_amounts_of_attempts_add_up_and_none_changes_with_later_ones(billed: list[int], paid: Price) -> None:
    amounts = running_amounts(billed, paid)
    assert sum(amounts) == amount_of(sum(billed), paid)
    for count in range(len(billed)):
        assert running_amounts(billed[:count], paid) == amounts[:count]


@given(SECONDS, PRICES, st.data())
def test_what_was_lost_is_a_part_of_training_and_adds_nothing(
    seconds: dict[str, int], paid: Price, data: st.DataObject
) -> None:
    lost = data.draw(st.integers(0, seconds["Training"]))
    cost = cost_of(seconds, paid, lost)
    assert cost.lost_amount is not None
    assert cost.lost_amount <= cost.amounts["Training"]
    assert abs(Fraction(cost.lost_amount) - Fraction(paid.per_hour) * lost / 3600) <= Fraction(PLACES)
    assert (cost.total, cost.amounts) == (cost_of(seconds, paid).total, cost_of(seconds, paid).amounts)


@pytest.mark.parametrize(
    ("held", "minimum", "increment", "total", "display"),
    [
        (100, 0, 1, "0.2361", "0.24 USD"),
        (100, 3600, 1, "8.5000", "8.50 USD"),
        (61, 0, 60, "0.2833", "0.28 USD"),
        (0, 3600, 60, "0.0000", "0.00 USD"),
    ],
)
def test_examples(held: int, minimum: int, increment: int, total: str, display: str) -> None:
    cost = cost_of({"Preparing": held}, price("8.50", minimum, increment))
    assert (str(cost.total), cost.display) == (total, display)


def test_what_is_billed_beyond_what_was_held_is_told_by_itself() -> None:
    amounts = cost_of({"Idle": 20, "Training": 70}, price("36", 0, 60)).amounts
    told = {phase: str(amount) for phase, amount in amounts.items() if amount}
    assert told == {"Idle": "0.2000", "Training": "0.7000", "RoundedUp": "0.3000"}


def test_what_a_preparation_of_its_own_has_cost_is_part_of_the_total() -> None:
    paid = PaidPreparation("DataPreparation", 100, Decimal("0.0100")), PaidPreparation("ModelPreparation", 5, None)
    cost = Cost(price("36"), cost_of({"Training": 10}, None).seconds, 10, preparations=paid)
    assert (str(cost.total), cost.display) == ("0.1100", "0.11 USD + unpriced"), "a part is not passed off as the whole"
    assert Cost(price("36"), cost.seconds, 10, preparations=paid[:1]).display == "0.11 USD"
    assert sum(cost.amounts.values()) == Decimal("0.1000")
    unpriced = Cost(None, cost.seconds, 10, preparations=paid)
    assert (unpriced.total, unpriced.display) == (None, "unpriced")


def test_without_a_price_nothing_is_invented() -> None:
    cost = cost_of({"Preparing": 10, "Training": 20}, None, lost=5)
    assert (cost.total, cost.amounts, cost.lost_amount, cost.display) == (None, {}, None, "unpriced")
    assert cost.held_seconds == 30


def test_the_price_in_force_is_the_newest_that_is_not_in_the_future() -> None:
    old, new = price("1", since="2026-01-01T00:00:00Z"), price("2", since="2026-06-01T00:00:00+02:00")
    later = price("3", since="2027-01-01T00:00:00Z")
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert price_in_force([later, new, old], now) == new
    assert price_in_force([later], now) is None
    assert price_in_force([new], datetime(2026, 5, 31, 22, 0, tzinfo=UTC)) == new
    assert price_in_force([new], datetime(2026, 5, 31, 21, 59, tzinfo=UTC)) is None


def test_amounts_are_decimals_with_four_places() -> None:
    cost = cost_of({"Preparing": 1, "Training": 1, "Evaluating": 1}, price("0.36"))
    assert cost.total == Decimal("0.0003")
    assert {str(amount) for amount in cost.amounts.values()} == {"0.0001", "0.0000"}
