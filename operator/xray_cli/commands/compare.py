"""`compare`: the same job on several flavors, run or estimated."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from xray_cli.commands.submit import place
from xray_cli.comparing import Trial, make_trial, measured, simulated
from xray_cli.comparison_tables import Comparison, as_csv, document, paid, tell
from xray_cli.connection import Connection
from xray_cli.errors import CommandError
from xray_cli.knowledge import Knowledge, fetch_knowledge, read_hints, read_knowledge
from xray_cli.manifests import read_jobs
from xray_cli.options import HintsOfFlavors, ImageCount, KnownFrom, connected
from xray_cli.repeating import jobs_of, run_all
from xray_cli.standing import verdict_of
from xray_operator.core.spec import Hints

Raw = dict[str, Any]


class Style(StrEnum):
    """What -o takes."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


@connected
def compare(
    connection: Connection,
    filename: Annotated[str, typer.Option("--filename", "-f", metavar="FILE", help="File with one job, `-` is stdin.")],
    flavors: Annotated[
        str, typer.Option(metavar="FLAVOR,...", help="Flavors to compare, from the smallest to the biggest.")
    ],
    repeat: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=100, help="Without --simulate: runs on each flavor, each with a seed of its own."
        ),
    ] = 1,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate", help="Run nothing: take finished runs, or hints where there are none.", show_default=False
        ),
    ] = False,
    dataset_scale: Annotated[
        int, typer.Option(metavar="N", min=1, help="Tell also what it would be with so many times the images.")
    ] = 1,
    images: ImageCount = None,
    hint: HintsOfFlavors = None,
    known: KnownFrom = None,
    output: Annotated[Style, typer.Option("--output", "-o", help="How to print.")] = Style.TABLE,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the comparison too; needs xray-operator[pictures].")
    ] = None,
) -> None:
    """Compare flavors for a job, in time and money.

    It says from which data size on the bigger flavor wins. It runs the job on each flavor, one repeat after the other, as jobs
    NAME-FLAVOR-N. Called again, it goes on where it was: what has finished is not run again. Ctrl-C leaves the runs that have
    begun going. The exit code is 1 if a job fails or is stopped; its flavor is not tried further then.
    """
    chosen = list(dict.fromkeys(word for word in flavors.split(",") if word))
    if not chosen:
        raise typer.BadParameter("names no flavor", param_hint="--flavors")
    if png is not None:
        check_pictures()
    if (hint or known) and not simulate:
        raise CommandError("--hint and --from are for --simulate: without it the jobs are run, on the cluster")
    if simulate and repeat > 1:
        raise CommandError("--repeat is of jobs that are run: with --simulate none is")
    knowledge = read_knowledge(known) if known else fetch_knowledge(connection)
    job = _one_job(filename, connection, offline=bool(known))
    if absent := [flavor for flavor in chosen if flavor not in knowledge.flavors]:
        there = ", ".join(sorted(knowledge.flavors)) or "none"
        raise CommandError(f"no AcceleratorFlavor {', '.join(absent)}; there are {there}")
    if simulate:
        hints = read_hints(hint or ())
        show(_simulation(job, chosen, knowledge, hints, images, dataset_scale), (), output, png)
        return
    trial = make_trial(job, chosen, repeat)
    _run(trial, connection, sys.stdout if output is Style.TABLE else sys.stderr)
    jobs = jobs_of(trial, connection)
    entries = measured(trial, jobs, knowledge)
    if not entries:
        raise CommandError(f"no job of {trial.name} has succeeded by its own work: there is nothing to compare")
    counted = images or max(course.images for entry in entries for course in entry.courses)
    notes = (*_failures(trial, jobs), paid(jobs))
    show(Comparison(trial.name, counted, dataset_scale, entries, notes), jobs, output, png)
    raise typer.Exit(1 if any(verdict_of(each) for each in jobs) else 0)


def _one_job(file: str, connection: Connection, *, offline: bool) -> Raw:
    jobs = [job for _, job in read_jobs([file])]
    if len(jobs) != 1:
        raise CommandError(f"{file} has {len(jobs)} jobs; one is compared at a time")
    if offline:
        namespace = connection.given_namespace or "default"
        return {**jobs[0], "metadata": {"namespace": namespace, **jobs[0]["metadata"]}}
    return place(jobs[0], connection)


def _run(trial: Trial, connection: Connection, stream: Any) -> None:
    try:
        run_all(trial, connection, stream)
    except KeyboardInterrupt:
        print("\nWhat has begun goes on. The same command takes the comparison up again.", file=sys.stderr)
        raise


def _failures(trial: Trial, jobs: Sequence[Raw]) -> list[str]:
    ours = {manifest["metadata"]["name"]: flavor for flavor, each in trial.runs.items() for manifest in each}
    failed = [(job["metadata"]["name"], job["status"]["state"]) for job in jobs if verdict_of(job)]
    return [
        f"{name} is {state}: {ours[name]} was not tried further; `kubectl xray describe {name}` says why."
        for name, state in failed
        if name in ours
    ]


def _simulation(
    job: Raw,
    flavors: Sequence[str],
    known: Knowledge,
    hints: Mapping[str, Hints],
    images: int | None,
    scale: int,
) -> Comparison:
    now = datetime.now(UTC)
    forecasts = [simulated(job, flavor, known, hints, images, now) for flavor in flavors]
    counted = images or max(each.images for each in forecasts)
    told = dict.fromkeys([*(each.note for each in forecasts), *(each.assumption for each in forecasts)])
    entries, notes = [each.entry for each in forecasts], [note for note in told if note]
    return Comparison(job["metadata"].get("name", ""), counted, scale, entries, notes)


def check_pictures() -> None:
    """Raises: CommandError where there is nothing to draw with: before anything is run or paid."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise CommandError("--png needs matplotlib: pip install 'xray-operator[cli,pictures]'")


def show(comparison: Comparison, jobs: Sequence[Raw], style: Style, png: Path | None) -> None:
    """Print the tables, and draw them."""
    if style is Style.JSON:
        print(json.dumps(document(comparison, jobs), indent=4))
    else:
        print(
            as_csv(comparison) if style is Style.CSV else "\n".join(tell(comparison)),
            end="" if style is Style.CSV else "\n",
        )
    if png is not None:
        from xray_cli.comparison_picture import draw

        draw(comparison, png)
