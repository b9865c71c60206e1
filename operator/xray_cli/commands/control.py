"""`suspend`, `resume` and `rerun`: one field of spec each, written only if nobody else has changed the job meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from xray_cli.connection import Connection
from xray_cli.errors import CommandError, ServerError
from xray_cli.gitops import owner_of
from xray_cli.options import JobNames, connected
from xray_cli.output import name_of
from xray_operator.cluster import paths
from xray_operator.names import FINAL_STATES, JOB_KIND, PENDING, STOPPED

Raw = dict[str, Any]

Yes = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Change it also where Argo CD or Flux may change it back.", show_default=False),
]
TRIES: Final = 5
"""The operator writes status while a run goes on, which changes the version too."""
CONFLICT: Final = 409

Decide = Callable[[Raw], Raw | None]
"""From a job to what is to be changed of its spec; None: it is so already. Raises CommandError if it makes no sense."""


@connected
def suspend(connection: Connection, names: JobNames, yes: Yes = False) -> None:
    """Stop runs with a checkpoint.

    Nothing is held and nothing is paid until they are resumed.
    """
    change_each(connection, names, to_suspend, "suspended", yes=yes)


@connected
def resume(connection: Connection, names: JobNames, yes: Yes = False) -> None:
    """Let suspended runs go on."""
    change_each(connection, names, to_resume, "resumed", yes=yes)


@connected
def rerun(connection: Connection, names: JobNames, yes: Yes = False) -> None:
    """Run jobs again.

    The spec counts as it is now. A run that goes on saves a checkpoint and ends first.
    """
    change_each(connection, names, to_rerun, "runs again", yes=yes)


def to_suspend(job: Raw) -> Raw | None:
    if state_of(job) in FINAL_STATES:
        raise CommandError(f"{name_of(job)} has {state_of(job).lower()}: there is nothing to suspend")
    return None if job["spec"].get("suspend") else {"suspend": True}


def to_resume(job: Raw) -> Raw | None:
    if job["spec"].get("suspend"):
        return {"suspend": False}
    if state_of(job) == STOPPED:
        raise CommandError(f"{name_of(job)} was stopped at a limit: raise spec.limits or spec.budget, and it goes on")
    return None


def to_rerun(job: Raw) -> Raw:
    return {"rerun": job["spec"].get("rerun", 0) + 1}


def state_of(job: Raw) -> str:
    return str(job.get("status", {}).get("state", PENDING))


def change_each(connection: Connection, names: list[str], decide: Decide, done: str, *, yes: bool) -> None:
    """Each job in turn; one that can't be changed keeps the others from nothing."""
    failed = 0
    for name in names:
        try:
            change(connection, name, decide, done, yes=yes)
        except CommandError as error:
            failed += 1
            print(error.line, file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def change(connection: Connection, name: str, decide: Decide, done: str, *, yes: bool) -> None:
    path = paths.item(JOB_KIND, connection.namespace, name)
    first = decide(job := connection.get(path))
    if first is None:
        print(f"{name_of(job)} unchanged")
        return
    ask_owner(job, first, yes=yes)
    for tried in range(1, TRIES + 1):
        wanted = decide(job)
        if wanted != first:
            raise CommandError(
                f"{name_of(job)} was changed by somebody else at the same time; look at it, and try again"
            )
        version = job["metadata"]["resourceVersion"]
        try:
            written = connection.merge(path, {"metadata": {"resourceVersion": version}, "spec": wanted})
        except ServerError as error:
            if error.status != CONFLICT or tried == TRIES:
                raise
            job = connection.get(path)
        else:
            print(f"{name_of(written)} {done}" + note(written, wanted))
            return


def note(job: Raw, wanted: Raw) -> str:
    """What the user may not expect."""
    if "rerun" not in wanted:
        return ""
    waits = "; it is suspended, and waits for kubectl xray resume" if job["spec"].get("suspend") else ""
    return f" (rerun {wanted['rerun']}){waits}"


def ask_owner(job: Raw, wanted: Raw, *, yes: bool) -> None:
    """Where a tool may change it back, say so, and ask whether it is meant. Raises CommandError if not."""
    owner = owner_of(job["metadata"])
    if owner is None:
        return
    fields = ", ".join(f"spec.{field}: {str(value).lower()}" for field, value in wanted.items())
    print(
        f"Warning: {owner} owns {name_of(job)} and may revert the change: set {fields} in git instead", file=sys.stderr
    )
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{name_of(job)} was not changed; --yes changes it all the same")
    if not typer.confirm("Change it here all the same?", err=True):
        raise CommandError(f"{name_of(job)} was not changed")
