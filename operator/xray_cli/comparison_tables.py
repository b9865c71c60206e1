"""A comparison as tables for people, and as JSON and CSV for programs. Called by compare; pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from xray_cli.billing import duration
from xray_cli.output import Table
from xray_operator.core.comparison import MEASURED, Crossing, Entry, PartSample, Row, Sample, crossings
from xray_operator.core.cost import CENTS, UNPRICED_PART
from xray_operator.core.crossing import ALWAYS
from xray_operator.names import counted

Raw = dict[str, Any]

HEAD: Final = ("flavor", "preparation", "its cost", "training", "its cost", "total time", "total cost", "from")
CROSSING_HEAD: Final = ("bigger", "smaller", "less time", "less money", "both")


@dataclass(frozen=True)
class Comparison:
    """What is known of a job on several flavors."""

    name: str
    images: int
    """Of its data set."""
    scale: int
    """What if there were so many times as many."""
    entries: Sequence[Entry]
    """At least one, in the order in which they were asked for."""
    notes: Sequence[str] = ()

    @property
    def sizes(self) -> list[int]:
        return [self.images, *([self.images * self.scale] if self.scale > 1 else [])]

    @property
    def rows(self) -> list[Row]:
        return [entry.row(images) for images in self.sizes for entry in self.entries]

    @property
    def crossings(self) -> list[Crossing]:
        return crossings(self.entries)


def tell(comparison: Comparison) -> Iterator[str]:
    """Lines for people."""
    for images in comparison.sizes:
        what_if = "" if images == comparison.images else f", if there were {comparison.scale} times as many"
        yield f"{comparison.name}: {counted(images, 'image')}{what_if}"
        yield ""
        yield from Table(HEAD).lines(_cells(entry.row(images)) for entry in comparison.entries)
        yield ""
    if comparison.crossings:
        yield "From which number of images on the bigger flavor needs"
        yield ""
        yield from Table(CROSSING_HEAD).lines(map(_crossing_cells, comparison.crossings))
        yield ""
    yield from _notes(comparison)


def _cells(row: Row) -> tuple[str, ...]:
    parts = [cell for part in (row.preparation, row.training, row.total) for cell in _part_cells(part, row.currency)]
    parts[-1] += UNPRICED_PART if row.lacks_price else ""
    return (row.flavor, *parts, source_of(row))


def _part_cells(part: PartSample, currency: str | None) -> tuple[str, str]:
    seconds, amount = part.seconds, part.amount
    time = duration(_whole(seconds.mean)) + _spread(seconds, lambda spread: duration(_whole(spread)))
    if amount is None or currency is None:
        return time, "unpriced"
    return time, f"{_money(amount.mean)}{_spread(amount, _money)} {currency}"


def _money(amount: Decimal) -> str:
    return f"{amount.quantize(CENTS):,}"


def _whole(seconds: Decimal) -> int:
    return int(seconds.to_integral_value())


def _spread(sample: Sample, tell_it: Any) -> str:
    return "" if sample.deviation is None else f" ± {tell_it(sample.deviation)}"


def source_of(row: Row) -> str:
    """measured (10 runs), history (1 run), hint; scaled, where none of them had so many images."""
    runs = f" ({counted(row.runs, 'run')})" if row.runs else ""
    return f"{row.source}{runs}{', scaled' if row.scaled else ''}"


def _crossing_cells(crossing: Crossing) -> tuple[str, ...]:
    money = size(crossing.money), size(crossing.both)
    return (crossing.bigger, crossing.smaller, size(crossing.time), *(money if crossing.priced else ("unpriced",) * 2))


def size(images: int | None) -> str:
    """always, never, or from how many images on."""
    if images is None:
        return "never"
    return "always" if images == ALWAYS else f"from {images:,}"


def _notes(comparison: Comparison) -> Iterator[str]:
    rows = comparison.rows
    if any(row.training.seconds.deviation is not None for row in rows):
        yield "± is the standard deviation of the repeats. A set is prepared once, so one preparation is told of, the longest."
    if any(row.scaled for row in rows):
        yield "Scaled: reading, training and evaluating grow with the images; image pull, start and compilation stay."
    if any(_is_rounded_apart(row) for row in rows):
        yield "Times and amounts are rounded one by one: a total may differ from the sum of its parts in the last digit."
    yield "Preparation is paid by the first run that needs it, and by no other; a total is that of a run which does."
    yield from comparison.notes


def _is_rounded_apart(row: Row) -> bool:
    """Whether what is shown of the parts is not what is shown of the total, by as much as rounding does."""
    parts = (row.preparation, row.training)
    times = [_shown(part.seconds.mean) for part in (*parts, row.total)]
    amounts = [part.amount.mean.quantize(CENTS) for part in (*parts, row.total) if part.amount and row.currency]
    off = abs(times[2] - _shown(Decimal(times[0] + times[1])))
    short = abs(amounts[2] - amounts[0] - amounts[1]) if len(amounts) == 3 else 0
    return 0 < off <= MINUTE or 0 < short <= CENTS


def _shown(seconds: Decimal) -> int:
    """What duration tells of them: no seconds from an hour on."""
    whole = _whole(seconds)
    return whole if whole < 60 * MINUTE else whole - whole % MINUTE


MINUTE: Final = 60


def document(comparison: Comparison, jobs: Sequence[Raw]) -> Raw:
    """For programs: amounts are decimals in quotes, null without a price.

    Args:
        jobs: of the comparison, with what each of them was billed.
    """
    return {
        "name": comparison.name,
        "images": comparison.images,
        "datasetScale": comparison.scale,
        "rows": [_row(row) for row in comparison.rows],
        "crossings": [
            {
                "bigger": each.bigger,
                "smaller": each.smaller,
                "lessTimeFrom": each.time,
                "lessMoneyFrom": each.money,
                "bothFrom": each.both,
                "priced": each.priced,
            }
            for each in comparison.crossings
        ],
        "runs": [_run(job) for job in jobs],
        "notes": list(comparison.notes),
    }


def _row(row: Row) -> Raw:
    told: Raw = {"flavor": row.flavor, "source": row.source, "runs": row.runs, "scaled": row.scaled}
    told |= {"images": row.images, "currency": row.currency}
    for name in _PARTS:
        part: PartSample = getattr(row, name)
        told[name] = {
            "seconds": _sample(part.seconds, float),
            "amount": _sample(part.amount, str) if part.amount and row.currency else None,
        }
    return told


_PARTS: Final = ("preparation", "training", "total")


def _sample(sample: Sample, number: Any) -> Raw:
    told = {"mean": sample.mean, "deviation": sample.deviation, "least": sample.least, "most": sample.most}
    return {name: None if value is None else number(value) for name, value in told.items()}


def _run(job: Raw) -> Raw:
    status = job.get("status", {})
    cost = status.get("cost", {})
    return {
        "name": job["metadata"]["name"],
        "flavor": job["spec"]["flavor"],
        "seed": job["spec"].get("training", {}).get("seed"),
        "state": status.get("state"),
        "heldSeconds": cost.get("heldSeconds"),
        "billedSeconds": cost.get("billedSeconds"),
        "total": cost.get("total"),
        "currency": cost.get("currency"),
        "aurocMacro": status.get("results", {}).get("aurocMacro"),
    }


def as_csv(comparison: Comparison) -> str:
    """A line for each row of the tables, with a head."""
    rows = [_flat(row) for row in comparison.rows]
    written = io.StringIO()
    writer = csv.DictWriter(written, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()


def _flat(row: Row) -> Raw:
    told = {name: value for name, value in _row(row).items() if name not in _PARTS} | {
        "scaled": str(row.scaled).lower()
    }
    for name in _PARTS:
        part: PartSample = getattr(row, name)
        for unit, sample in (("seconds", part.seconds), ("amount", part.amount if row.currency else None)):
            for column in ("mean", "deviation", "least", "most"):
                value = getattr(sample, column) if sample else None
                told[f"{name}_{unit}_{column}"] = "" if value is None else str(value)
    return told


def paid(jobs: Sequence[Raw]) -> str:
    """What the jobs of a comparison have cost, by their own bills."""
    bills = [job.get("status", {}).get("cost", {}) for job in jobs]
    sums: dict[str, Decimal] = {}
    for bill in bills:
        if "total" in bill:
            sums[bill["currency"]] = sums.get(bill["currency"], Decimal(0)) + Decimal(bill["total"])
    told = [f"{_money(amount)} {currency}" for currency, amount in sums.items()]
    runs = f"Paid so far for {counted(len(bills), f'{MEASURED} job')}"
    return f"{runs}: {' and '.join(told) or 'unpriced'}."
