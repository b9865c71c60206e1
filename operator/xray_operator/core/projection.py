"""What a job that waits to be let go will probably cost, for its status; and what runs of a flavor cost, for the flavor's.
Called by reconcile and by the resync.

Nothing here tells the time of day: it says something new when a run finishes, or a price begins to hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from xray_operator.core.cost import CENTS, UNPRICED, UNPRICED_PART, display_of, price_in_force
from xray_operator.core.estimate import NO_HINTS, Estimate, estimate
from xray_operator.core.history import FinishedRun, Workload, count_images, workload_of
from xray_operator.core.sections import Status, present
from xray_operator.core.spec import FlavorSpec, JobSpec, Price


def project(
    spec: JobSpec,
    namespace: str,
    flavor: FlavorSpec,
    prepare_flavor: tuple[str, FlavorSpec] | None,
    runs: Sequence[FinishedRun],
    now: datetime,
) -> Status | None:
    """status.cost.projected, to the cent; None if neither finished runs nor the flavor's hints tell."""
    on, prepares = prepare_flavor or (None, None)
    return _project(workload_of(spec, namespace, on), flavor, prepares, runs, now)


def flavor_status(name: str, flavors: Mapping[str, FlavorSpec], runs: Sequence[FinishedRun], now: datetime) -> Status:
    """Status of a flavor: its price, and what the newest run of each model would cost now, by all of that model's runs.

    A model on a claim is left out: flavors are seen from every namespace.
    """
    price = price_in_force(flavors[name].prices, now)
    known = [run.workload for run in sorted(runs, key=_ended) if run.workload.flavor == name]
    newest = {(each.model, each.image_size): each for each in known if not each.is_private}
    return {
        "price": f"{price.per_hour} {price.currency} an hour" if price else "unpriced",
        "typicalRuns": [_typical(each, flavors, runs, now) for each in list(newest.values())[-MOST_MODELS:]],
    }


MOST_MODELS: Final = 32


def _ended(run: FinishedRun) -> datetime:
    return run.attempts[-1].started


def _typical(
    workload: Workload, flavors: Mapping[str, FlavorSpec], runs: Sequence[FinishedRun], now: datetime
) -> Status:
    prepares = flavors.get(workload.prepare_flavor or "")
    projected = _project(workload, flavors[workload.flavor], prepares, runs, now)
    what = present(model=workload.model, imageSize=workload.image_size, epochs=workload.epochs, images=workload.images)
    return what | (projected or {})


def _project(
    asked: Workload, flavor: FlavorSpec, prepares: FlavorSpec | None, runs: Sequence[FinishedRun], now: datetime
) -> Status | None:
    price = price_in_force(flavor.prices, now)
    prepare_price = price_in_force(prepares.prices, now) if prepares else None
    prepare_hints = prepares.hints if prepares else NO_HINTS
    found = estimate(count_images(asked, runs), price, runs, flavor.hints, prepare_price, prepare_hints)
    return projected_section(found, price) if found else None


def projected_section(found: Estimate, price: Price | None) -> Status:
    """An estimate as a status tells it."""
    return present(
        source=str(found.source),
        currency=price.currency if price else None,
        p50=_cents(found.total.p50) if found.total else None,
        p90=_cents(found.total.p90) if found.total else None,
        p50Seconds=found.seconds.p50,
        p90Seconds=found.seconds.p90,
        display=_display(found, price),
    )


def _cents(amount: Decimal) -> str:
    return str(amount.quantize(CENTS))


def _display(found: Estimate, price: Price | None) -> str:
    if found.total is None:
        return UNPRICED
    half, most = (display_of(amount, price) for amount in (found.total.p50, found.total.p90))
    told = f"about {half}" if half == most else f"about {half}, p90 {most}"
    told += UNPRICED_PART if found.lacks_price else ""
    return f"{told}, without preparing" if found.lacks_preparation else told
