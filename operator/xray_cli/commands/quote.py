"""`quote`: what a job would take and cost, before anything is paid."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from xray_cli.commands.submit import place
from xray_cli.connection import Connection
from xray_cli.errors import CommandError
from xray_cli.knowledge import fetch_knowledge, read_hints, read_knowledge
from xray_cli.manifests import Flags, read_jobs
from xray_cli.options import JOB_FILES, HintsOfFlavors, ImageCount, KnownFrom, connected
from xray_cli.quoting import document, quote_job, tell


class Style(StrEnum):
    """What -o takes."""

    TABLE = "table"
    JSON = "json"


@connected
def quote(
    connection: Connection,
    filename: Annotated[list[str], JOB_FILES],
    flavor: Annotated[str | None, typer.Option(metavar="FLAVOR", help="In place of the file's.")] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="In place of the file's.")] = None,
    images: ImageCount = None,
    hint: HintsOfFlavors = None,
    known: KnownFrom = None,
    output: Annotated[Style, typer.Option("--output", "-o", help="How to print.")] = Style.TABLE,
) -> None:
    """Estimate what jobs would take and cost.

    From finished runs of the same model on the same flavor, at today's price; where there is none, from hints; and it says
    from which. With neither, it says what to give, and the exit code is 1. Nothing is submitted.
    """
    flags = Flags(flavor=flavor, epochs=epochs)
    jobs = [flags.over(job) for _, job in read_jobs(filename)]
    if known:
        placed = [
            {**job, "metadata": {"namespace": connection.given_namespace or "default", **job["metadata"]}}
            for job in jobs
        ]
    else:
        placed = [place(job, connection) for job in jobs]
    hints = read_hints(hint or ())
    knowledge = read_knowledge(known) if known else fetch_knowledge(connection)
    quotes = [quote_job(job, knowledge, hints, images, datetime.now(UTC)) for job in placed]
    told = [(each, each.estimate) for each in quotes if each.estimate]
    if output is Style.JSON:
        print(json.dumps({"items": [document(*each) for each in told]}, indent=4))
    else:
        print("\n\n".join("\n".join(tell(*each)) for each in told), end="\n" if told else "")
    if refused := [each.objection for each in quotes if not each.estimate]:
        raise CommandError("\nerror: ".join(refused))
