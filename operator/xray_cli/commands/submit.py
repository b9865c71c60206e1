"""`submit`: jobs out of files or flags, and waiting for their end."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from xray_cli.connection import Connection
from xray_cli.errors import CommandError, ServerError
from xray_cli.manifests import Flags, job_from_flags, read_jobs
from xray_cli.options import JOB_FILES, connected, read_duration
from xray_cli.output import ObjectFormat, name_of, print_objects, shown_name
from xray_cli.waiting import wait_for
from xray_operator.cluster import paths
from xray_operator.names import JOB_KIND

Raw = dict[str, Any]


class DryRun(StrEnum):
    CLIENT = "client"
    SERVER = "server"


Wait = Annotated[bool, typer.Option("--wait", help="Watch the runs until they are over.", show_default=False)]
OBJECT_OUTPUT: Final = typer.Option("--output", "-o", help="Print the objects in place of a line for each.")


@connected
def submit(
    connection: Connection,
    filename: Annotated[list[str] | None, JOB_FILES] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the job.")] = None,
    flavor: Annotated[str | None, typer.Option(metavar="FLAVOR", help="AcceleratorFlavor to run on.")] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Hub id of the model to start from; without a file, the article's ViT-base."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="REVISION", help="Branch, tag or commit of the model.")
    ] = None,
    claim: Annotated[str | None, typer.Option(metavar="CLAIM", help="Claim that holds the X-rays.")] = None,
    path: Annotated[str | None, typer.Option(metavar="FOLDER", help="Folder on that claim.")] = None,
    synthetic: Annotated[int | None, typer.Option(metavar="IMAGES", help="Generate so many X-rays instead.")] = None,
    results: Annotated[str | None, typer.Option(metavar="CLAIM", help="Claim that takes the results.")] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Passes over the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Images per weight update.")] = None,
    learning_rate: Annotated[str | None, typer.Option(metavar="RATE", help="Peak learning rate, such as 2e-4.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of the training.")] = None,
    max_time: Annotated[
        float | None,
        typer.Option(
            metavar="DURATION",
            parser=read_duration,
            help="Stop the run, with a checkpoint, when it has held its flavor so long: 90m.",
        ),
    ] = None,
    dry_run: Annotated[
        DryRun | None,
        typer.Option(
            help="client: check the jobs here, and send nothing; server: have the server check them, and store nothing."
        ),
    ] = None,
    wait: Wait = False,
    output: Annotated[ObjectFormat | None, OBJECT_OUTPUT] = None,
) -> None:
    """Submit jobs out of files or flags.

    Flags beside a file replace what the file says: the same job with another name and learning rate needs no other file.
    A job that the server refuses keeps back no other; the exit code is then 1. With --wait it is 0 if all succeed, and 1 if
    one fails or is stopped at a limit. Ctrl-C leaves the runs going.
    """
    seconds = None if max_time is None else int(max_time)
    flags = Flags(
        name, flavor, model, revision, claim, path, synthetic, results, epochs, batch_size, learning_rate, seed, seconds
    )
    jobs = [(file, flags.over(job)) for file, job in read_jobs(filename)] if filename else [("", job_from_flags(flags))]
    if name and len(jobs) > 1:
        raise CommandError(f"--name is for one job, and {len(jobs)} are given")
    if wait and dry_run:
        raise CommandError("--wait and --dry-run exclude each other: nothing would run")
    offline = dry_run is DryRun.CLIENT
    placed = [(file, place(job, connection, offline=offline)) for file, job in jobs]
    if offline:
        check_all(placed)
        report([job for _, job in placed], output, "created (dry run)")
        return
    made: list[Raw] = []
    code = 0
    try:
        for file, job in placed:
            try:
                made.append(create(connection, job, dry_run))
            except ServerError as error:
                code = 1
                print(error.while_creating(file).line, file=sys.stderr)
    finally:  # what there is by now is told, whatever became of the others
        report(made, output, "created (server dry run)" if dry_run else "created")
    if wait and made:
        code = max(code, wait_for_all(connection, made, quiet=output is not None))
    raise typer.Exit(code)


def place(job: Raw, connection: Connection, *, offline: bool = False) -> Raw:
    """The job in a namespace: its own, which -n may not contradict, or the one in which the command acts."""
    own = job["metadata"].get("namespace")
    if own and connection.given_namespace not in (None, own):
        raise CommandError(
            f'the namespace from the provided object "{own}" does not match the namespace "{connection.given_namespace}". '
            f"You must pass '--namespace={own}' to perform this operation."
        )
    namespace = own or (connection.namespace_here if offline else connection.namespace)
    return {**job, "metadata": {**job["metadata"], "namespace": namespace}}


def check_all(jobs: Iterable[tuple[str, Raw]]) -> None:
    """By the operator's own rules, without a cluster. Raises: CommandError with all that is wrong."""
    from xray_operator.core.spec import JobSpec, parse_part

    wrong = []
    for file, job in jobs:
        parsed = parse_part(JobSpec, job.get("spec"), "spec", "SpecInvalid")
        where = f"{file}: " if file else ""
        if not shown_name(job):
            wrong.append(f"{where}{JOB_KIND} without metadata.name")
        if isinstance(parsed, list):
            wrong += [f'{where}{JOB_KIND} "{shown_name(job)}": {problem}' for problem in parsed]
    if wrong:
        raise CommandError("\n".join(wrong))


def create(connection: Connection, job: Raw, dry_run: DryRun | None) -> Raw:
    query = {"dryRun": "All"} if dry_run else {}
    return connection.create(paths.collection(JOB_KIND, job["metadata"]["namespace"]), job, query)


def report(jobs: list[Raw], output: ObjectFormat | None, done: str) -> None:
    if output and jobs:
        print_objects(jobs, output)
        return
    for job in jobs:
        print(f"{name_of(job)} {done}", flush=True)


def wait_for_all(connection: Connection, jobs: list[Raw], *, quiet: bool) -> int:
    """Namespace by namespace. quiet: standard output is for the objects."""
    stream, code = sys.stderr if quiet else sys.stdout, 0
    for namespace in dict.fromkeys(job["metadata"]["namespace"] for job in jobs):
        named = [job["metadata"]["name"] for job in jobs if job["metadata"]["namespace"] == namespace]
        code = max(code, wait_for(connection, namespace, named, stream))
    return code
