"""What a run will take and cost: from what finished runs of the same flavor and model have taken, else from hints.

A finished run is scaled to the images and epochs that are asked for: training with both, evaluating and preparing with
the images; the pull of container images and compiling stay. Preparing takes what it took a run that found nothing prepared.
What it would cost is billed as the operator bills it, each attempt with its minimum and its increments, at today's price. p50
and p90 are the values of the run that so many of all runs don't exceed (nearest rank), each line by itself: of few runs p90 is
the dearest one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Generic, Literal, TypeVar

from xray_operator import names
from xray_operator.core.cost import Cost, amount_of, billed_seconds
from xray_operator.core.history import FinishedPreparation, FinishedRun, Workload
from xray_operator.core.sharing import prepared_alone, what_of
from xray_operator.core.spec import Hints, Price

N = TypeVar("N", int, Decimal)
NO_HINTS = Hints()


@dataclass(frozen=True)
class Spread(Generic[N]):
    """Half of all, and nine of ten, are not above these."""

    p50: N
    p90: N

    def __add__(self, other: Spread[N]) -> Spread[N]:
        return Spread(self.p50 + other.p50, self.p90 + other.p90)


@dataclass(frozen=True)
class Source:
    """What an estimate stands on."""

    kind: Literal["history", "hints"]
    runs: int = 0

    def __str__(self) -> str:
        if self.kind == "hints":
            return "hints"
        return f"history ({names.counted(self.runs, 'run')})"


@dataclass(frozen=True)
class Line:
    """A phase, or all of them."""

    name: str
    seconds: Spread[int]
    amount: Spread[Decimal] | None
    """None without a price."""


@dataclass(frozen=True)
class Prepared:
    """What a Job of its own takes before the run's flavor is held; a run that finds it done pays nothing for it."""

    line: Line
    flavor: str
    source: Source


@dataclass(frozen=True)
class Estimate:
    """Of one run."""

    workload: Workload
    price: Price | None
    source: Source
    phases: tuple[Line, ...]
    """On the run's flavor, by the names of status.cost.phases."""
    held: Line
    """All of them."""
    preparations: tuple[Prepared, ...]

    @property
    def seconds(self) -> Spread[int]:
        """From the first pod of a preparation to the end, without waiting in queues."""
        return sum((each.line.seconds for each in self.preparations), self.held.seconds)

    @property
    def total(self) -> Spread[Decimal] | None:
        """With the preparations, as far as they have a price in the same currency; None if the flavor has none."""
        if self.held.amount is None:
            return None
        return sum((each.line.amount for each in self.preparations if each.line.amount), self.held.amount)

    @property
    def lacks_price(self) -> bool:
        """Whether the total leaves out a preparation that has no price in its currency."""
        return self.total is not None and any(each.line.amount is None for each in self.preparations)

    @property
    def lacks_preparation(self) -> bool:
        """Whether nothing is known of the preparation of the data that the run waits for."""
        told = [each.line.name for each in self.preparations]
        return self.workload.prepare_flavor is not None and names.DATA_PREPARATION not in told


def estimate(
    workload: Workload,
    price: Price | None,
    runs: Sequence[FinishedRun],
    hints: Hints = NO_HINTS,
    prepare_price: Price | None = None,
    prepare_hints: Hints = NO_HINTS,
) -> Estimate | None:
    """What a run takes and costs; None if neither finished runs nor hints tell.

    Args:
        price: of the workload's flavor, in force now.
        runs: any; those of the workload's flavor and model are taken.
        hints: of the workload's flavor, taken where there is no such run.
        prepare_price, prepare_hints: of workload.prepare_flavor.
    """
    alone = prepared_alone(runs)
    alike = [run for run in alone if workload.is_like(run.workload)]
    courses = [_scaled(run, workload) for run in alike] or _hinted(workload, hints)
    if not courses:
        return None
    source = Source("history", len(alike)) if alike else Source("hints")
    bills = [_bill(course, price) for course in courses]
    same_currency = prepare_price and price and prepare_price.currency == price.currency
    prepared = _preparations(workload, alone, prepare_price if same_currency else None, prepare_hints)
    return Estimate(workload, price, source, _phases(bills), _held(bills), tuple(prepared))


def lacking(workload: Workload, hints: Hints) -> list[str]:
    """What has to be given for an estimate from hints, in words; nothing if they suffice."""
    in_place = workload.prepare_flavor is None
    needs = {
        "how many images there are": workload.images,
        f"trainImagesPerSecond of flavor {workload.flavor}": hints.train_images_per_second,
        f"prepareImagesPerSecond of flavor {workload.flavor}": hints.prepare_images_per_second or not in_place,
    }
    return [need for need, given in needs.items() if not given]


def nearest_rank(values: Iterable[N], percent: int) -> N:
    """The smallest of the values that percent of them don't exceed."""
    ordered = sorted(values)
    return ordered[ceil(Fraction(percent, 100) * len(ordered)) - 1]


def spread(values: Sequence[N]) -> Spread[N]:
    return Spread(nearest_rank(values, 50), nearest_rank(values, 90))


