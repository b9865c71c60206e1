"""What Artifact Hub shows of the chart: annotations made from CRDs, examples, values and changelog.

Their form: https://artifacthub.io/docs/topics/annotations/helm. What follows from no other file is written by hand in
Chart.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from textwrap import indent
from typing import Any, Final

import yaml

MARK: Final = "  # made by `make generate` from here on\n"
PREFIX: Final = "artifacthub.io"

Raw = Mapping[str, Any]


def with_annotations(chart_yaml: str, annotations: Mapping[str, Any]) -> str:
    """Chart.yaml with these annotations in the place of those that were made before."""
    by_hand, _, _ = chart_yaml.partition(MARK)
    return by_hand + MARK + "".join(_block(name, value) for name, value in annotations.items())


def describe(crds: Iterable[Raw], documents: Iterable[Raw], values: Raw, version: str) -> dict[str, Any]:
    """The annotations that follow from the repository's files.

    Args:
        documents: the examples, the first of each kind is shown.
        values: the chart's defaults.
        version: the chart's appVersion, which is the tag of images that have none.
    """
    described = [_crd(crd) for crd in crds]
    first: dict[str, Raw] = {}
    for document in documents:
        first.setdefault(document["kind"], document)
    shown = [dict(first[each["kind"]]) for each in described if each["kind"] in first]
    return {"crds": described, "crdsExamples": shown, "images": list(_images(values, version))}


def read_changes(changelog: str, version: str) -> list[dict[str, str]]:
    """The entries of this version, or of what is not released yet; their headings are Artifact Hub's kinds of change."""
    sections = dict(re.findall(r"^## \[?([^\]\s]+).*?\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL))
    section = sections.get(version) or sections["Unreleased"]
    return [
        {"kind": heading.lower(), "description": " ".join(entry.split())}
        for heading, entries in re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", section, re.MULTILINE | re.DOTALL)
        for entry in re.findall(r"^- (.*?)(?=^- |\Z)", entries, re.MULTILINE | re.DOTALL)
    ]


def _block(name: str, value: Any) -> str:
    text = yaml.safe_dump(value, sort_keys=False, width=10_000, allow_unicode=True)
    return f"  {PREFIX}/{name}: |\n{indent(text, '    ')}"


def _crd(crd: Raw) -> dict[str, str]:
    kind = crd["spec"]["names"]["kind"]
    (served,) = (version for version in crd["spec"]["versions"] if version["storage"])
    told = served["schema"]["openAPIV3Schema"]["description"]
    return {
        "kind": kind,
        "version": served["name"],
        "name": crd["metadata"]["name"],
        "displayName": re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind),
        "description": re.split(r"(?<=[.;])\s", " ".join(told.split()))[0].rstrip(".;"),
    }


def _images(values: Raw, version: str) -> Iterable[dict[str, str]]:
    named = {"operator": values["image"]} | {
        f"trainer-{target}": image
        for target, image in values["trainer"].items()
        if isinstance(image, Mapping) and image["repository"]
    }
    for name, image in named.items():
        yield {"name": name, "image": f"{image['repository']}:{image['tag'] or version}"}
