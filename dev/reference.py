"""Prints docs/reference.md, made from the CRDs. Run by `make generate`; `make lint` compares.

It knows the words of OpenAPI and of Kubernetes' extensions of it, and no field of ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
HEAD = """# API reference

Made from `crds/` by `make generate`; `kubectl explain` tells the same on a cluster, under the names of the headings below.
The API server fills in the defaults, and refuses what breaks a bound or a rule with the rule's message.
**Bold** fields are required; a time is written as in RFC 3339 (`2026-11-22T10:00:00Z`).
"""

Schema = dict[str, Any]


def main() -> None:
    crds = [yaml.safe_load(path.read_text()) for path in sorted((REPOSITORY / "crds").glob("*.yaml"), reverse=True)]
    print(HEAD)
    for crd in crds:
        print("\n".join(kind(crd["spec"])))


def kind(spec: Schema) -> Iterator[str]:
    """Everything about one kind."""
    names, version = spec["names"], spec["versions"][0]
    short, schema = names["shortNames"][0], version["schema"]["openAPIV3Schema"]
    scope = "in a namespace" if spec["scope"] == "Namespaced" else "in no namespace"
    yield f"## {names['kind']}\n\n{schema['description']}\n"
    yield f"`apiVersion: {spec['group']}/{version['name']}`, lies {scope}, short name `{short}`.\n"
    yield from columns(short, version["additionalPrinterColumns"])
    seen: dict[str, str] = {}
    for part in ("spec", "status"):
        if part in schema["properties"]:
            yield from section(f"{short}.{part}", schema["properties"][part], seen)


def columns(short: str, listed: list[Schema]) -> Iterator[str]:
    """The table of `kubectl get`."""
    yield f"`kubectl get {short}` shows:\n"
    wide = {True: ", with `-o wide`", False: ""}
    rows = [(c["name"], f"`{c['jsonPath'].lstrip('.')}`{wide['priority' in c]}") for c in listed]
    yield table(("column", "where it stands"), rows)


def section(path: str, schema: Schema, seen: dict[str, str]) -> Iterator[str]:
    """The fields of one object, then the objects among them. seen: shape of a section -> its path."""
    yield f"### {path}\n\n{schema['description']}{_whole_default(path, schema)}\n"
    fields = schema.get("properties")
    shape = json.dumps([fields, rules(schema)], sort_keys=True)
    if not fields:
        return
    if shape in seen:
        yield f"The fields are those of [{seen[shape]}](#{anchor(seen[shape])}).\n"
        return
    seen[shape] = path
    rows = [
        (shown(name, schema), kind_of(f"{path}.{name}", field), default(field), bounds(field), field["description"])
        for name, field in fields.items()
    ]
    yield table(("field", "type", "default", "allowed", "meaning"), rows)
    yield from rules(schema)
    for name, field in fields.items():
        inner = field.get("items", field)
        if "properties" in inner:
            yield from section(f"{path}.{name}", {"description": field["description"]} | inner, seen)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table without the columns that are empty."""
    used = [column for column in zip(head, *rows, strict=True) if any(column[1:])]
    lines = [_row(cells) for cells in zip(*used, strict=True)]
    return "\n".join([lines[0], "|---" * len(used) + "|", *lines[1:], ""])


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def shown(name: str, parent: Schema) -> str:
    return f"**`{name}`**" if name in parent.get("required", ()) else f"`{name}`"


def kind_of(path: str, field: Schema) -> str:
    """The type in words; an object is a link to its section."""
    if "items" in field:
        return f"list of {_plural(kind_of(path, field['items']))}"
    if "additionalProperties" in field:
        return f"map of {_plural(kind_of(path, field['additionalProperties']))}"
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if "properties" in field:
        return f"[object](#{anchor(path)})"
    return "time" if field.get("format") == "date-time" else str(field["type"])


def _plural(words: str) -> str:
    return words.replace("[object]", "[objects]") if words.startswith("[") else f"{words}s"


def anchor(path: str) -> str:
    """How GitHub names a heading."""
    return re.sub(r"[^a-z0-9 -]", "", path.lower()).replace(" ", "-")


def default(field: Schema) -> str:
    value = field.get("default", "")
    return "" if value in ("", {}) else f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _whole_default(path: str, schema: Schema) -> str:
    """The default of a part of the resource itself, which is no row of any table."""
    whole = path.count(".") == 1 and "default" in schema
    return f"\n\nAt first: `{json.dumps(schema['default'])}`" if whole else ""


def bounds(field: Schema) -> str:
    """What a value may be, in words."""
    told = [
        _one_of([f"`{value}`" for value in field.get("enum", ())]),
        _between(field, "minimum", "maximum", ""),
        _between(field, "minLength", "maxLength", " characters"),
        _between(field, "minItems", "maxItems", " entries"),
        _between(field, "minProperties", "maxProperties", " entries"),
        "no entry twice" if field.get("x-kubernetes-list-type") == "set" else "",
        f"`{field['pattern']}`" if "pattern" in field else "",
    ]
    inner = field.get("items") or field.get("additionalProperties")
    if inner and "properties" not in inner and bounds(inner):
        told.append(f"each {bounds(inner)}")
    return ", ".join(filter(None, told))


def _one_of(values: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(values[:-1]), *values[-1:]]))


def _between(field: Schema, least: str, most: str, unit: str) -> str:
    low, high = field.get(least), field.get(most)
    if low is None and high is None:
        return ""
    if high is None:
        return f"at least {low}{unit}"
    return f"up to {high}{unit}" if low is None else f"{low} to {high}{unit}"


def rules(schema: Schema) -> list[str]:
    """The CEL rules of an object and of its plain fields, as a list."""
    fields = schema.get("properties", {}).items()
    plain = [(f"`{name}`: ", field) for name, field in fields if "properties" not in field]
    told = [
        f"- {where}{rule['message']} \\\n  `{' '.join(rule['rule'].split())}`"
        for where, part in [("", schema), *plain]
        for rule in part.get("x-kubernetes-validations", ())
    ]
    return ["Rules:\n", *told, ""] if told else []


if __name__ == "__main__":
    main()
