"""From which data size on one way to run a job beats another: exact, with billing by increments. Called by comparison.

A run is a sum of steps. Each holds something for `fixed + per_image * images` seconds, at least `minimum`, rounded up to a
whole number of `increment`, at `rate`: so money is a sum of staircases, which may cross many times before one stays below.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

ALWAYS: Final = 1
"""The first size that there is: what wins from one image on wins always."""
MOST_IMAGES: Final = 10**12
"""What is not won for good by then counts as never won."""


@dataclass(frozen=True)
class Step:
    """What one claim adds, to time (as it stands) or to money (with what its price says)."""

    fixed: Fraction
    per_image: Fraction
    rate: Fraction = Fraction(1)
    minimum: int = 0
    increment: int = 0
    """0: nothing is rounded."""

    def at(self, images: int) -> Fraction:
        """Never falls as the images grow."""
        held = self.fixed + self.per_image * images
        if held <= 0:
            return Fraction(0)
        held = max(held, Fraction(self.minimum))
        return self.rate * (-(-held // self.increment) * self.increment if self.increment else held)

    @property
    def slope(self) -> Fraction:
        return self.rate * self.per_image

    @property
    def lower(self) -> Fraction:
        """The step is at least this and its slope times the images."""
        return self.rate * self.fixed

    @property
    def upper(self) -> Fraction:
        """The step is at most this and its slope times the images."""
        return self.rate * (max(self.fixed, Fraction(self.minimum)) + self.increment)

    @property
    def settled(self) -> int:
        """A size from which on the minimum has no effect."""
        return math.ceil((self.minimum - self.fixed) / self.per_image) if self.per_image else 0

    @property
    def period(self) -> int:
        """Once it is settled, so many images more add the slope for each of them, to the last digit."""
        return (self.per_image / self.increment).denominator if self.increment else 1


def wins_from(bigger: Sequence[Step], smaller: Sequence[Step]) -> int | None:
    """The smallest number of images from which on `bigger` takes less than `smaller`, for good; None: there is none."""
    ours, theirs = _without_common(bigger, smaller)
    both = (*ours, *theirs)
    gain = _total(step.slope for step in theirs) - _total(step.slope for step in ours)
    if gain > 0:
        ahead = _total(step.upper for step in ours) - _total(step.lower for step in theirs)
        sure = max(ALWAYS, ahead // gain + 1)
        return _down_from(sure, ours, theirs) if sure <= MOST_IMAGES else None
    if gain < 0:
        return None
    # they stay side by side: what one period shows, all show
    settled = max([ALWAYS, *(step.settled for step in both)])
    since = _down_from(settled + math.lcm(*(step.period for step in both)), ours, theirs)
    return since if since is not None and since <= settled else None


def _down_from(images: int, ours: Sequence[Step], theirs: Sequence[Step]) -> int | None:
    """The smallest size from which on, up to this one, ours take less than theirs; None: not even at this one.

    At a smaller size ours take no more than here, so they win there too as long as theirs take more than ours do here. The
    next size to look at is the largest of which that isn't so.
    """
    since = None
    while images >= ALWAYS and (enough := _sum(ours, images)) < _sum(theirs, images):
        images = bisect_right(range(images), enough, lo=ALWAYS, key=lambda size: _sum(theirs, size)) - 1
        since = images + 1
    return since


def _sum(steps: Sequence[Step], images: int) -> Fraction:
    return _total(step.at(images) for step in steps)


def _total(values: Iterable[Fraction]) -> Fraction:
    return sum(values, Fraction(0))


def _without_common(ours: Sequence[Step], theirs: Sequence[Step]) -> tuple[list[Step], list[Step]]:
    """Both without the steps that they share, which decide nothing."""
    left, right = Counter(ours), Counter(theirs)
    return list((left - right).elements()), list((right - left).elements())
