"""How the commands print: tables and objects as kubectl prints them. Colour only on a terminal, and not with NO_COLOR."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import IO, Any, Final

from xray_operator import names

Raw = dict[str, Any]
Row = Sequence[str]

GAP: Final = "   "
COLOURS: Final = {
    names.SUCCEEDED: "32",
    names.FAILED: "31",
    names.STOPPED: "33",
    names.SUSPENDED: "33",
    names.PREPARING: "36",
    names.COMPILING: "36",
    names.TRAINING: "36",
    names.EVALUATING: "36",
}
"""SGR codes of the states; the others have none."""


class Format(StrEnum):
    """What -o takes."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class ObjectFormat(StrEnum):
    """What -o takes where there is no table."""

    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def has_colour(stream: IO[str], environment: Mapping[str, str] = os.environ) -> bool:
    """Whether colours are wanted there (https://no-color.org)."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


class Table:
    """Lines as kubectl has them: upper-case heads, never wrapped, columns as wide as their widest cell so far.

    Args:
        head: names of the columns.
    """

    def __init__(self, head: Row) -> None:
        self._head = [name.upper() for name in head]
        self._widths = [0] * len(head)
        self._begun = False

    def lines(self, rows: Iterable[Row]) -> list[str]:
        """These rows; the head stands above the first ones."""
        cells = [*([] if self._begun else [self._head]), *([names.short(cell) for cell in row] for row in rows)]
        self._begun = True
        for row in cells:
            self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, row, strict=True)]
        return [self._line(row) for row in cells]

    def _line(self, row: Row) -> str:
        return GAP.join(cell.ljust(width) for cell, width in zip(row, self._widths, strict=True)).rstrip()

    def print(self, rows: Iterable[Row]) -> None:
        colour = has_colour(sys.stdout)
        for line in self.lines(rows):
            print(paint(line) if colour else line, flush=True)


def paint(line: str) -> str:
    """The first state that a line has, in its colour."""
    for word in line.split():
        if word in COLOURS:
            return line.replace(f" {word}", f" \x1b[{COLOURS[word]}m{word}\x1b[0m", 1)
    return line


def print_objects(objects: Sequence[Raw], style: Format | ObjectFormat, *, is_list: bool = False) -> None:
    """Objects of the API as JSON, YAML or TYPE/NAME.

    Args:
        is_list: they are what a LIST found, of which one is no different from many.
    """
    if style.value == "name":
        for item in objects:
            print(name_of(item))
        return
    shown = [without_managed_fields(item) for item in objects]
    whole = {"apiVersion": "v1", "items": shown, "kind": "List", "metadata": {"resourceVersion": ""}}
    print_document(whole if is_list or len(shown) != 1 else shown[0], style.value)


def print_document(document: Any, style: str) -> None:
    """Any value as `json` or `yaml`, as kubectl lays it out."""
    if style == "json":
        print(json.dumps(document, indent=4, ensure_ascii=False))
    else:
        print(to_yaml(document), end="")


def to_yaml(document: Any) -> str:
    """YAML with the keys in order of the alphabet, as kubectl has them."""
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        """Text of several lines stands as it is."""

    def write_text(dumper: Any, text: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    Dumper.add_representer(str, write_text)
    text: str = yaml.dump(document, Dumper=Dumper, allow_unicode=True, default_flow_style=False)
    return text


def name_of(item: Raw) -> str:
    """TYPE.GROUP/NAME, or TYPE/NAME for the core group."""
    group, _, version = item["apiVersion"].rpartition("/")
    kind = item["kind"].lower() + (f".{group}" if version and group else "")
    return f"{kind}/{shown_name(item)}"


def shown_name(item: Raw) -> str:
    """What it is called; before the server has completed a generateName, that."""
    metadata = item["metadata"]
    return str(metadata.get("name") or metadata.get("generateName", ""))


def without_managed_fields(item: Raw) -> Raw:
    """As kubectl shows objects: who wrote which field is left out."""
    metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    return {**item, "metadata": metadata}
