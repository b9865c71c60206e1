"""The two descriptions of a spec in one form: the CRD's OpenAPI schema and the JSON schema of core/spec.py's models."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

REPOSITORY = Path(__file__).resolve().parents[2]
CRDS = sorted((REPOSITORY / "crds").glob("*.yaml"))
COMPARED = (
    "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
)  # fmt: skip

Schema = dict[str, Any]


def crd_schema(kind: str, part: str) -> Schema:
    """spec or status of the only version of a kind."""
    versions = next(crd["spec"]["versions"] for crd in _read_crds() if crd["spec"]["names"]["kind"] == kind)
    (version,) = versions
    found: Schema = version["schema"]["openAPIV3Schema"]["properties"][part]
    return deepcopy(found)


@cache
def _read_crds() -> list[Schema]:
    """Takes a third of a second."""
    return [yaml.safe_load(path.read_text()) for path in CRDS]


def model_schema(model: type[BaseModel]) -> Schema:
    """A model's schema in the CRD's words: no references, no null, a decimal is a string."""
    schema = model.model_json_schema(by_alias=True)
    return _plain(schema, schema.get("$defs", {}))


def _plain(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    schema = definitions[schema["$ref"].rpartition("/")[2]] | schema if "$ref" in schema else schema
    choices = [_plain(choice, definitions) for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) == 1:
        return choices[0] | {k: v for k, v in schema.items() if k == "default"}
    if choices:
        return _one_of({choice["type"]: choice for choice in choices}) | schema
    plain = {k: v for k, v in schema.items() if k != "const"}
    if "const" in schema:
        plain["enum"] = [schema["const"]]
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            plain[key] = _plain(schema[key], definitions)
    if "properties" in schema:
        plain["properties"] = {name: _plain(field, definitions) for name, field in schema["properties"].items()}
    return plain


def _one_of(choices: dict[str, Schema]) -> Schema:
    if choices.keys() == {"number", "string"}:
        return {"type": "decimal"}
    assert choices.keys() == {"integer", "string"}
    return choices["integer"] | choices["string"] | {"type": "integer or string"}


def walk(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every field below an object, what lists and maps hold, and the object itself, with their paths."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from walk(field, f"{path}.{name}")
    for key, end in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(key), dict):
            yield from walk(schema[key], f"{path}{end}")


def filled(schema: Schema, value: Any) -> Any:
    """The value with the defaults of its fields, as the API server fills them in."""
    if not isinstance(value, dict):
        return value
    fields = {n: f for n, f in schema.get("properties", {}).items() if n in value or "default" in f}
    return value | {name: filled(field, value.get(name, field.get("default"))) for name, field in fields.items()}


def comparable(value: Any) -> Any:
    """A default without what is empty; decimals are equal by value."""
    if isinstance(value, dict):
        return {key: comparable(inner) for key, inner in value.items() if comparable(inner)} or None
    if isinstance(value, str):
        try:
            return Decimal(value)
        except InvalidOperation:
            return value
    return value or None
