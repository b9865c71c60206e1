"""The same job on several flavors: what its parts take and cost there, and from which data size on the bigger flavor wins.

Called by `kubectl xray compare`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Final

from xray_operator.core.cost import PLACES
from xray_operator.core.courses import Course, Part
from xray_operator.core.crossing import Step, wins_from

MEASURED: Final = "measured"
HISTORY: Final = "history"
HINT: Final = "hint"


@dataclass(frozen=True)
class Sample:
    """What the repeats came to."""

    mean: Decimal
    deviation: Decimal | None
    """Of a sample (n - 1); None of one value."""
    least: Decimal
    most: Decimal
    count: int


def sample(values: Sequence[Decimal | int], places: Decimal) -> Sample:
    """Of at least one value; mean and deviation rounded to places."""
    exact = [Decimal(value) for value in values]
    deviation = statistics.stdev(exact).quantize(places) if len(exact) > 1 else None
    return Sample(statistics.mean(exact).quantize(places), deviation, min(exact), max(exact), len(exact))


@dataclass(frozen=True)
class PartSample:
    seconds: Sample
    amount: Sample | None
    """None without a price."""


@dataclass(frozen=True)
class Row:
    """A flavor's line of the table."""

    flavor: str
    source: str
    """MEASURED, HISTORY or HINT."""
    runs: int
    """None were run for a hint: 0."""
    scaled: bool
    """No run had so many images."""
    images: int
    currency: str | None
    preparation: PartSample
    training: PartSample
    total: PartSample

    @property
    def lacks_price(self) -> bool:
        """Whether the total leaves out a preparation that has no price in its currency."""
        return self.currency is not None and self.total.amount is not None and self.preparation.amount is None


@dataclass(frozen=True)
class Entry:
    """A flavor and what is known of the job there."""

    flavor: str
    accelerators: int
    source: str
    courses: tuple[Course, ...]
    """At least one."""

    def row(self, images: int) -> Row:
        """With so many images."""
        own = {each.prepared: each for each in self.courses}
        return Row(
            flavor=self.flavor,
            source=self.source,
            runs=0 if self.source == HINT else len(self.courses),
            scaled=self.source != HINT and any(each.images != images for each in self.courses),
            images=images,
            currency=self.currency,
            preparation=_part_sample([each.preparation(images) for each in own.values()]),
            training=_part_sample([each.training(images) for each in self.courses]),
            total=_part_sample([each.total(images) for each in self.courses]),
        )

    @property
    def currency(self) -> str | None:
        """None without a price, and where the runs were billed in several."""
        told = {each.price.currency if each.price else None for each in self.courses}
        return told.pop() if len(told) == 1 else None

    def time_steps(self) -> list[Step]:
        """Of the mean run."""
        return _mean([each.time_steps() for each in self.courses])

    def money_steps(self) -> list[Step]:
        return _mean([each.money_steps() for each in self.courses])


def _part_sample(parts: Sequence[Part]) -> PartSample:
    amounts = [part.amount for part in parts if part.amount is not None]
    priced = len(amounts) == len(parts)
    seconds = sample([part.seconds for part in parts], Decimal("0.1"))
    return PartSample(seconds, sample(amounts, PLACES) if priced else None)


def _mean(courses: Sequence[Iterable[Step]]) -> list[Step]:
    """Steps whose sum is the mean of the courses' sums; what is alike stands there once."""
    rates: dict[Step, Fraction] = {}
    for step in (step for course in courses for step in course):
        shape = replace(step, rate=Fraction(0))
        rates[shape] = rates.get(shape, Fraction(0)) + step.rate / len(courses)
    return [replace(shape, rate=rate) for shape, rate in rates.items()]


@dataclass(frozen=True)
class Crossing:
    """From how many images on the bigger flavor wins; None: from none on."""

    bigger: str
    smaller: str
    time: int | None
    money: int | None
    priced: bool
    """False: money can't be compared, for want of prices in one currency."""

    @property
    def both(self) -> int | None:
        return None if self.time is None or self.money is None else max(self.time, self.money)


def crossings(entries: Sequence[Entry]) -> list[Crossing]:
    """Of each pair of flavors. The bigger one has more accelerators; of two with as many it is the later one."""
    by_size = sorted(entries, key=lambda entry: entry.accelerators)
    return [_crossing(bigger, smaller) for smaller, bigger in combinations(by_size, 2)]


def _crossing(bigger: Entry, smaller: Entry) -> Crossing:
    priced = bigger.currency is not None and bigger.currency == smaller.currency
    return Crossing(
        bigger.flavor,
        smaller.flavor,
        time=wins_from(bigger.time_steps(), smaller.time_steps()),
        money=wins_from(bigger.money_steps(), smaller.money_steps()) if priced else None,
        priced=priced,
    )
