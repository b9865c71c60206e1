"""`logs`: what preparation and training of a run say, or have said."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from enum import StrEnum
from io import BufferedReader, TextIOWrapper
from typing import Annotated, Any, Final

import typer

from xray_cli.connection import Connection
from xray_cli.errors import CommandError, NoConnection, ServerError
from xray_cli.options import JobName, connected
from xray_cli.reader import find_place, reading
from xray_cli.sources import CONTAINERS, Source, earlier_attempt, find_sources, has_trained, pods_selector
from xray_cli.standing import read_standing
from xray_cli.transfer import BrokenStreamError, Chunks
from xray_operator import names
from xray_operator.cluster import paths

Raw = dict[str, Any]

LOG_FILE: Final = "train.log"
OVER: Final = (*names.FINAL_STATES, names.STOPPED)
POLL_SECONDS: Final = 1.0
TEXT: Final = "text/plain, application/json"


class LostLogError(CommandError):
    """The node has removed the container, and its log with it."""


class Container(StrEnum):
    """What -c takes."""

    PREPARE = names.PREPARE
    TRAIN = names.TRAIN


@connected
def print_logs(
    connection: Connection,
    name: JobName,
    container: Annotated[
        Container | None,
        typer.Option("--container", "-c", help="Of this container only; of both, one after the other, if left out."),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", "-f", help="Go on until the run ends, over pods that end and begin.", show_default=False
        ),
    ] = False,
    previous: Annotated[
        bool,
        typer.Option(
            "--previous",
            "-p",
            help="Of the attempt before; if its pod is gone, what all attempts have said while training.",
            show_default=False,
        ),
    ] = False,
    tail: Annotated[
        int, typer.Option("--tail", metavar="LINES", min=-1, help="So many lines from the end; -1 is all.")
    ] = -1,
    attempt: Annotated[
        int | None,
        typer.Option(
            "--attempt", metavar="NUMBER", min=1, help="From 1, as `describe` counts; the latest if left out."
        ),
    ] = None,
) -> None:
    """Print what the containers of a run say."""
    if previous and (follow or attempt):
        raise typer.BadParameter("goes with neither --follow nor --attempt", param_hint="--previous")
    if follow and attempt:
        raise typer.BadParameter("goes with no --attempt: it is over, or the latest", param_hint="--follow")
    log = Log(connection, name, [container.value] if container else list(CONTAINERS), tail)
    if follow:
        log.follow()
    elif previous:
        log.print_earlier()
    else:
        log.print_now(attempt)


class Log:
    """What a run says.

    Args:
        containers: those that are wanted; with more than one, each line tells whose it is.
        tail: so many lines of each from the end; -1 is all.
    """

    def __init__(self, connection: Connection, name: str, containers: list[str], tail: int) -> None:
        self._connection, self._name = connection, name
        self._containers, self._tail = containers, tail

    def print_now(self, attempt: int | None) -> None:
        """What has been said so far."""
        job, pods = self._look()
        sources = find_sources(job, pods, self._containers, attempt)
        started = [source for source in sources if source.started]
        if not started:
            raise CommandError(self._nothing(job, sources))
        told = [self._print(source, (text for _, text in self._lines(source, self._tail))) for source in started]
        if not any(told):
            raise LostLogError("no log is left; --previous brings what training said")

    def print_earlier(self) -> None:
        """Of the attempt before the latest; from the run's folder where its pod or what it said is gone."""
        job, pods = self._look()
        number = earlier_attempt(job, pods)
        if number is not None:
            with contextlib.suppress(LostLogError):
                self.print_now(number)
                return
        if names.TRAIN in self._containers:
            self._print_file(job)
        else:
            raise CommandError(
                f"what {names.PREPARE} says is kept no longer than its pod, and that of an earlier attempt is gone"
            )

    def follow(self) -> None:
        """Print what is said until the run ends; each pod that comes meanwhile too, from its first line."""
        done: set[Source] = set()
        told, tail = "", self._tail
        while True:
            job, pods = self._look()
            sources = find_sources(job, pods, self._containers, None)
            started = [source for source in sources if source.started and source not in done]
            for source in started:
                self._print(source, self._lines_to_the_end(source, tail))
                done.add(source)
            state = job.get("status", {}).get("state", names.PENDING)
            if state in OVER and not started:
                if not done:
                    raise CommandError(self._nothing(job, sources))
                return
            if state != told and state not in names.ACTIVE_STATES:
                print(read_standing(job).line, file=sys.stderr)
            told, tail = state, -1
            time.sleep(POLL_SECONDS)

    def _look(self) -> tuple[Raw, list[Raw]]:
        """The job, and the pods that carry its labels."""
        namespace = self._connection.namespace
        job = self._connection.get(paths.item(names.JOB_KIND, namespace, self._name))
        pods = self._connection.get(paths.collection("Pod", namespace), {"labelSelector": pods_selector(job)})
        return job, list(pods["items"])

    def _print(self, source: Source, lines: Iterable[str]) -> bool:
        """Returns: whether there was a log."""
        prefix = source.prefix if len(self._containers) > 1 else ""
        try:
            for line in lines:
                print(f"{prefix}{line}", flush=True)
        except LostLogError as error:
            print(error.line, file=sys.stderr)
            return False
        return True

    def _lines(self, source: Source, tail: int, **more: str) -> Iterator[tuple[str, str]]:
        """Time and text of each line."""
        path = f"{paths.item('Pod', self._connection.namespace, source.pod)}/log"
        query = {"container": source.container, "timestamps": "true", **more}
        if tail >= 0:
            query["tailLines"] = str(tail)
        for line in self._connection.lines(path, query, TEXT):
            moment, _, text = line.decode(errors="replace").partition(" ")
            if not moment[:1].isdigit():  # not the log, but the kubelet's word that it has none any more
                raise LostLogError(f"container {source.container} of pod {source.pod}: {moment} {text}")
            yield moment, text

    def _lines_to_the_end(self, source: Source, tail: int) -> Iterator[str]:
        """As long as the container says something; a connection that breaks is made anew, after the last line."""
        last = ""
        while True:
            # a server takes whole seconds only: what it tells again is left out
            known, more = last, {"sinceTime": last} if last else {}
            try:
                for moment, text in self._lines(source, -1 if last else tail, follow="true", **more):
                    if moment > known:
                        last = moment
                        yield text
            except NoConnection as error:
                print(f"{error.line}; connecting again", file=sys.stderr)
            except ServerError as error:
                if error.status != 404:  # the pod is gone, and with it what it said
                    raise
                return
            if not self._goes_on(source):
                return
            time.sleep(POLL_SECONDS)

    def _goes_on(self, source: Source) -> bool:
        """Whether the container still runs; while nobody answers, it may."""
        try:
            pod = self._connection.get(paths.item("Pod", self._connection.namespace, source.pod))
        except ServerError as error:
            if error.status != 404:
                raise
            return False
        except NoConnection:
            return True
        status = pod.get("status", {})
        told = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
        return any(each["name"] == source.container and "running" in each.get("state", {}) for each in told)

    def _print_file(self, job: Raw) -> None:
        """What training has said in all attempts, from the run's folder."""
        if not has_trained(job):
            raise CommandError(f"it has not trained yet, so there is no {LOG_FILE}; {read_standing(job).line}")
        claim = job["status"]["run"]["claimName"]
        purpose = f"the logs of earlier attempts are gone; {LOG_FILE} is read from claim {claim} through a pod"
        place = find_place(self._connection, job, purpose)
        print(f"the pod's log is gone: this is {LOG_FILE} of all attempts", file=sys.stderr)
        with reading(self._connection, place) as pod:
            try:
                found = False
                for file in pod.files([LOG_FILE]):
                    found = True
                    for line in _text_lines(file.pieces(), self._tail):
                        print(line)
            except BrokenStreamError as error:
                raise CommandError(f"reading {LOG_FILE} broke off: {error}") from error
        if not found:
            raise CommandError(f"folder {place.folder} of claim {claim} has no {LOG_FILE}")

    def _nothing(self, job: Raw, sources: list[Source]) -> str:
        """Why there is nothing to print."""
        if sources:
            waits = f"container {sources[0].container} of pod {sources[0].pod} has not started, -f waits for it"
            return f"{waits}; {read_standing(job).line}"
        if job.get("status", {}).get("attempts"):
            return f"the pods of {self._name} are gone; --previous brings what training said in them"
        return f"there is no pod yet, -f waits for it; {read_standing(job).line}"


def _text_lines(pieces: Iterable[bytes], tail: int) -> Iterator[str]:
    """The lines of a text that comes in pieces.

    Args:
        tail: only so many from the end; -1 is all.
    """
    text = TextIOWrapper(BufferedReader(Chunks(iter(pieces))), encoding="utf-8", errors="replace")
    for line in text if tail < 0 else deque(text, tail):
        yield line.rstrip("\n")
