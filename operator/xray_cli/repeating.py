"""Running the jobs of a comparison: on each flavor one after the other, the flavors side by side. Called by compare.

One at a time on a flavor, so that repeats don't slow each other, and that a job which fails there is paid once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from xray_cli.comparing import Trial, check_same
from xray_cli.connection import Connection
from xray_cli.errors import CommandError, ServerError
from xray_cli.follow import Change, Following
from xray_cli.standing import read_standing, verdict_of
from xray_cli.waiting import Display, display_on
from xray_operator import names
from xray_operator.cluster import paths

Raw = dict[str, Any]


def jobs_of(trial: Trial, connection: Connection) -> list[Raw]:
    """Those that there are of a comparison, on its flavors; of earlier repeats too, if they did the same."""
    pages = connection.pages(paths.collection(names.JOB_KIND, trial.namespace), _selector(trial))
    return [item for page in pages for item in page["items"] if trial.is_repeat(item)]


def _selector(trial: Trial) -> dict[str, str]:
    return {"labelSelector": f"{names.LABEL_COMPARISON}={trial.name}"}


def run_all(trial: Trial, connection: Connection, stream: IO[str]) -> None:
    """Until every job has succeeded, or its flavor goes no further because one won't.

    Raises: CommandError if one is deleted meanwhile, or its name is somebody else's.
    """
    following = Following(connection, paths.collection(names.JOB_KIND, trial.namespace), _selector(trial))
    with display_on(stream, max(len(each["metadata"]["name"]) for each in trial.manifests)) as display:
        course = Running(trial, lambda manifest: _create(connection, manifest), display)
        for changes in following.changes():
            if course.goes_on(changes):
                continue
            return


def _create(connection: Connection, manifest: Raw) -> Raw:
    try:
        return connection.create(paths.collection_of(manifest), manifest)
    except ServerError as error:
        if error.reason != "AlreadyExists":
            raise
        name = manifest["metadata"]["name"]
        raise CommandError(
            f'the job "{name}" is there and is none of this comparison: compare under another metadata.name'
        ) from error


@dataclass
class Running:
    """The jobs as they were seen last."""

    trial: Trial
    create: Callable[[Raw], Raw]
    display: Display
    _seen: dict[str, Raw] = field(default_factory=dict)

    def goes_on(self, changes: Sequence[Change]) -> bool:
        """Takes note of what has changed and starts what is next; False when nothing is left to wait for."""
        names_of_ours = {manifest["metadata"]["name"] for manifest in self.trial.manifests}
        ours = [change for change in changes if change.item["metadata"]["name"] in names_of_ours]
        check_same(self.trial, (change.item for change in ours))
        for change in ours:
            if change.deleted:
                raise CommandError(f'the job "{change.item["metadata"]["name"]}" was deleted')
            self._note(change.item)
        going_on = [flavor for flavor, manifests in self.trial.runs.items() if self._flavor_goes_on(manifests)]
        return bool(going_on)

    def _flavor_goes_on(self, manifests: Sequence[Raw]) -> bool:
        """Whether one of them runs, which the next one is made for if need be."""
        for manifest in manifests:
            job = self._seen.get(manifest["metadata"]["name"])
            if job is None:
                self._note(self.create(manifest))
                return True
            if (verdict := verdict_of(job)) != 0:
                return verdict is None
        return False

    def _note(self, job: Raw) -> None:
        self._seen[job["metadata"]["name"]] = job
        self.display.show(read_standing(job))
