"""XRayTrainingJobs out of files and flags. Called by submit; pure but for the files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from xray_cli.documents import expect, read_documents
from xray_cli.errors import CommandError
from xray_operator.names import API_VERSION, JOB_KIND

Raw = dict[str, Any]

ARTICLE_MODEL: Final = "google/vit-base-patch16-224-in21k"
SECTIONS: Final[Mapping[tuple[str, ...], type]] = {
    **{("spec", name): dict for name in ("model", "dataset", "training", "limits")},
    ("spec", "dataset", "source"): dict,
    ("spec", "dataset", "source", "pvc"): dict,
}
"""What flags go into, if it is there."""


@dataclass(frozen=True)
class Flags:
    """What submit was told beside files; None was not."""

    name: str | None = None
    flavor: str | None = None
    model: str | None = None
    revision: str | None = None
    claim: str | None = None
    path: str | None = None
    synthetic: int | None = None
    results: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: str | None = None
    seed: int | None = None
    run_seconds: int | None = None

    def over(self, job: Raw) -> Raw:
        """The job with these values in place of its own; a model or a source is replaced whole."""
        spec = dict(job.get("spec") or {})
        if self.model:
            spec["model"] = _given(name=self.model, revision=self.revision)
        elif self.revision:
            spec["model"] = {**(spec.get("model") or {}), "revision": self.revision}
        if source := self._source(spec):
            spec["dataset"] = {**(spec.get("dataset") or {}), "source": source}
        if self.results:
            spec["output"] = {"claimName": self.results}
        training = _given(
            epochs=self.epochs, globalBatchSize=self.batch_size, learningRate=self.learning_rate, seed=self.seed
        )
        for section, values in (("training", training), ("limits", _given(runSeconds=self.run_seconds))):
            if values:
                spec[section] = {**(spec.get(section) or {}), **values}
        metadata = {**(job.get("metadata") or {}), **_given(name=self.name)}
        return {**job, "metadata": metadata, "spec": spec | _given(flavor=self.flavor)}

    def _source(self, spec: Raw) -> Raw | None:
        if self.synthetic is not None and (self.claim or self.path):
            raise CommandError(
                "--synthetic goes with neither --claim nor --path: X-rays are generated, or lie on a claim"
            )
        if self.synthetic is not None:
            return {"synthetic": {"images": self.synthetic}}
        if self.claim:
            return {"pvc": _given(claimName=self.claim, path=self.path)}
        if self.path:
            source = (spec.get("dataset") or {}).get("source") or {}
            return {"pvc": {**(source.get("pvc") or {}), "path": self.path}}
        return None


def _given(**values: Any) -> Raw:
    return {name: value for name, value in values.items() if value is not None}


def job_from_flags(flags: Flags) -> Raw:
    """A job without a file. Raises: CommandError naming the flags that are missing."""
    source = flags.claim or flags.synthetic
    needed = {"name": flags.name, "flavor": flags.flavor, "claim (or --synthetic)": source, "results": flags.results}
    if missing := [f"--{flag}" for flag, value in needed.items() if value is None]:
        raise CommandError(f"give a file by -f, or what is missing: {', '.join(missing)}")
    model = {"model": {"name": ARTICLE_MODEL}}
    return flags.over({"apiVersion": API_VERSION, "kind": JOB_KIND, "metadata": {}, "spec": model})


def read_jobs(files: Sequence[str]) -> Iterator[tuple[str, Raw]]:
    """Every job of every file or folder, `-` being standard input, with its file's name.

    Raises: CommandError where one can't be read, or has something else.
    """
    for file in files:
        found = [(where, _checked(where, document)) for where, document in read_documents([file])]
        if not found:
            raise CommandError(f"no objects in {'stdin' if file == '-' else file}")
        yield from found


def _checked(file: str, document: Raw) -> Raw:
    kind, version = document["kind"], document.get("apiVersion")
    if (kind, version) != (JOB_KIND, API_VERSION):
        told = f"{kind} of {version} in place of {JOB_KIND} of {API_VERSION}"
        raise CommandError(f"{file}: {told} (the rest: kubectl apply -f)")
    expect(file, document, SECTIONS)
    return {**document, "metadata": document.get("metadata") or {}}
