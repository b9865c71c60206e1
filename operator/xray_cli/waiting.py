"""Looking at jobs until they are over: live bars on a terminal, a line per change elsewhere. Called by submit and watch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import IO, TYPE_CHECKING, Final, Protocol

from xray_cli.connection import Connection
from xray_cli.errors import CommandError
from xray_cli.follow import Change, Following
from xray_cli.standing import Standing, read_standing
from xray_operator.cluster import paths
from xray_operator.names import JOB_KIND

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


ROOM_FOR_FIGURES: Final = 90
"""Characters beside the name for state, bar and figures; where there are fewer, the figures have a line of their own."""


class Display(Protocol):
    def show(self, standing: Standing) -> None:
        """The job stands so now."""


def wait_for(connection: Connection, namespace: str, jobs: Sequence[str], stream: IO[str]) -> int:
    """Shows the jobs until each has succeeded, or won't go on without an edit.

    Returns: 0 if all have succeeded, else 1.
    Raises: KeyboardInterrupt on Ctrl-C, after having said that the runs go on.
    """
    one = {"fieldSelector": f"metadata.name={jobs[0]}"} if len(jobs) == 1 else {}
    following = Following(connection, paths.collection(JOB_KIND, namespace), one)
    try:
        with display_on(stream, len(max(jobs, key=len))) as display:
            return _watch_until_over(following.changes(), set(jobs), display)
    except KeyboardInterrupt:
        runs = "The run goes on" if len(jobs) == 1 else "The runs go on"
        print(f"\n{runs}. To come back: kubectl xray watch -n {namespace} {' '.join(jobs)}", file=sys.stderr)
        raise


def _watch_until_over(batches: Iterator[list[Change]], awaited: set[str], display: Display) -> int:
    code, there = 0, next(batches)
    if absent := awaited - {read_standing(change.item).name for change in there}:
        raise CommandError(f"deleted before it was watched: {', '.join(sorted(absent))}")
    for change in chain(there, chain.from_iterable(batches)):
        standing = read_standing(change.item)
        if standing.name not in awaited:
            continue
        if change.deleted:
            raise CommandError(f'the job "{standing.name}" was deleted')
        display.show(standing)
        if standing.verdict is not None:
            awaited.remove(standing.name)
            code = max(code, standing.verdict)
        if not awaited:
            break
    return code


@contextlib.contextmanager
def display_on(stream: IO[str], name_width: int) -> Iterator[Display]:
    """Bars where they can be drawn."""
    if not stream.isatty():
        yield Lines(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console = Console(file=stream, highlight=False)
    beside = console.width >= name_width + ROOM_FOR_FIGURES
    columns = (
        TextColumn("{task.description}" if beside else "{task.description}\n  {task.fields[figures]}", markup=False),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        *((TextColumn("{task.fields[figures]}", markup=False),) if beside else ()),
    )
    with Progress(*columns, console=console, expand=True) as progress:
        yield Bars(progress, name_width)


class Lines:
    """A line for each change that is news."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._told: dict[str, object] = {}

    def show(self, standing: Standing) -> None:
        if self._told.get(standing.name) != standing.news:
            self._told[standing.name] = standing.news
            print(standing.line, file=self._stream, flush=True)


class Bars:
    """A bar for each job; what it waits for and how it ended stays above the bars."""

    def __init__(self, progress: Progress, name_width: int) -> None:
        self._progress = progress
        self._name_width = name_width
        self._tasks: dict[str, TaskID] = {}
        self._told: dict[str, object] = {}

    def show(self, standing: Standing) -> None:
        description = f"{standing.name:{self._name_width}} {standing.state:10}"
        if standing.name not in self._tasks:
            self._tasks[standing.name] = self._progress.add_task(description, total=100, figures="")
        self._progress.update(
            self._tasks[standing.name],
            description=description,
            completed=standing.percentage or 0,
            figures=standing.figures.replace(", ", "  "),
            refresh=True,
        )
        self._tell(standing)

    def _tell(self, standing: Standing) -> None:
        if standing.figures and standing.percentage is not None and standing.verdict is None:
            return
        if self._told.get(standing.name) != standing.news:
            self._told[standing.name] = standing.news
            self._progress.console.print(standing.line, markup=False, highlight=False)
