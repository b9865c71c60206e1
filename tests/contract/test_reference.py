"""docs/reference.md is what its generator makes of the CRDs, and the generator leaves nothing out."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from dev import reference
from tests.contract.schemas import CRDS, REPOSITORY, walk

PAGE = (REPOSITORY / "docs" / "reference.md").read_text()
FIELD: dict[str, Any] = {"description": "What it is."}


def test_the_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    reference.main()
    assert capsys.readouterr().out == PAGE, "run make generate"


def test_every_field_and_every_rule_is_on_the_page() -> None:
    flat = PAGE.replace("\\|", "|")
    for path in CRDS:
        schema = yaml.safe_load(path.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for part in ("spec", "status"):
            for where, field in walk(schema["properties"][part], part):
                assert where == part or where.endswith(("[]", "{}")) or f"`{where.rpartition('.')[2]}`" in flat
                assert " ".join(field.get("description", "").split()) in flat
                for rule in field.get("x-kubernetes-validations", ()):
                    assert rule["message"] in flat
                    assert " ".join(rule["rule"].split()) in flat


def test_every_link_leads_to_a_heading() -> None:
    links = set(re.findall(r"\(#([^)]*)\)", PAGE))
    headings = [reference.anchor(heading) for heading in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)]
    assert len(headings) == len(set(headings))
    assert len(links) > 10
    assert links <= set(headings)


@pytest.mark.parametrize(
    ("field", "kind", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 3}, "integer", "1 to 3"),
        ({"type": "integer", "minimum": 0}, "integer", "at least 0"),
        ({"type": "string", "maxLength": 9, "pattern": "^a|b$"}, "string", "up to 9 characters, `^a|b$`"),
        ({"type": "string", "enum": ["a", "b", "c"]}, "string", "`a`, `b` or `c`"),
        ({"type": "string", "format": "date-time"}, "time", ""),
        ({"x-kubernetes-int-or-string": True}, "integer or string", ""),
        (
            {
                "type": "array",
                "maxItems": 2,
                "x-kubernetes-list-type": "set",
                "items": {"type": "string", "maxLength": 5},
            },
            "list of strings",
            "up to 2 entries, no entry twice, each up to 5 characters",
        ),
        (
            {"type": "object", "maxProperties": 4, "additionalProperties": {"type": "string"}},
            "map of strings",
            "up to 4 entries",
        ),
        ({"type": "object", "properties": {"a": FIELD}}, "[object](#xspecfield)", ""),
        ({"type": "array", "items": {"properties": {"a": FIELD}}}, "list of [objects](#xspecfield)", ""),
    ],
)
def test_a_schema_in_words(field: dict[str, Any], kind: str, words: str) -> None:
    assert reference.kind_of("x.spec.field", field) == kind
    assert reference.bounds(field) == words


def test_a_column_that_is_empty_is_left_out_and_a_bar_is_no_border() -> None:
    assert reference.table(("a", "b", "c"), [("1", "", "x|y"), ("2", "", "")]) == (
        "| a | c |\n|---|---|\n| 1 | x\\|y |\n| 2 |  |\n"
    )
