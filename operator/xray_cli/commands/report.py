"""`report`: brings a finished run's report here, with the bill in it."""

from __future__ import annotations

import json
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from xray_cli.billing import with_bill
from xray_cli.connection import Connection
from xray_cli.errors import CommandError
from xray_cli.options import JobName, connected
from xray_cli.reader import fetch, find_place
from xray_cli.standing import read_standing
from xray_operator import names
from xray_operator.cluster import paths

Raw = dict[str, Any]

PAGE: Final = "report.html"
DOCUMENT: Final = "report.json"
WANTED: Final = (PAGE, DOCUMENT, "*.png", "result.json", "model/README.md")
EVERYTHING: Final = ("**",)


@connected
def bring_report(
    connection: Connection,
    name: JobName,
    directory: Annotated[
        Path | None,
        typer.Option("--output-dir", "-o", metavar="DIR", help="Where to put it; ./NAME-report if left out."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="The whole folder of the run, with the model.", show_default=False)
    ] = False,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.", show_default=False)] = False,
) -> None:
    """Bring the report of a finished run here.

    The page with its cost, the figures, the plots, the model card.
    """
    job = connection.get(paths.item(names.JOB_KIND, connection.namespace, name))
    check_has_report(job)
    claim = job["status"]["run"]["claimName"]
    place = find_place(connection, job, f"the report of {name} is read from claim {claim} through a pod")
    folder = directory or Path(f"{name}-report")
    found = fetch(connection, place, EVERYTHING if everything else WANTED, folder)
    if not found:
        raise CommandError(f"folder {place.folder} of claim {claim} has no report: somebody has emptied it")
    complete(folder, found, job["status"])
    for path in sorted(found):
        print(path)
    page = folder / PAGE
    if page not in found:
        told = f"there is no {PAGE}: the image that trained ({job['status']['run'].get('trainImage', '?')}) wrote none"
        print(f"note: {told}", file=sys.stderr)
    elif show and not webbrowser.open(page.resolve().as_uri()):
        print("note: no browser is found here that could open the page", file=sys.stderr)


def check_has_report(job: Raw) -> None:
    """Raises: CommandError that says where the run is, if it has not succeeded."""
    status = job.get("status", {})
    if status.get("state") == names.SUCCEEDED and "run" in status:
        return
    name, standing = job["metadata"]["name"], read_standing(job)
    way = f"the report comes when it has succeeded; kubectl xray watch {name} shows how far it is"
    if standing.state == names.FAILED:
        way = f"kubectl xray logs {name} tells more"
    raise CommandError(f"there is no report of {standing.line}; {way}")


def complete(folder: Path, found: Sequence[Path], status: Raw) -> None:
    """Put the bill into the page, and the status into the figures."""
    page, document = folder / PAGE, folder / DOCUMENT
    if page in found:
        page.write_text(with_bill(page.read_text(encoding="utf-8"), status), encoding="utf-8")
    if document in found:
        figures = json.loads(document.read_text(encoding="utf-8"))
        document.write_text(json.dumps(figures | {"status": status}, indent=2) + "\n", encoding="utf-8")
