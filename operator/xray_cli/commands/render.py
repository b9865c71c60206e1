"""`render`: the ConfigMap and the Jobs that the operator would make of a job, from files alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from xray_cli.documents import expect, read_objects
from xray_cli.errors import CommandError
from xray_cli.offline import (
    CHART_CONFIG,
    RUN_PARTS,
    Refusal,
    Surroundings,
    assumptions,
    fixed_at,
    read_surroundings,
    render,
    unknown_fields,
)
from xray_cli.output import print_document
from xray_cli.shipped import known_crds, shipped_flavors
from xray_operator import names
from xray_operator.config import OperatorConfig, load_config
from xray_operator.errors import ConfigError

Raw = dict[str, Any]

CRD: Final = f"{names.JOBS}.{names.GROUP}"


class Style(StrEnum):
    """What -o takes."""

    YAML = "yaml"
    JSON = "json"


def render_jobs(
    files: Annotated[
        list[str],
        typer.Option(
            "--filename",
            "-f",
            metavar="FILE",
            help="File or folder with the job, `-` is stdin; may be given several times. Flavors, Namespaces and "
            "PersistentVolumeClaims in it are taken into account.",
        ),
    ],
    flavors: Annotated[
        list[str] | None,
        typer.Option("--flavors", metavar="FILE", help="AcceleratorFlavors; those of the chart if left out."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The operator's configuration; what the chart makes it if left out."),
    ] = None,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Of jobs whose manifest names none.")
    ] = "default",
    output: Annotated[Style, typer.Option("--output", "-o", help="How to print.")] = Style.YAML,
) -> None:
    """Print what the operator would create.

    No cluster is asked.
    """
    objects = read_objects(files)
    jobs = [item for item in objects if item["kind"] == names.JOB_KIND]
    for raw in jobs:
        expect(f"{names.JOB_KIND} {raw['metadata']['name']}", raw, RUN_PARTS)
    if not jobs:
        raise CommandError(f"no {names.JOB_KIND} in {', '.join(files)}")
    around = read_surroundings([*objects, *read_objects(flavors or ())], shipped_flavors(), namespace)
    settings, now = _settings(config), datetime.now(UTC)
    rendered: list[Raw] = []
    refused: list[str] = []
    for raw in jobs:
        raw["metadata"].setdefault("namespace", namespace)
        found = _render(raw, around, settings, now)
        if isinstance(found, str):
            refused.append(found)
        else:
            rendered += found
    _print(rendered, output)
    if refused:
        raise CommandError("\nerror: ".join(refused))


def _render(raw: Raw, around: Surroundings, config: OperatorConfig, now: datetime) -> list[Raw] | str:
    """The children, or why there are none."""
    name = f"{names.JOB_KIND} {raw['metadata']['name']}"
    if not isinstance(raw.get("spec"), dict):
        return f"{name}: expected spec, with its fields"
    (version,) = known_crds()[CRD]["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    if unknown := list(unknown_fields(raw["spec"], schema, "spec")):
        return f"{name}: unknown field {', '.join(unknown)}"
    found = render(raw, around, config, fixed_at(raw) or now)
    if isinstance(found, Refusal):
        return f"{name} would be {found.state}, not accepted ({found.reason}): {found.message}"
    for told in assumptions(raw, around):
        print(f"note: {name}: {told}", file=sys.stderr)
    return found


def _settings(path: Path | None) -> OperatorConfig:
    try:
        return load_config(path) if path else CHART_CONFIG
    except ConfigError as error:
        raise CommandError(str(error)) from error


def _print(objects: Sequence[Raw], style: Style) -> None:
    if style is Style.JSON and objects:
        whole = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        print_document(objects[0] if len(objects) == 1 else whole, style)
        return
    for place, item in enumerate(objects):
        if place:
            print("---")
        print_document(item, style)
