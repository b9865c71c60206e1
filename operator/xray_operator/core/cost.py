"""What a run costs: the price that was in force at its start, times the seconds that it held its flavor.

Amounts are exact decimals, rounded once, to four places, half to even. Waiting in the queue costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from xray_operator.core.spec import Price
from xray_operator.names import HELD_PHASES

PLACES: Final = Decimal("0.0001")
CENTS: Final = Decimal("0.01")
NOTHING: Final = Decimal("0.0000")


@dataclass(frozen=True)
class Cost:
    """An amount in the currency's major unit, divided among the phases; None where there is no price."""

    price: Price | None
    seconds: Mapping[str, int]
    """Held seconds of each of HELD_PHASES, all attempts together."""
    held_seconds: int
    billed_seconds: int
    total: Decimal | None
    amounts: Mapping[str, Decimal]

    @property
    def display(self) -> str:
        if self.price is None or self.total is None:
            return "unpriced"
        return f"{self.total.quantize(CENTS, ROUND_HALF_EVEN)} {self.price.currency}"


def price_in_force(prices: Iterable[Price], now: datetime) -> Price | None:
    """The entry with the newest effectiveFrom that is not in the future; None if there is none."""
    known = [price for price in prices if price.effective_from <= now]
    return max(known, key=lambda price: price.effective_from, default=None)


def billed_seconds(held: int, price: Price) -> int:
    """Held seconds after the price's minimum and increment; nothing held is nothing billed."""
    if held <= 0:
        return 0
    increments = -(-max(held, price.minimum_seconds) // price.increment_seconds)
    return increments * price.increment_seconds


def make_cost(seconds: Mapping[str, int], price: Price | None) -> Cost:
    """The cost of a run that held its flavor for so many seconds in each of HELD_PHASES."""
    held = sum(seconds.values())
    if price is None:
        return Cost(None, seconds, held, held, None, {})
    billed = billed_seconds(held, price)
    total = (price.per_hour * billed / 3600).quantize(PLACES, ROUND_HALF_EVEN)
    return Cost(price, seconds, held, billed, total, divide(total, seconds))


def divide(total: Decimal, seconds: Mapping[str, int]) -> dict[str, Decimal]:
    """Parts of total in proportion to seconds that add up to total exactly (largest remainder method).

    Args:
        total: not negative, a multiple of PLACES.
        seconds: per phase, not negative; where all are 0, total is 0 too.
    """
    units = int(total / PLACES)
    whole = sum(seconds.values())
    if whole == 0:
        return dict.fromkeys(seconds, NOTHING)
    parts = {phase: units * share // whole for phase, share in seconds.items()}
    by_remainder = sorted(seconds, key=lambda p: (-(units * seconds[p] % whole), HELD_PHASES.index(p)))
    for phase in by_remainder[: units - sum(parts.values())]:
        parts[phase] += 1
    return {phase: part * PLACES for phase, part in parts.items()}
