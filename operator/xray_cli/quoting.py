"""What a job will take and cost, as text and for programs. Called by quote; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeVar

from xray_cli.billing import duration
from xray_cli.errors import CommandError
from xray_cli.knowledge import Knowledge, hints_of
from xray_cli.offline import CHART_CONFIG
from xray_cli.output import Table, shown_name
from xray_operator import names
from xray_operator.core.admission import find_flavor
from xray_operator.core.cost import display_of, price_in_force
from xray_operator.core.estimate import Estimate, Line, Spread, estimate, lacking
from xray_operator.core.history import Workload, count_images, workload_of
from xray_operator.core.observed import Observed
from xray_operator.core.spec import FlavorSpec, Hints, JobSpec, Price, Problem, parse_part

Raw = dict[str, Any]

HEAD: Final = ("phase", "time p50", "time p90", "cost p50", "cost p90", "from")


@dataclass(frozen=True)
class Quote:
    """Of one job."""

    name: str
    namespace: str
    workload: Workload
    price: Price | None
    estimate: Estimate | None
    lacks: tuple[str, ...]
    """What would have to be given, if there is no estimate."""
    where: str
    assumption: str = ""
    """What is taken to be so, because the job leaves it to the operator."""

    @property
    def title(self) -> str:
        work = self.workload
        images = "as many images as those runs had" if work.images is None else names.counted(work.images, "image")
        return f"{self.name} on {work.flavor}: {work.model}, {images}, {names.counted(work.epochs, 'epoch')}"

    @property
    def objection(self) -> str:
        """Why there is no estimate, and what to do."""
        work = self.workload
        return (
            f"{self.name}: no run of {work.model} at {work.image_size} pixels has finished on flavor {work.flavor} in "
            f"{self.where}, and the hints don't suffice: give {', '.join(self.lacks)} "
            f"(--images N, --hint {work.flavor}:NAME=VALUE, or spec.hints of the flavor)"
        )


def quote_job(job: Raw, known: Knowledge, given: Mapping[str, Hints], images: int | None, now: datetime) -> Quote:
    """What one job would take and cost.

    Args:
        job: with a namespace.
        given: hints of the command line, by flavor.
        images: None: nobody said.
    Raises: CommandError of a job that would not be accepted.
    """
    spec = accepted(job, parse_part(JobSpec, job.get("spec"), "spec", names.SPEC_INVALID))
    flavor = accepted(job, find_flavor(spec, Observed(flavors=known.flavors)))
    prepare_flavor = prepare_flavor_of(spec, flavor)
    asked = workload_of(spec, job["metadata"]["namespace"], prepare_flavor, images)
    workload = count_images(asked, known.runs)
    price, hints = offer(spec.flavor, known, given, now)
    found = estimate(workload, price, known.runs, hints, *offer(prepare_flavor or "", known, given, now))
    lacks, assumption = tuple(lacking(workload, hints)), assumption_of(spec, prepare_flavor)
    return Quote(shown_name(job), job["metadata"]["namespace"], workload, price, found, lacks, known.where, assumption)


P = TypeVar("P", JobSpec, FlavorSpec)


def accepted(job: Raw, parsed: P | list[Problem]) -> P:
    if isinstance(parsed, list):
        name = job["metadata"].get("name", "")
        raise CommandError("\n".join(f'{names.JOB_KIND} "{name}": {problem}' for problem in parsed))
    return parsed


def prepare_flavor_of(spec: JobSpec, flavor: FlavorSpec) -> str | None:
    """The operator's default, where the job names none, is taken to be the chart's."""
    if not spec.prepares_first(flavor):
        return None
    return spec.dataset.prepare_flavor or CHART_CONFIG.default_prepare_flavor


def assumption_of(spec: JobSpec, prepare_flavor: str | None) -> str:
    """That the flavor that prepares is not the job's own word; "" where it is, or where there is none."""
    if prepare_flavor is None or spec.dataset.prepare_flavor:
        return ""
    return f"The job names no prepareFlavor: {prepare_flavor}, the chart's default, is taken to be the operator's."