def _scaled(run: FinishedRun, workload: Workload) -> list[Mapping[str, int]]:
    """Seconds per phase of each attempt, had the run done this."""
    did = run.workload
    images = workload.times(did)
    ratios = {
        names.TRAINING: images * workload.train_share / did.train_share * Fraction(workload.epochs, did.epochs),
        names.EVALUATING: images * workload.held_out_share / did.held_out_share,
        # what only verifies samples does so with any number of images
        names.PREPARING: images if workload.prepare_flavor is None else Fraction(1),
    }
    return [
        {phase: ceil(seconds * ratios.get(phase, 1)) for phase, seconds in attempt.seconds.items()}
        for attempt in run.attempts
    ]


def _hinted(workload: Workload, hints: Hints) -> list[list[Mapping[str, int]]]:
    """One course of one attempt, if the hints suffice."""
    images, rate = workload.all_images, hints.train_images_per_second
    if images is None or rate is None or lacking(workload, hints):
        return []
    seconds = dict.fromkeys(names.HELD_PHASES, 0) | {
        names.IDLE: hints.start_seconds or 0,
        names.TRAINING: ceil(ceil(images * workload.train_share) * workload.epochs / Fraction(rate)),
        names.EVALUATING: ceil(ceil(images * workload.held_out_share) / Fraction(rate)),
    }
    if workload.prepare_flavor is None and hints.prepare_images_per_second:
        seconds[names.PREPARING] = ceil(images / Fraction(hints.prepare_images_per_second))
    return [[seconds]]


def _bill(attempts: Sequence[Mapping[str, int]], price: Price | None) -> Cost:
    seconds = {phase: sum(attempt[phase] for attempt in attempts) for phase in names.HELD_PHASES}
    held = [sum(attempt.values()) for attempt in attempts]
    return Cost(price, seconds, sum(billed_seconds(each, price) for each in held) if price else sum(held))


def _held(bills: Sequence[Cost]) -> Line:
    return _line("Held", bills, lambda bill: bill.held_seconds, lambda bill: bill.total)


def _phases(bills: Sequence[Cost]) -> tuple[Line, ...]:
    lines = [_phase(phase, bills) for phase in (*names.HELD_PHASES, names.ROUNDED_UP)]
    return tuple(line for line in lines if line.seconds.p90)


def _phase(phase: str, bills: Sequence[Cost]) -> Line:
    def seconds(bill: Cost) -> int:
        return bill.seconds.get(phase, bill.billed_seconds - bill.held_seconds)

    return _line(phase, bills, seconds, lambda bill: bill.amounts.get(phase))


def _line(
    name: str, bills: Sequence[Cost], seconds: Callable[[Cost], int], amount: Callable[[Cost], Decimal | None]
) -> Line:
    amounts = [each for bill in bills if (each := amount(bill)) is not None]
    return Line(name, spread([seconds(bill) for bill in bills]), spread(amounts) if amounts else None)


def _preparations(
    workload: Workload, runs: Sequence[FinishedRun], price: Price | None, hints: Hints
) -> Iterable[Prepared]:
    """Of the data: by runs that have read such a source there, whatever they trained. Of the model: of the same one."""
    flavor = workload.prepare_flavor
    if flavor is None:
        return
    for phase, is_such in ((names.DATA_PREPARATION, _reads_the_like), (names.MODEL_PREPARATION, _fetches_the_same)):
        # each run that shares a set tells of it: it is taken once
        found = {
            what_of(prepared, run.workload): _as_if(prepared, run, workload)
            for run in runs
            for prepared in run.preparations
            if (prepared.phase, prepared.flavor) == (phase, flavor) and is_such(run.workload, workload)
        }
        if found:
            yield Prepared(_prepared(phase, list(found.values()), price), flavor, Source("history", len(found)))
        elif phase == names.DATA_PREPARATION and workload.all_images and hints.prepare_images_per_second:
            seconds = ceil(workload.all_images / Fraction(hints.prepare_images_per_second))
            yield Prepared(_prepared(phase, [(seconds,)], price), flavor, Source("hints"))


def _reads_the_like(did: Workload, asked: Workload) -> bool:
    return (did.source, did.image_size) == (asked.source, asked.image_size)


def _fetches_the_same(did: Workload, asked: Workload) -> bool:
    return did.model == asked.model


def _as_if(prepared: FinishedPreparation, run: FinishedRun, workload: Workload) -> tuple[int, ...]:
    """Held seconds of its pods, had it prepared the workload's images."""
    ratio = workload.times(run.workload) if prepared.phase == names.DATA_PREPARATION else 1
    return tuple(ceil(seconds * ratio) for seconds in prepared.held)


def _prepared(phase: str, courses: Sequence[Sequence[int]], price: Price | None) -> Line:
    seconds = [sum(course) for course in courses]
    if price is None:
        return Line(phase, spread(seconds), None)
    billed = [sum(billed_seconds(held, price) for held in course) for course in courses]
    return Line(phase, spread(seconds), spread([amount_of(each, price) for each in billed]))
