"""What an estimate needs to know beside the job: flavors with their prices and hints, and the runs that have finished.

From a cluster, or from files with the same objects. Called by the commands that look ahead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from xray_cli.connection import Connection
from xray_cli.documents import read_objects
from xray_cli.errors import CommandError, ServerError
from xray_operator import names
from xray_operator.cluster import paths
from xray_operator.core.history import FinishedRun, read_finished_runs
from xray_operator.core.spec import FlavorSpec, Hints, parse_part

Raw = dict[str, Any]

FLAVOR_KIND: Final = "AcceleratorFlavor"


@dataclass(frozen=True)
class Knowledge:
    """Of one cluster."""

    flavors: Mapping[str, Any]
    """Specs by name, as Kubernetes has them."""
    runs: Sequence[FinishedRun]
    where: str
    """Of the runs, in words."""


def fetch_knowledge(connection: Connection) -> Knowledge:
    """With the user's rights: of all namespaces, or of the connection's where only that may be listed."""
    try:
        jobs, where = _items(connection, paths.listing(names.JOB_KIND, None)), "this cluster"
    except ServerError as error:
        if error.status != 403:
            raise
        namespace = connection.namespace
        jobs, where = _items(connection, paths.listing(names.JOB_KIND, namespace)), f"namespace {namespace}"
    return _knowledge(_items(connection, paths.flavors()), jobs, where)


def read_knowledge(files: Sequence[str]) -> Knowledge:
    """From files, as `kubectl get ... -o yaml` writes them."""
    objects = read_objects(files)
    flavors = [item for item in objects if item["kind"] == FLAVOR_KIND]
    return _knowledge(flavors, (item for item in objects if item["kind"] == names.JOB_KIND), ", ".join(files))


def _knowledge(flavors: Iterable[Raw], jobs: Iterable[Raw], where: str) -> Knowledge:
    specs = {item["metadata"]["name"]: item.get("spec") for item in flavors}
    placed = ({**job, "metadata": {"namespace": "default", **job["metadata"]}} for job in jobs)
    return Knowledge(specs, read_finished_runs(placed), where)


def _items(connection: Connection, path: str) -> list[Raw]:
    return [item for page in connection.pages(path) for item in page["items"]]


def read_hints(given: Iterable[str]) -> dict[str, Hints]:
    """Hints by flavor, of FLAVOR:name=value,name=value each; later ones go before.

    Raises: CommandError that names what is wrong.
    """
    told: dict[str, Raw] = {}
    for text in given:
        if not re.fullmatch(r"[^:=,]+:[^:=,]+=[^:=,]+(,[^:=,]+=[^:=,]+)*", text):
            raise CommandError(f'--hint: "{text}" is not like FLAVOR:trainImagesPerSecond=400,startSeconds=60')
        flavor, _, pairs = text.partition(":")
        told.setdefault(flavor, {}).update(re.findall("([^=,]+)=([^=,]+)", pairs))
    return {flavor: _read_hint(flavor, pairs) for flavor, pairs in told.items()}


def _read_hint(flavor: str, pairs: Raw) -> Hints:
    known = {field.alias for field in Hints.model_fields.values()}
    if unknown := sorted(pairs.keys() - known):
        raise CommandError(
            f"--hint: {flavor} has no {', '.join(unknown)}; hints are {', '.join(sorted(map(str, known)))}"
        )
    hints = parse_part(Hints, pairs, f"--hint: {flavor}", names.SPEC_INVALID)
    if isinstance(hints, list):
        raise CommandError("; ".join(map(str, hints)))
    return hints


def hints_of(flavor: FlavorSpec, given: Hints | None) -> Hints:
    """A flavor's own, and what was given in their place."""
    return flavor.hints.model_copy(update=given.model_dump(exclude_none=True)) if given else flavor.hints
