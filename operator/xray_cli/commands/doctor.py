"""`doctor`: whether everything is there that a run in this namespace needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from xray_cli import reader
from xray_cli.connection import Connection
from xray_cli.errors import ServerError
from xray_cli.findings import (
    Finding,
    State,
    judge_crd,
    judge_flavors,
    judge_lines,
    judge_operators,
    judge_rights,
    judge_storage,
    known_schema,
)
from xray_cli.options import connected
from xray_cli.output import Table, print_document
from xray_cli.rights import Right, lacks
from xray_cli.shipped import known_crds
from xray_operator import names
from xray_operator.cluster import paths

Raw = dict[str, Any]

CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
OPENAPI: Final = f"/openapi/v3/apis/{names.API_VERSION}"
"""Everybody may read it, where CRDs are for few to see."""
LABEL: Final = {"labelSelector": f"app.kubernetes.io/name={names.OPERATOR}"}
RIGHTS: Final = {
    "submit": tuple(Right(verb, names.JOBS, names.GROUP) for verb in ("create", "get", "list", "watch")),
    "suspend, resume, rerun": (Right("patch", names.JOBS, names.GROUP),),
    "choose a flavor": (Right("list", names.FLAVORS, names.GROUP, namespaced=False),),
    "read logs": (Right("list", "pods"), Right("get", "pods/log")),
    "read reports": reader.RIGHTS,
}
"""What each is for. Of them only the first is needed for a run."""


class Style(StrEnum):
    """What -o takes."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@connected
def examine(
    connection: Connection,
    output: Annotated[Style, typer.Option("--output", "-o", help="How to print.")] = Style.TABLE,
) -> None:
    """Tell whether all is there that a run needs.

    In the namespace and in the cluster; exit code 1 if something is missing.
    """
    found = list(_examine(connection))
    if output is Style.TABLE:
        Table(("check", "state", "message")).print((each.check, each.state, each.message) for each in found)
    else:
        print_document([asdict(each) | {"state": each.state.value} for each in found], output)
    if any(each.state is State.MISSING for each in found):
        raise typer.Exit(1)


def _examine(connection: Connection) -> Iterator[Finding]:
    crds = [judge_crd(crd, _served_schema(connection, crd)) for crd in known_crds().values()]
    yield from crds
    for purpose, wanted in RIGHTS.items():
        yield judge_rights(purpose, wanted, lacks(connection, wanted), needed=purpose == "submit")
    served = all(crd.state is not State.MISSING for crd in crds)
    flavors = _items(connection, paths.flavors()) if served else None
    known = None if flavors is None else [each["metadata"]["name"] for each in flavors]
    operators = _operators(connection)
    yield from judge_operators(operators, connection.namespace, known)
    if served:
        yield from _examine_flavors(connection, flavors)
        several = operators is not None and len(operators) > 1
        yield from judge_lines(operators, flavors or (), _items(connection, "/api/v1/namespaces") if several else None)
    namespace = connection.namespace
    claims = _items(connection, paths.collection("PersistentVolumeClaim", namespace))
    if claims is None:
        yield Finding("claims", State.UNKNOWN, "you may not list persistentvolumeclaims")
    else:
        yield from judge_storage(claims, _items(connection, "/apis/storage.k8s.io/v1/storageclasses"))


def _examine_flavors(connection: Connection, flavors: list[Raw] | None) -> Iterator[Finding]:
    if flavors is None:
        yield Finding("flavors", State.UNKNOWN, "you may not list acceleratorflavors")
        return
    namespace = _object(connection, paths.namespace(connection.namespace))
    labels = None if namespace is None else namespace["metadata"].get("labels", {})
    nodes = _items(connection, "/api/v1/nodes")
    pods = _items(connection, "/api/v1/pods", {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"})
    yield from judge_flavors(flavors, labels, nodes, pods, datetime.now(UTC))


def _served_schema(connection: Connection, known: Raw) -> Raw | None:
    """Of our version of a kind as the cluster has it; None if it has none."""
    try:
        return dict(known_schema(connection.get(f"{CRDS}/{known['metadata']['name']}"))) or None
    except ServerError as error:
        if error.status == 404:
            return None
        if error.status != 403:
            raise
    document = _object(connection, OPENAPI) or {}
    return next(
        (
            schema
            for schema in document.get("components", {}).get("schemas", {}).values()
            for kind in schema.get("x-kubernetes-group-version-kind", ())
            if (kind["group"], kind["kind"]) == (names.GROUP, known["spec"]["names"]["kind"])
        ),
        None,
    )


def _operators(connection: Connection) -> list[tuple[Raw, str | None]] | None:
    """Each Deployment with its configuration, None where the user may not read it; None if he may not see Deployments."""
    deployments = _items(connection, "/apis/apps/v1/deployments", LABEL)
    return None if deployments is None else [(each, _configuration(connection, each)) for each in deployments]


def _configuration(connection: Connection, deployment: Raw) -> str | None:
    metadata = deployment["metadata"]
    found = _object(connection, paths.item("ConfigMap", metadata["namespace"], metadata["name"])) or {}
    text = found.get("data", {}).get("config.yaml")
    return None if text is None else str(text)


def _items(connection: Connection, path: str, query: Mapping[str, str] | None = None) -> list[Raw] | None:
    """The objects of a list; None if the user may not see them."""
    try:
        return [item for page in connection.pages(path, query) for item in page["items"]]
    except ServerError as error:
        if error.status != 403:
            raise
        return None


def _object(connection: Connection, path: str) -> Raw | None:
    """None if it is not there, or not for the user to see."""
    try:
        return connection.get(path)
    except ServerError as error:
        if error.status not in (403, 404):
            raise
        return None
