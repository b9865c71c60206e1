"""YAML or JSON that people have written, read as kubectl reads it, but for names that are written twice.

Called by config and by the command line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import yaml
from yaml.constructor import ConstructorError

from xray_operator.errors import DocumentError

_FASTEST: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVERS: Final = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in _FASTEST.yaml_implicit_resolvers.items()
}


class _Loader(_FASTEST):  # type: ignore[misc]
    """What looks like a time stays text: JSON has none. What is written twice is refused: one of the two would be lost."""

    yaml_implicit_resolvers = _RESOLVERS

    def construct_document(self, node: yaml.Node) -> Any:
        for mapping in _mappings(node):
            names: set[str] = set()
            for key in (key for key, _ in mapping.value if isinstance(key, yaml.ScalarNode)):
                if key.value in names:
                    raise ConstructorError(None, None, f"{key.value} is written twice", key.start_mark)
                names.add(key.value)
        return super().construct_document(node)


def _mappings(document: yaml.Node) -> Iterator[yaml.MappingNode]:
    """Each one once, also where aliases name it."""
    todo, seen = [document], set()
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            todo += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            todo += node.value


def parse_yaml(text: str | bytes) -> list[Any]:
    """The documents, of what JSON has: names are text.

    Raises: DocumentError, of one line, with the place.
    """
    try:
        found: list[Any] = json.loads(json.dumps(list(yaml.load_all(text, _Loader)), allow_nan=False))
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
