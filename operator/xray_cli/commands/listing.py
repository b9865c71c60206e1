"""`list`: the table of `kubectl get`, which the API server makes, with a choice of states."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from xray_cli.connection import TABLE, Connection
from xray_cli.options import AllNamespaces, Output, connected
from xray_cli.output import Format, Table, print_objects
from xray_operator.cluster import paths
from xray_operator.names import JOB_KIND, STATES

Raw = dict[str, Any]

States = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        metavar="STATE",
        help=f"Only jobs in this state, of {', '.join(STATES)}; may be given several times.",
        autocompletion=lambda: list(STATES),
    ),
]
Selector = Annotated[
    str | None,
    typer.Option("--selector", "-l", metavar="LABELS", help="Only jobs with these labels, such as team=chest."),
]


@connected
def list_jobs(
    connection: Connection,
    all_namespaces: AllNamespaces = False,
    state: States = None,
    selector: Selector = None,
    output: Output = Format.TABLE,
) -> None:
    """List jobs.

    Columns are those of `kubectl get`: state, flavor, progress, time left, AUROC, cost and age; with -o wide all.
    """
    states = check_states(state or ())
    path = paths.listing(JOB_KIND, None if all_namespaces else connection.namespace)
    query = {"labelSelector": selector} if selector else {}
    if output in (Format.TABLE, Format.WIDE):
        pages = connection.pages(path, query, accept=TABLE)
        columns = Columns(pages[0]["columnDefinitions"], wide=output is Format.WIDE, namespaced=all_namespaces)
        rows = [
            row for page in pages for row in page["rows"] or () if not states or columns.cell(row, "State") in states
        ]
        if rows:
            Table(columns.head).print(map(columns.cells, rows))
        else:
            where = "" if all_namespaces else f" in {connection.namespace} namespace"
            print(f"No jobs found{where}.", file=sys.stderr)
        return
    found = [item for page in connection.pages(path, query) for item in page["items"]]
    chosen = [item for item in found if not states or item.get("status", {}).get("state") in states]
    print_objects(chosen, output, is_list=True)


def check_states(given: Sequence[str]) -> set[str]:
    """The states as the status spells them."""
    known = {state.lower(): state for state in STATES}
    for word in given:
        if word.lower() not in known:
            raise typer.BadParameter(f'"{word}" is no state; there are {", ".join(STATES)}', param_hint="--state")
    return {known[word.lower()] for word in given}


class Columns:
    """Which columns of the server's table are shown.

    Args:
        definitions: those of the table; of them `kubectl get` shows the ones with priority 0, and all with -o wide.
        namespaced: the namespace stands before them.
    """

    def __init__(self, definitions: Sequence[Raw], *, wide: bool, namespaced: bool) -> None:
        self._names = [str(column["name"]) for column in definitions]
        self._shown = [place for place, column in enumerate(definitions) if wide or not column["priority"]]
        self._namespaced = namespaced

    @property
    def head(self) -> list[str]:
        return [*(["Namespace"] if self._namespaced else []), *(self._names[place] for place in self._shown)]

    def cells(self, row: Raw) -> list[str]:
        """One job's; what is not known yet is empty."""
        cells = ["" if row["cells"][place] is None else str(row["cells"][place]) for place in self._shown]
        return [row["object"]["metadata"]["namespace"], *cells] if self._namespaced else cells

    def cell(self, row: Raw, name: str) -> str:
        return str(row["cells"][self._names.index(name)])

    def replaced(self, row: Raw, name: str, cell: str) -> Raw:
        """The row with another cell in that column."""
        cells = [cell if of == name else old for of, old in zip(self._names, row["cells"], strict=True)]
        return {**row, "cells": cells}
