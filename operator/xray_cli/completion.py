"""What the cluster and the kubeconfig have to offer while a command is typed. No answer is no suggestion, never an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from xray_cli.connection import TABLE, Connection
from xray_cli.errors import CommandError
from xray_cli.kubeconfig import read_kubeconfig
from xray_operator.cluster import paths
from xray_operator.names import JOB_KIND

PATIENCE_SECONDS: Final = 2.0
"""A longer wait is worse than no suggestion."""


def known_jobs(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and states of the jobs in the namespace that is meant.

    Args:
        given: the options so far.
    """
    connection = _connection(given)
    try:
        pages = connection.pages(paths.collection(JOB_KIND, connection.namespace), accept=TABLE)
    except CommandError:
        return []
    return [(row["cells"][0], str(row["cells"][1] or "")) for page in pages for row in page.get("rows") or ()]


def known_namespaces(given: Mapping[str, Any]) -> list[str]:
    try:
        pages = _connection(given).pages("/api/v1/namespaces")
    except CommandError:
        return []
    return [item["metadata"]["name"] for page in pages for item in page["items"]]


def known_contexts(given: Mapping[str, Any]) -> list[str]:
    try:
        return read_kubeconfig(given.get("kubeconfig")).names("contexts")
    except CommandError:
        return []


def _connection(given: Mapping[str, Any]) -> Connection:
    return Connection(given.get("kubeconfig"), given.get("context"), given.get("namespace"), PATIENCE_SECONDS)
