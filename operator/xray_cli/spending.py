"""What runs have cost, as their status tells, added up by run, namespace, month or flavor. Called by cost.

Nothing is priced here. Two currencies have no sum, so each group is one of its currency; what has no price has none either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from xray_operator import names
from xray_operator.core.cost import NOTHING, read_amount

Raw = Mapping[str, Any]

PHASES: Final = (*names.HELD_PHASES, names.ROUNDED_UP, *names.PAID_PREPARATIONS.values())
"""Those that can have an amount; waiting in the queue has none."""


class Per(StrEnum):
    """What is added up."""

    RUN = "run"
    NAMESPACE = "namespace"
    MONTH = "month"
    FLAVOR = "flavor"


@dataclass(frozen=True)
class Bill:
    """Of one run."""

    namespace: str
    name: str
    rerun: int
    state: str
    flavor: str
    began: str
    """When it was fixed, RFC 3339: the month of a run is that of its beginning, in UTC."""
    currency: str
    """Empty without a price."""
    held: int
    billed: int | None
    total: Decimal | None
    lost: Decimal | None
    estimated: bool
    seconds: Mapping[str, int]
    """By phase."""
    amounts: Mapping[str, Decimal]
    """By phase; empty without a price."""

    @property
    def unpriced(self) -> int:
        """Seconds that have no amount: all of them, or those of a preparation on a flavor without a price."""
        return sum(seconds for phase, seconds in self.seconds.items() if phase not in self.amounts)


@dataclass(frozen=True)
class Group:
    """Runs that have something in common, their currency too."""

    labels: Mapping[str, str]
    currency: str
    bills: Sequence[Bill]

    @property
    def total(self) -> Decimal | None:
        return _sum(bill.total for bill in self.bills)

    @property
    def lost(self) -> Decimal | None:
        return _sum(bill.lost for bill in self.bills)

    @property
    def held(self) -> int:
        return sum(bill.held for bill in self.bills)

    @property
    def billed(self) -> int | None:
        return sum(bill.billed or 0 for bill in self.bills) if self.currency else None

    @property
    def unpriced(self) -> int:
        return sum(bill.unpriced for bill in self.bills)

    @property
    def estimated(self) -> bool:
        return any(bill.estimated for bill in self.bills)

    def seconds(self, phase: str) -> int:
        return sum(bill.seconds.get(phase, 0) for bill in self.bills)

    def amount(self, phase: str) -> Decimal | None:
        return _sum(bill.amounts.get(phase) for bill in self.bills)


def _sum(amounts: Iterable[Decimal | None]) -> Decimal | None:
    told = [amount for amount in amounts if amount is not None]
    return sum(told, NOTHING) if told else None


def read_bills(jobs: Iterable[Raw]) -> Iterator[Bill]:
    """Of every run of these XRayTrainingJobs, former reruns too, that has held anything or has a bill for its preparation."""
    for job in jobs:
        status: Raw = job.get("status") or {}
        for former in status.get("formerRuns") or ():
            if "bill" in former:
                yield _bill(job, former, former, former["bill"])
        if "phases" in status.get("cost", {}):
            yield _bill(job, status, status.get("run", {}), status["cost"])


def _bill(job: Raw, told: Raw, run: Raw, cost: Raw) -> Bill:
    """Args: told: of the run, with rerun and state. run: with flavor and beginning. cost: in the words of status.cost."""
    rows = cost.get("phases") or ()
    amounts = {row["name"]: amount for row in rows if (amount := read_amount(row.get("amount"))) is not None}
    return Bill(
        namespace=job["metadata"]["namespace"],
        name=job["metadata"]["name"],
        rerun=told.get("rerun", 0),
        state=str(told.get("state", "")),
        flavor=str(run.get("flavor", "")),
        began=str(run.get("startedAt", "")),
        currency=str(cost.get("currency", "")),
        held=cost.get("heldSeconds", 0),
        billed=cost.get("billedSeconds"),
        total=read_amount(cost.get("total")),
        lost=read_amount(cost.get("lostAmount")),
        estimated=cost.get("estimated", False),
        seconds={row["name"]: row["seconds"] for row in rows},
        amounts=amounts,
    )


LABELS: Final[Mapping[Per, Mapping[str, Callable[[Bill], str]]]] = {
    Per.RUN: {
        "namespace": lambda bill: bill.namespace,
        "name": lambda bill: bill.name,
        "rerun": lambda bill: str(bill.rerun),
        "state": lambda bill: bill.state,
        "flavor": lambda bill: bill.flavor,
        "began": lambda bill: bill.began,
    },
    Per.NAMESPACE: {"namespace": lambda bill: bill.namespace},
    Per.MONTH: {"month": lambda bill: bill.began[:7]},
    Per.FLAVOR: {"flavor": lambda bill: bill.flavor},
}
"""What the runs of a group have in common."""


def label_names(per: Iterable[Per]) -> list[str]:
    return list(dict.fromkeys(name for each in per for name in LABELS[each]))


def group(bills: Iterable[Bill], per: Sequence[Per]) -> list[Group]:
    """The bills by all of these together, and by currency; in the order of their labels, and a run's reruns in theirs."""
    found: dict[tuple[str, ...], list[Bill]] = {}
    for bill in sorted(bills, key=lambda bill: (bill.namespace, bill.name, bill.rerun)):
        found.setdefault((*labels_of(bill, per).values(), bill.currency), []).append(bill)
    groups = [Group(labels_of(members[0], per), key[-1], members) for key, members in found.items()]
    return groups if Per.RUN in per else sorted(groups, key=lambda each: (*each.labels.values(), each.currency))


def labels_of(bill: Bill, per: Sequence[Per]) -> dict[str, str]:
    return {name: read(bill) for each in per for name, read in LABELS[each].items()}


def totals(bills: Iterable[Bill]) -> list[Group]:
    """All together: a group for each currency, and one of what has none."""
    return group(bills, ())
