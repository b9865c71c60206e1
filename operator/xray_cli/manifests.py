"""XRayTrainingJobs out of files and flags. Called by submit; pure but for reading the files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from xray_cli.errors import CommandError
from xray_operator.names import API_VERSION, JOB_KIND

Raw = dict[str, Any]

LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ARTICLE_MODEL: Final = "google/vit-base-patch16-224-in21k"
SECTIONS: Final = (
    ("metadata",),
    ("spec",),
    *(("spec", name) for name in ("model", "dataset", "training", "limits")),
    ("spec", "dataset", "source"),
    ("spec", "dataset", "source", "pvc"),
)
"""What flags go into: a mapping, if it is there."""


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
    """Every job of every file, `-` being standard input, with the file's name.

    Raises: CommandError where one can't be read, or has something else.
    """
    for file in files:
        found = [document for document in _documents(file) if document is not None]
        if not found:
            raise CommandError(f"no objects in {file}")
        for document in found:
            yield file, _checked(file, document)


def _documents(file: str) -> list[Any]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
        return list(yaml.load_all(text, LOADER))
    except FileNotFoundError as error:
        raise CommandError(f'the path "{file}" does not exist') from error
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise CommandError(f"{file}: {' '.join(str(error).split())}") from error


def _checked(file: str, document: Any) -> Raw:
    kind = document.get("kind") if isinstance(document, Mapping) else None
    if kind != JOB_KIND or document.get("apiVersion") != API_VERSION:
        found = f"{kind} of {document.get('apiVersion')}" if kind else "something without a kind"
        raise CommandError(
            f"{file}: {found}; submit takes {JOB_KIND} of {API_VERSION} only (the rest: kubectl apply -f)"
        )
    for place in SECTIONS:
        if (section := _at(document, place)) is not None and not isinstance(section, Mapping):
            raise CommandError(f"{file}: {'.'.join(place)}: {section!r:.40} in place of fields")
    return {**document, "metadata": document.get("metadata") or {}}


def _at(document: Any, place: Sequence[str]) -> Any:
    for name in place:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document
