"""Objects in files of YAML or JSON, as `-f` names them. Called by the commands that take files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xray_cli.errors import CommandError

Raw = dict[str, Any]


def read_objects(names: Sequence[str]) -> list[Raw]:
    """The objects in these files, those in Lists too, in their order.

    Args:
        names: of files or folders of them; `-` is stdin.
    Raises: CommandError for what can't be read or is no object.
    """
    return [item for name in names for where, text in _texts(name) for item in _parse(where, text)]


def _texts(name: str) -> Iterator[tuple[str, str]]:
    if name == "-":
        yield "stdin", sys.stdin.read()
        return
    path = Path(name)
    found = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml", ".json")) if path.is_dir() else [path]
    for file in found:
        try:
            yield str(file), file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise CommandError(f'the path "{file}" cannot be read: {reason}') from error


def _parse(where: str, text: str) -> Iterator[Raw]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        documents = list(yaml.load_all(text, loader))
    except yaml.YAMLError as error:
        raise CommandError(f"error parsing {where}: {' '.join(str(error).split())}") from error
    for document in documents:
        if document is not None:
            yield from _items(where, document)


def _items(where: str, document: Any) -> Iterator[Raw]:
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        raise CommandError(f"{where}: expected objects with apiVersion, kind and metadata; found {_told(document)}")
    if document["kind"].endswith("List") and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _items(where, item)
        return
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise CommandError(f"{where}: {document['kind']} without metadata.name")
    yield document


def _told(document: Any) -> str:
    return "one without kind" if isinstance(document, dict) else f"a {type(document).__name__}"
