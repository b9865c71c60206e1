"""How a run's time and money grow with the images: read from a finished run, or from hints. Called by comparison's callers.

A run is a number of claims. Each holds a flavor for a time that is a line over the images of the data set: a part that is there
whatever their number (image pull, start, compilation, verifying samples), and a part for each image (reading, training,
evaluating). At its own size a finished run takes what it has taken, and costs what it is billed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil

from xray_operator import names
from xray_operator.core.attempts import Attempt
from xray_operator.core.cost import NOTHING, amount_of, billed_seconds, divide
from xray_operator.core.crossing import Step
from xray_operator.core.history import FinishedPreparation, FinishedRun, Workload
from xray_operator.core.sharing import set_of
from xray_operator.core.spec import Hints, Price


@dataclass(frozen=True)
class Line:
    """Seconds for a number of images."""

    fixed: Fraction = Fraction(0)
    per_image: Fraction = Fraction(0)

    def at(self, images: int) -> Fraction:
        return self.fixed + self.per_image * images

    def __add__(self, other: Line) -> Line:
        return Line(self.fixed + other.fixed, self.per_image + other.per_image)


@dataclass(frozen=True)
class Claim:
    """One pod that holds a flavor, at the price of that flavor."""

    price: Price | None
    preparing: Line = Line()
    training: Line = Line()
    """All that does not prepare."""

    @property
    def held(self) -> Line:
        return self.preparing + self.training

    def seconds(self, images: int) -> int:
        return ceil(self.held.at(images))

    def billed(self, images: int) -> int:
        return billed_seconds(self.seconds(images), self.price) if self.price else self.seconds(images)


@dataclass(frozen=True)
class Part:
    """What preparing takes, or training, or both."""

    seconds: int
    amount: Decimal | None
    """None without a price."""


@dataclass(frozen=True)
class Course:
    """One run."""

    images: int
    """With which it was seen, or is asked for."""
    claims: tuple[Claim, ...]
    """On the run's own flavor."""
    preparations: tuple[tuple[Claim, ...], ...] = ()
    """Of Jobs of their own: the pods of each."""
    prepared: object = None
    """Equal for runs of whose preparation only one is known."""

    @property
    def price(self) -> Price | None:
        return self.claims[0].price

    def preparation(self, images: int) -> Part:
        """Of data and model, as if nobody shared it; no amount where a part has no price in the run's currency."""
        own = self._own(images)["preparing"]
        seconds = own.seconds + sum(claim.seconds(images) for job in self.preparations for claim in job)
        amounts = [own.amount, *(_amount(job, images) if self._adds_up(job) else None for job in self.preparations)]
        told = [each for each in amounts if each is not None]
        return Part(seconds, sum(told, NOTHING) if len(told) == len(amounts) else None)

    def training(self, images: int) -> Part:
        """With all that holds its flavor and does not prepare."""
        return self._own(images)["training"]

    def total(self, images: int) -> Part:
        """What has no price of its own, or one in another currency, is left out of the amount, as on a bill."""
        parts = self.preparation(images), self.training(images)
        amounts = [part.amount for part in parts if part.amount is not None]
        return Part(sum(part.seconds for part in parts), sum(amounts, NOTHING) if self.price else None)

    def time_steps(self) -> list[Step]:
        """Its seconds, which nothing rounds."""
        return [Step(claim.held.fixed, claim.held.per_image) for claim in self._all]

    def money_steps(self) -> list[Step]:
        """Its money, as it is billed."""
        return [_money_step(claim, claim.price) for claim in self._all if claim.price and self._adds_up((claim,))]

    @property
    def _all(self) -> list[Claim]:
        return [*self.claims, *(claim for job in self.preparations for claim in job)]

    def _adds_up(self, job: Sequence[Claim]) -> bool:
        price = job[0].price
        return price is not None and self.price is not None and price.currency == self.price.currency

    def _own(self, images: int) -> Mapping[str, Part]:
        seconds = {"preparing": ceil(sum((claim.preparing.at(images) for claim in self.claims), Fraction(0)))}
        seconds["training"] = sum(claim.seconds(images) for claim in self.claims) - seconds["preparing"]
        amount = _amount(self.claims, images)
        amounts = {} if amount is None else divide(amount, seconds)
        return {name: Part(each, amounts.get(name)) for name, each in seconds.items()}


