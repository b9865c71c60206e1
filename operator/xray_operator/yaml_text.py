"""YAML or JSON that people have written, read as kubectl reads it. Called by config and by the command line."""

from __future__ import annotations

import json
from typing import Any, Final

import yaml

from xray_operator.errors import DocumentError

_FASTEST: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVERS: Final = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in _FASTEST.yaml_implicit_resolvers.items()
}
_LOADER: Final[Any] = type("_LOADER", (_FASTEST,), {"yaml_implicit_resolvers": _RESOLVERS})
"""What looks like a time stays text: JSON has none."""


def parse_yaml(text: str | bytes) -> list[Any]:
    """The documents, of what JSON has: names are text.

    Raises: DocumentError, of one line, with the place.
    """
    try:
        found: list[Any] = json.loads(json.dumps(list(yaml.load_all(text, _LOADER)), allow_nan=False))
    except yaml.MarkedYAMLError as error:
        told = ", ".join(part for part in (error.context, error.problem) if part)
        mark = error.problem_mark or error.context_mark
        raise DocumentError(f"line {mark.line + 1}, column {mark.column + 1}: {told}" if mark else told) from error
    except yaml.reader.ReaderError as error:
        raise DocumentError(f"position {error.position}: {error.reason}") from error
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # a tag that its value does not fit, an anchor inside itself, not a number
        raise DocumentError(f"expected what JSON can say: {error}") from error
    return found


def parse_only_yaml(text: str | bytes) -> Any:
    """The only document; None if there is none. Raises: DocumentError."""
    documents = parse_yaml(text)
    if len(documents) > 1:
        raise DocumentError(f"{len(documents)} documents in place of one")
    return documents[0] if documents else None
