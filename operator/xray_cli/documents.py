"""Objects in files of YAML or JSON, as `-f` names them. Called by the commands that take files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from xray_cli.errors import CommandError
from xray_operator.errors import DocumentError
from xray_operator.yaml_text import parse_yaml

Raw = dict[str, Any]

MAPS: Final = ("labels", "annotations")
PARTS: Final[Mapping[tuple[str, ...], type]] = {
    ("metadata",): dict,
    **{("metadata", name): str for name in ("name", "generateName", "namespace", "uid")},
    ("metadata", "creationTimestamp"): datetime,
    **{("metadata", name): dict for name in MAPS},
    ("spec",): dict,
    ("status",): dict,
}
"""What an object of any kind has, if it is there."""
WORDS: Final = {dict: "fields", str: "text", list: "a list", bool: "true or false", datetime: "a time of RFC 3339"}


def read_objects(names: Sequence[str]) -> list[Raw]:
    """Those of read_documents, each of which has a name."""
    found = []
    for where, item in read_documents(names):
        if not (item.get("metadata") or {}).get("name"):
            raise CommandError(f"{where}: {item['kind']} without metadata.name")
        found.append(item)
    return found


def read_documents(names: Sequence[str]) -> Iterator[tuple[str, Raw]]:
    """The objects in these files, those in Lists too, in their order; each with its file.

    Args:
        names: of files or folders of them; `-` is stdin.
    Raises: CommandError for what can't be read or is no object.
    """
    for name in names:
        for where, text in _texts(name):
            try:
                documents = parse_yaml(text)
            except DocumentError as error:
                raise CommandError(f"error parsing {where}: {error}") from error
            for document in documents:
                if document is not None:
                    yield from ((where, item) for item in _items(where, document))


def expect(where: str, item: Raw, parts: Mapping[tuple[str, ...], type]) -> None:
    """Raises: CommandError that names the first of these parts which is there and of another type."""
    for place, expected in parts.items():
        found: Any = item
        for name in place:
            found = found.get(name) if isinstance(found, Mapping) else None
        if found is not None and not _is_of(expected, found):
            raise CommandError(f"{where}: {'.'.join(place)}: {found!r:.40} in place of {WORDS[expected]}")


def _is_of(expected: type, found: Any) -> bool:
    if expected is not datetime:
        return isinstance(found, expected)
    try:
        return datetime.fromisoformat(found).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _texts(name: str) -> Iterator[tuple[str, bytes]]:
    if name == "-":
        yield "stdin", sys.stdin.buffer.read()
        return
    path = Path(name)
    try:
        inside = (
            sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml", ".json")) if path.is_dir() else [path]
        )
        for file in inside:
            yield str(file), file.read_bytes()
    except FileNotFoundError as error:
        raise CommandError(f'the path "{name}" does not exist') from error
    except OSError as error:
        raise CommandError(f'the path "{error.filename}" cannot be read: {error.strerror}') from error


def _items(where: str, document: Any) -> Iterator[Raw]:
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        raise CommandError(f"{where}: expected objects with apiVersion, kind and metadata; found {_told(document)}")
    if document["kind"].endswith("List") and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _items(where, item)
        return
    expect(where, document, PARTS)
    metadata = document.get("metadata") or {}
    expect(where, document, {("metadata", part, key): str for part in MAPS for key in metadata.get(part) or ()})
    yield document


def _told(document: Any) -> str:
    return "one without kind" if isinstance(document, dict) else f"a {type(document).__name__}"
