"""`cost`: what runs have cost, from their status alone: added up, as a table, JSON or CSV."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

import typer

from xray_cli.billing import ESTIMATED, duration
from xray_cli.connection import Connection
from xray_cli.options import AllNamespaces, complete_jobs, connected
from xray_cli.output import Table
from xray_cli.spending import PHASES, Bill, Group, Per, group, label_names, read_bills, totals
from xray_operator.cluster import paths
from xray_operator.core.cost import UNPRICED, UNPRICED_PART
from xray_operator.names import JOB_KIND, counted

Raw = dict[str, Any]


class Style(StrEnum):
    """What -o takes."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def read_month(text: str) -> str:
    """As the time stamps of a status begin with it."""
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text):
        raise typer.BadParameter(f'"{text}" is no month like 2026-11')
    return text


Jobs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME", help="Names of jobs; all of the namespace if left out.", autocompletion=complete_jobs
    ),
]


@connected
def tell_cost(
    connection: Connection,
    job_names: Jobs = None,
    all_namespaces: AllNamespaces = False,
    per: Annotated[
        list[Per] | None,
        typer.Option(
            metavar=f"<{'|'.join(Per)}>",
            help="Add up per namespace, month (UTC, in which a run began) or flavor; may be given several times.",
        ),
    ] = None,
    month: Annotated[
        str | None,
        typer.Option(
            metavar="YYYY-MM",
            parser=read_month,
            help="Only runs that began in this month, UTC, each with all that it cost; a TrainingBudget splits at midnight.",
        ),
    ] = None,
    phases: Annotated[bool, typer.Option("--phases", help="A column for each phase.", show_default=False)] = False,
    output: Annotated[Style, typer.Option("--output", "-o", help="How to print.")] = Style.TABLE,
) -> None:
    """Tell what runs have cost.

    Each run by itself, or added up. What has no price is unpriced, and two currencies are never added. What begins with ~ is
    estimated; to what ends in + unpriced, a preparation without a price comes on top. Jobs that were deleted are not there any
    more, nor is their cost.
    """
    bills = [
        bill
        for bill in read_bills(_jobs(connection, job_names or (), all_namespaces))
        if bill.began.startswith(month or "")
    ]
    chosen = tuple(dict.fromkeys(per or (Per.RUN,)))
    groups = group(bills, chosen)
    if output is Style.JSON:
        print(json.dumps(document(groups, bills), indent=4))
    elif output is Style.CSV:
        write_csv(groups, chosen)
    elif groups:
        print_table(groups, by_phase=phases)
        print()
        print("\n".join(footer(bills)))
    else:
        print("No run has cost anything.", file=sys.stderr)


def _jobs(connection: Connection, job_names: Sequence[str], all_namespaces: bool) -> list[Raw]:
    if job_names:
        return [connection.get(paths.item(JOB_KIND, connection.namespace, name)) for name in job_names]
    pages = connection.pages(paths.listing(JOB_KIND, None if all_namespaces else connection.namespace))
    return [item for page in pages for item in page["items"]]


def print_table(groups: Sequence[Group], *, by_phase: bool) -> None:
    shown = [phase for phase in PHASES if by_phase and any(each.seconds(phase) for each in groups)]
    single = "name" in groups[0].labels
    head = [*groups[0].labels, *([] if single else ["runs"]), "held", *shown, "lost", "cost"]
    Table(head).print(_cells(each, shown, single=single) for each in groups)


def _cells(each: Group, phases: Sequence[str], *, single: bool) -> list[str]:
    return [
        *each.labels.values(),
        *([] if single else [str(len(each.bills))]),
        duration(each.held),
        *(_of_phase(each, phase) for phase in phases),
        "" if each.lost is None else str(each.lost),
        told_total(each),
    ]


def _of_phase(each: Group, phase: str) -> str:
    """Its amount; the time, where it has no price."""
    amount, seconds = each.amount(phase), each.seconds(phase)
    return str(amount) if amount is not None else duration(seconds) if seconds else ""


def told_total(each: Group) -> str:
    if each.total is None:
        return UNPRICED
    return f"{'~' if each.estimated else ''}{each.total} {each.currency}{UNPRICED_PART if each.unpriced else ''}"


def footer(bills: Sequence[Bill]) -> Iterator[str]:
    for each in totals(bills):
        yield f"Total of {counted(len(each.bills), 'run')}: {told_total(each)}" + (
            "" if each.currency else f", {duration(each.held)} held"
        )
    if any(bill.estimated for bill in bills):
        yield f"~ estimated: {ESTIMATED}"
    if any(bill.unpriced and bill.currency for bill in bills):
        yield f"{UNPRICED_PART.strip()}: a flavor that prepared has no price; what it costs is in no sum."


def document(groups: Sequence[Group], bills: Sequence[Bill]) -> Raw:
    """For programs: amounts are decimals in quotes; one that is not known is null."""
    return {"items": [_item(each) for each in groups], "totals": [_item(each) for each in totals(bills)]}


def _item(each: Group) -> Raw:
    return {
        **each.labels,
        "runs": len(each.bills),
        "currency": each.currency or None,
        "total": _text(each.total),
        "estimated": each.estimated,
        "heldSeconds": each.held,
        "billedSeconds": each.billed,
        "unpricedSeconds": each.unpriced,
        "lostAmount": _text(each.lost),
        "phases": {
            phase: {"seconds": each.seconds(phase), "amount": _text(each.amount(phase))}
            for phase in PHASES
            if each.seconds(phase)
        },
    }


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else str(amount)


def write_csv(groups: Sequence[Group], per: Sequence[Per]) -> None:
    """A line each, with the same columns whatever there is; what is not known is empty."""
    plain = ["runs", "currency", "total", "estimated", "heldSeconds", "billedSeconds", "unpricedSeconds", "lostAmount"]
    of_phases = [f"{phase}{what}" for phase in PHASES for what in ("Seconds", "Amount")]
    table = csv.DictWriter(sys.stdout, [*label_names(per), *plain, *of_phases], lineterminator="\n")
    table.writeheader()
    for each in groups:
        item = _item(each)
        told = item.pop("phases")
        flat = {f"{phase}{key.title()}": value for phase, row in told.items() for key, value in row.items()}
        table.writerow(item | flat)
