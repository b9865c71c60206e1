"""What a run costs: the price that was in force at its start, times the seconds for which its attempts are billed.

Each attempt claims the flavor anew, so each is billed by itself: its held seconds, raised to the price's minimum and then
to a whole number of increments. Waiting in the queue costs nothing. Amounts are exact decimals; a sum is rounded once,
to four places, half to even, and its parts add up to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from itertools import accumulate, pairwise
from typing import Final

from xray_operator.core.spec import Price
from xray_operator.names import ROUNDED_UP, TRAINING

PLACES: Final = Decimal("0.0001")
CENTS: Final = Decimal("0.01")
NOTHING: Final = Decimal("0.0000")
UNPRICED: Final = "unpriced"
UNPRICED_PART: Final = " + unpriced"
"""After an amount to which something has to be added that has no price."""


@dataclass(frozen=True)
class PaidPreparation:
    """What a preparation of its own adds to the bill of the run that pays for it."""

    phase: str
    seconds: int
    """Held of its own flavor."""
    amount: Decimal | None
    """At its own price; None where it has none, or none in the run's currency."""
    estimated: bool = False


@dataclass(frozen=True)
class Cost:
    """The bill of a run, in the currency's major unit; amounts are None or absent where its flavor has no price."""

    price: Price | None
    seconds: Mapping[str, int]
    """Held seconds of each of HELD_PHASES, all attempts together."""
    billed_seconds: int
    """Of all attempts, each by itself."""
    lost_seconds: int = 0
    """Of Training: what attempts that failed had done since their newest checkpoint."""
    estimated: bool = False
    """The end of an attempt was not told by its containers."""
    preparations: tuple[PaidPreparation, ...] = ()

    @property
    def held_seconds(self) -> int:
        return sum(self.seconds.values())

    @property
    def prepared(self) -> Decimal:
        """The part of the preparations that have a price."""
        return sum((each.amount or NOTHING for each in self.preparations), NOTHING)

    @property
    def total(self) -> Decimal | None:
        if self.price is None:
            return None
        return self.prepared + amount_of(self.billed_seconds, self.price)

    @property
    def amounts(self) -> dict[str, Decimal]:
        """The flavor's part of the total by phase; what was billed beyond what was held is ROUNDED_UP."""
        if self.price is None:
            return {}
        rounded_up = {ROUNDED_UP: self.billed_seconds - self.held_seconds}
        return divide(amount_of(self.billed_seconds, self.price), {**self.seconds, **rounded_up})

    @property
    def lost_amount(self) -> Decimal | None:
        """A part of that of Training, told once more."""
        if self.price is None:
            return None
        return min(amount_of(self.lost_seconds, self.price), self.amounts[TRAINING])

    @property
    def display(self) -> str:
        missing = self.price is not None and any(each.amount is None for each in self.preparations)
        return f"{display_of(self.total, self.price)}{UNPRICED_PART if missing else ''}"


def price_in_force(prices: Iterable[Price], now: datetime) -> Price | None:
    """The entry with the newest effectiveFrom that is not in the future; None if there is none."""
    known = [price for price in prices if price.effective_from <= now]
    return max(known, key=lambda price: price.effective_from, default=None)


def billed_seconds(held: int, price: Price) -> int:
    """One attempt's held seconds after the price's minimum and increment; nothing held is nothing billed."""
    if held <= 0:
        return 0
    increments = -(-max(held, price.minimum_seconds) // price.increment_seconds)
    return increments * price.increment_seconds


def amount_of(seconds: int, price: Price) -> Decimal:
    """The price of so many seconds."""
    return (price.per_hour * seconds / 3600).quantize(PLACES, ROUND_HALF_EVEN)


def running_amounts(seconds: Iterable[int], price: Price) -> list[Decimal]:
    """The price of each of these, one after the other: none changes with those that follow, and all add up to the
    price of the sum, which is rounded once."""
    sums = [amount_of(so_far, price) for so_far in accumulate(seconds, initial=0)]
    return [after - before for before, after in pairwise(sums)]


def divide(total: Decimal, seconds: Mapping[str, int]) -> dict[str, Decimal]:
    """Parts of total in proportion to seconds that add up to total exactly (largest remainder method).

    Args:
        total: not negative, a multiple of PLACES.
        seconds: per part, not negative; where all are 0, total is 0 too. Of equal remainders the first one's is rounded up.
    """
    units = int(total / PLACES)
    whole = sum(seconds.values())
    if whole == 0:
        return dict.fromkeys(seconds, NOTHING)
    parts = {name: units * share // whole for name, share in seconds.items()}
    by_remainder = sorted(seconds, key=lambda name: -(units * seconds[name] % whole))
    for name in by_remainder[: units - sum(parts.values())]:
        parts[name] += 1
    return {name: part * PLACES for name, part in parts.items()}


def display_of(amount: Decimal | None, price: Price | None) -> str:
    """An amount for people: 0.42 USD, or unpriced."""
    if price is None or amount is None:
        return UNPRICED
    return f"{amount.quantize(CENTS, ROUND_HALF_EVEN)} {price.currency}"


def read_amount(text: object) -> Decimal | None:
    """An amount as a status tells it; None where it is none."""
    try:
        amount = Decimal(text) if isinstance(text, str) else None
    except InvalidOperation:
        return None
    return amount if amount is not None and amount.is_finite() else None