def offer(name: str, known: Knowledge, given: Mapping[str, Hints], now: datetime) -> tuple[Price | None, Hints]:
    """A flavor's price in force and its hints, as far as there are any."""
    flavor = parse_part(FlavorSpec, known.flavors.get(name), "spec", names.FLAVOR_INVALID)
    if isinstance(flavor, list):
        return None, given.get(name, Hints())
    return price_in_force(flavor.prices, now), hints_of(flavor, given.get(name))


def tell(quote: Quote, found: Estimate) -> Iterator[str]:
    """Lines for people."""
    yield quote.title
    yield ""
    rows = [(each.line, str(each.source)) for each in found.preparations]
    rows += [(line, str(found.source)) for line in found.phases]
    rows.append((Line("Total", found.seconds, found.total), ""))
    yield from Table(HEAD).lines(_row(line, quote.price, source) for line, source in rows)
    yield ""
    yield from _notes(quote, found)


def _row(line: Line, price: Price | None, source: str) -> tuple[str, ...]:
    amounts = (line.amount.p50, line.amount.p90) if line.amount else (None, None)
    costs = (display_of(amount, price) for amount in amounts)
    return (line.name, duration(line.seconds.p50), duration(line.seconds.p90), *costs, source)


def _notes(quote: Quote, found: Estimate) -> Iterator[str]:
    work, price = found.workload, quote.price
    if found.source.kind == "history":
        runs = names.counted(found.source.runs, "run")
        yield f"From {runs} of this model that finished on {work.flavor} in {quote.where}, scaled to these images and epochs."
        yield "p50: half of them took no more; p90: nine of ten. Each line stands for itself."
        if found.source.runs < FEW:
            yield f"Of {runs} p90 is the longest: more would tell more."
    else:
        yield f"From hints, for no run of this model has finished on {work.flavor} in {quote.where}. They know no spread."
    yield _price_note(work.flavor, price)
    on = work.prepare_flavor
    if found.lacks_preparation:
        yield f"Without preparing the data: nothing is known of that on {on}; --hint {on}:prepareImagesPerSecond=N tells."
    elif found.preparations:
        yield f"What is prepared on {on} is paid by the first run that needs it, and by no other."
    if price and found.lacks_price:
        yield f"Flavor {on} has no price in {price.currency}: what is prepared there is not in the total."
    if quote.assumption:
        yield quote.assumption
    yield "Waiting in queues takes time, and costs nothing."


FEW: Final = 10
"""Of fewer runs the nearest rank of 90 % is the last."""


def _price_note(flavor: str, price: Price | None) -> str:
    if price is None:
        return f"Flavor {flavor} has no price: unpriced."
    least = f", {price.minimum_seconds} s at least" if price.minimum_seconds else ""
    step = f", in steps of {price.increment_seconds} s" if price.increment_seconds > 1 else ""
    return f"At {price.per_hour} {price.currency} an hour{least}{step}, what is rounded up included."


def document(quote: Quote, found: Estimate) -> Raw:
    """For programs: amounts are decimals in quotes, null without a price."""
    work, price = found.workload, quote.price
    return {
        "namespace": quote.namespace,
        "name": quote.name,
        "flavor": work.flavor,
        "model": work.model,
        "images": work.images,
        "epochs": work.epochs,
        "prepareFlavor": work.prepare_flavor,
        "source": str(found.source),
        "runs": found.source.runs,
        "currency": price.currency if price else None,
        "perHour": str(price.per_hour) if price else None,
        "preparations": [
            {**_line(each.line), "flavor": each.flavor, "source": str(each.source)} for each in found.preparations
        ],
        "phases": [_line(line) for line in found.phases],
        "held": _line(found.held),
        "total": _line(Line("Total", found.seconds, found.total)),
    }


def _line(line: Line) -> Raw:
    amount = line.amount
    return {
        "name": line.name,
        "seconds": {"p50": line.seconds.p50, "p90": line.seconds.p90},
        "amount": None if amount is None else _texts(amount),
    }


def _texts(amount: Spread[Decimal]) -> Raw:
    return {"p50": str(amount.p50), "p90": str(amount.p90)}