def _amount(claims: Sequence[Claim], images: int) -> Decimal | None:
    price = claims[0].price
    return amount_of(sum(claim.billed(images) for claim in claims), price) if price else None


def _money_step(claim: Claim, price: Price) -> Step:
    held, rate = claim.held, Fraction(price.per_hour) / 3600
    return Step(held.fixed, held.per_image, rate, price.minimum_seconds, price.increment_seconds)


Prices = Mapping[str, Price | None]
"""By flavor: which price counts."""


def course_of(run: FinishedRun, asked: Workload, prices: Prices) -> Course | None:
    """A finished run as if it had the epochs and split that are asked for; None if its images were not counted."""
    did = run.workload
    if not did.images:
        return None
    each = Fraction(1, did.images)
    ratios = {
        names.TRAINING: each * asked.train_share / did.train_share * Fraction(asked.epochs, did.epochs),
        names.EVALUATING: each * asked.held_out_share / did.held_out_share,
    }
    prepares = each if did.prepare_flavor is None else None
    claims = tuple(_claim(attempt, prices.get(did.flavor), ratios, prepares) for attempt in run.attempts)
    jobs = tuple(prepared_claims(job, prices.get(job.flavor), did.images) for job in run.preparations)
    return Course(did.images, claims, jobs, set_of(did))


def _claim(attempt: Attempt, price: Price | None, ratios: Mapping[str, Fraction], prepares: Fraction | None) -> Claim:
    """prepares: what preparing in place takes for each of its seconds and images; None: it only verifies."""
    training, preparing = Line(), Line()
    for phase, seconds in attempt.seconds.items():
        if phase in ratios:
            training += Line(per_image=seconds * ratios[phase])
        elif phase == names.PREPARING and prepares is not None:
            preparing += Line(per_image=seconds * prepares)
        else:
            training += Line(fixed=Fraction(seconds))
    return Claim(price, preparing, training)


def prepared_claims(job: FinishedPreparation, price: Price | None, images: int) -> tuple[Claim, ...]:
    """The pods of a preparation that was made for so many images."""
    of_data = job.phase == names.DATA_PREPARATION
    lines = [Line(per_image=Fraction(held, images)) if of_data else Line(Fraction(held)) for held in job.held]
    return tuple(Claim(price, preparing=line) for line in lines)


def hinted_course(
    asked: Workload, images: int, hints: Hints, price: Price | None, preparations: tuple[tuple[Claim, ...], ...] = ()
) -> Course | None:
    """What hints come to; None where they don't suffice (estimate.lacking says what is missing).

    Args:
        preparations: claims of Jobs of their own.
    """
    rate, reads = hints.train_images_per_second, hints.prepare_images_per_second
    if rate is None or (asked.prepare_flavor is None and reads is None):
        return None
    trained = asked.train_share * asked.epochs + asked.held_out_share
    training = Line(Fraction(hints.start_seconds or 0), trained / Fraction(rate))
    preparing = Line(per_image=1 / Fraction(reads)) if reads and asked.prepare_flavor is None else Line()
    return Course(images, (Claim(price, preparing, training),), preparations)


def hinted_preparation(hints: Hints, price: Price | None) -> tuple[Claim, ...] | None:
    """The one pod of a Job of its own on a flavor with these hints; None where they say nothing of it."""
    reads = hints.prepare_images_per_second
    return (Claim(price, preparing=Line(per_image=1 / Fraction(reads))),) if reads else None
