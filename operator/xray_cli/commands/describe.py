"""`describe`: all that is known of a job, as text."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from typing import Any

from xray_cli.connection import Connection
from xray_cli.description import Page, describe_job
from xray_cli.errors import ServerError
from xray_cli.options import JobNames, connected
from xray_operator.cluster import paths
from xray_operator.names import JOB_KIND

Raw = dict[str, Any]


@connected
def describe(connection: Connection, names: JobNames) -> None:
    """Tell all that is known of jobs.

    What was asked, conditions, phases and attempts with their cost, data, sizing, results and events.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for place, name in enumerate(names):
        job = connection.get(paths.item(JOB_KIND, connection.namespace, name))
        lines = describe_job(job, fetch_events(connection, job), Page(width, datetime.now(UTC)))
        print("\n".join([*(["", ""] if place else []), *lines]))


def fetch_events(connection: Connection, job: Raw) -> list[Raw] | None:
    """The job's; None without the right to list them."""
    path = paths.collection("Event", job["metadata"]["namespace"])
    query = {"fieldSelector": f"involvedObject.uid={job['metadata']['uid']}"}
    try:
        return [event for page in connection.pages(path, query) for event in page["items"]]
    except ServerError as error:
        if error.status == 403:
            return None
        raise
