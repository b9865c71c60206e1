"""What a run costs: exact, never invented, and the parts are the whole."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_operator.core.cost import PLACES, billed_seconds, make_cost, price_in_force
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


@given(SECONDS, PRICES)
def test_phases_add_up_to_the_total_exactly(seconds: dict[str, int], paid: Price) -> None:
    cost = make_cost(seconds, paid)
    assert sum(cost.amounts.values()) == cost.total
    assert all(amount >= 0 for amount in cost.amounts.values())
    assert all(cost.amounts[phase] == 0 for phase in HELD_PHASES if seconds[phase] == 0)


@given(SECONDS, PRICES)
def test_the_total_is_the_billed_time_times_the_price_to_half_a_place(seconds: dict[str, int], paid: Price) -> None:
    cost = make_cost(seconds, paid)
    assert cost.total is not None
    assert abs(cost.total - paid.per_hour * cost.billed_seconds / 3600) <= PLACES / 2


@given(SECONDS, PRICES)
def test_a_part_is_off_its_share_by_less_than_one_place(seconds: dict[str, int], paid: Price) -> None:
    cost = make_cost(seconds, paid)
    assert cost.total is not None
    for phase, amount in cost.amounts.items():
        share = cost.total * seconds[phase] / max(cost.held_seconds, 1)
        assert abs(amount - share) < PLACES


@given(st.integers(0, 10**6), PRICES)
def test_billed_time_is_at_least_held_and_minimum_and_a_multiple_of_the_increment(held: int, paid: Price) -> None:
    billed = billed_seconds(held, paid)
    assert billed % paid.increment_seconds == 0
    assert billed == 0 if held == 0 else held <= billed
    assert held == 0 or paid.minimum_seconds <= billed < max(held, paid.minimum_seconds) + paid.increment_seconds


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
    cost = make_cost({"Preparing": held, "Training": 0, "Evaluating": 0}, price("8.50", minimum, increment))
    assert (str(cost.total), cost.display) == (total, display)


def test_without_a_price_nothing_is_invented() -> None:
    cost = make_cost({"Preparing": 10, "Training": 20, "Evaluating": 0}, None)
    assert (cost.total, cost.amounts, cost.display, cost.held_seconds) == (None, {}, "unpriced", 30)


def test_the_price_in_force_is_the_newest_that_is_not_in_the_future() -> None:
    old, new = price("1", since="2026-01-01T00:00:00Z"), price("2", since="2026-06-01T00:00:00+02:00")
    later = price("3", since="2027-01-01T00:00:00Z")
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert price_in_force([later, new, old], now) == new
    assert price_in_force([later], now) is None
    assert price_in_force([new], datetime(2026, 5, 31, 22, 0, tzinfo=UTC)) == new
    assert price_in_force([new], datetime(2026, 5, 31, 21, 59, tzinfo=UTC)) is None


def test_amounts_are_decimals_with_four_places() -> None:
    cost = make_cost({"Preparing": 1, "Training": 1, "Evaluating": 1}, price("0.36"))
    assert cost.total == Decimal("0.0003")
    assert {str(amount) for amount in cost.amounts.values()} == {"0.0001"}
