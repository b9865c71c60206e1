"""What an image's Dockerfile target is made from: its stages and the files they copy. Used by images.py for
tags and builds.

Reads the plain Dockerfile language (continued lines, no here-documents).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dev.cluster.state import ClusterError

_NOT_INPUTS = re.compile(r"^(\..*|__pycache__|.*\.egg-info|.*\.pyc|node_modules)$")
"""Names that are no part of an image: made by running the code, or the tools' own."""


@dataclass(frozen=True)
class Stage:
    name: str
    base: str
    instructions: tuple[str, ...]

    @property
    def stages_used(self) -> tuple[str, ...]:
        """Bases and --from= of the stage: other stages' names, or images."""
        copied = [found for line in self.instructions[1:] for found in re.findall(r"(?:--|,)from=([^\s,]+)", line)]
        return (self.base, *copied)

    @property
    def sources(self) -> tuple[str, ...]:
        """Paths in the build context that the stage copies or mounts."""
        return tuple(source for line in self.instructions[1:] for source in _sources(line))


@dataclass(frozen=True)
class Dockerfile:
    path: Path
    arguments: tuple[str, ...]
    """The ARG lines before the first FROM."""
    stages: tuple[Stage, ...]

    def needed(self, target: str) -> tuple[Stage, ...]:
        """The target's stage and all that it builds on, in the file's order; "" means the last stage."""
        by_name = {stage.name: stage for stage in self.stages}
        wanted = [target or self.stages[-1].name]
        if wanted[0] not in by_name:
            raise ClusterError(f"{self.path}: no stage {target!r}; it has {', '.join(by_name)}")
        found: dict[str, Stage] = {}
        while wanted:
            stage = by_name.get(wanted.pop())
            if stage and stage.name not in found:
                found[stage.name] = stage
                wanted.extend(stage.stages_used)
        return tuple(stage for stage in self.stages if stage.name in found)

    def text(self, target: str, ready: Mapping[str, str]) -> str:
        """The Dockerfile for one target, where each stage in `ready` (name -> image) is an image already."""
        lines = list(self.arguments)
        for stage in self.needed(target):
            image = ready.get(stage.name)
            lines.extend([f"FROM {image} AS {stage.name}"] if image else stage.instructions)
        return "\n".join(lines) + "\n"


def _sources(line: str) -> list[str]:
    word, _, rest = line.partition(" ")
    if word.upper() == "RUN":
        mounts = [
            mount for mount in re.findall(r"--mount=(\S+)", rest) if "type=bind" in mount and "from=" not in mount
        ]
        return [found for mount in mounts for found in re.findall(r"(?:source|src)=([^,]+)", mount)]
    if word.upper() not in ("COPY", "ADD") or "--from=" in rest:
        return []
    paths = re.sub(r"--\S+\s+", "", rest).strip()
    return [str(path) for path in (json.loads(paths) if paths.startswith("[") else paths.split())][:-1]


def _logical_lines(text: str) -> Iterator[str]:
    whole = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or (not whole and not line.strip()):
            continue
        whole += line.strip()
        if whole.endswith("\\"):
            whole = whole[:-1].rstrip() + " "
        else:
            yield whole
            whole = ""


def parse(path: Path) -> Dockerfile:
    try:
        lines = list(_logical_lines(path.read_text()))
    except FileNotFoundError as error:
        raise ClusterError(f"{path}: not there; expected the image's Dockerfile") from error
    arguments: list[str] = []
    stages: list[Stage] = []
    for line in lines:
        start = re.match(r"FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*$", line, re.IGNORECASE)
        if start:
            stages.append(Stage(start[2] or str(len(stages)), start[1], (line,)))
        elif stages:
            last = stages.pop()
            stages.append(Stage(last.name, last.base, (*last.instructions, line)))
        else:
            arguments.append(line)
    if not stages:
        raise ClusterError(f"{path}: has no FROM line; expected at least one stage")
    return Dockerfile(path, tuple(arguments), tuple(stages))


def _files_below(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for child in path.iterdir():
            if not _NOT_INPUTS.match(child.name):
                yield from _files_below(child)
    else:
        yield path


def input_files(stages: tuple[Stage, ...], context: Path, built: str = "") -> list[Path]:
    """The context's files that the stages copy, sorted; `built` is a source that is made before the build.

    Raises: ClusterError if a source is not there; a pattern may match nothing.
    """
    found: set[Path] = set()
    for source in {source for stage in stages for source in stage.sources} - {built}:
        pattern = source.removeprefix("./").strip("/")
        matches = list(context.glob(pattern)) if pattern not in ("", ".") else [context]
        if not matches and "*" not in pattern:
            raise ClusterError(f"{context / pattern}: not there; the Dockerfile copies it")
        found.update(path for match in matches for path in _files_below(match))
    return sorted(found)
