"""`watch`: jobs until they are over, or every job of a namespace as it changes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final

import typer

from xray_cli.commands.listing import Columns, Selector
from xray_cli.connection import TABLE, Connection
from xray_cli.errors import CommandError
from xray_cli.follow import Change, Following
from xray_cli.options import AllNamespaces, complete_jobs, connected
from xray_cli.output import Table
from xray_cli.waiting import wait_for
from xray_operator.cluster import paths
from xray_operator.names import JOB_KIND

Raw = dict[str, Any]

DELETED: Final = "Deleted"
"""In place of the state of a job that is no more."""

Watched = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME",
        help="Jobs to watch until they are over. If left out, every job, until you stop it.",
        autocompletion=complete_jobs,
        show_default=False,
    ),
]


@connected
def watch(
    connection: Connection, names: Watched = None, all_namespaces: AllNamespaces = False, selector: Selector = None
) -> None:
    """Watch jobs until they are over, or all as they change.

    With names, the exit code is 0 if all succeed, and 1 if one fails or is stopped at a limit. On a terminal each has
    a live bar; elsewhere each change is a line.
    """
    if not names:
        path = paths.listing(JOB_KIND, None if all_namespaces else connection.namespace)
        watch_all(connection, path, {"labelSelector": selector} if selector else {}, namespaced=all_namespaces)
    if all_namespaces or selector:
        raise CommandError("a job cannot be watched by name across all namespaces or by labels")
    for name in names or ():
        connection.get(paths.item(JOB_KIND, connection.namespace, name))
    raise typer.Exit(wait_for(connection, connection.namespace, list(dict.fromkeys(names or ())), sys.stdout))


def watch_all(connection: Connection, path: str, query: dict[str, str], *, namespaced: bool) -> None:
    """Rows of the server's table as they change, until somebody stops it."""
    first = connection.get(path, {**query, "limit": "1"}, TABLE)
    columns = Columns(first["columnDefinitions"], wide=False, namespaced=namespaced)
    table, shown = Table(columns.head), dict[str, list[Any]]()
    for changes in Following(connection, path, query, table=True).changes():
        table.print(columns.cells(row) for row in _news(columns, changes, shown))


def _news(columns: Columns, changes: Iterable[Change], shown: dict[str, list[Any]]) -> Iterator[Raw]:
    """The rows that tell more than their age. shown: by uid, what was told last; kept up to date."""
    for change in changes:
        row = columns.replaced(change.item, "State", DELETED) if change.deleted else change.item
        timeless = columns.replaced(row, "Age", "")["cells"]
        uid = row["object"]["metadata"]["uid"]
        if shown.get(uid) != timeless:
            shown[uid] = timeless
            yield row
