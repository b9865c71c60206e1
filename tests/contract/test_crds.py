"""The CRDs tell everything and bound everything; core/spec.py's models say the same; the chart brings the same."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from tests.contract.schemas import COMPARED, CRDS, REPOSITORY, comparable, crd_schema, filled, model_schema, walk
from tests.integration.life import flavor, xray_job
from tests.integration.test_crds import FLAVORS, HOST_WITH_PORT, JOBS, NO_HUB_IDS
from xray_operator.core.ipu_config import DERIVED
from xray_operator.core.spec import FlavorSpec, JobSpec, MonthlyBudget, parse_part

KINDS = {"XRayTrainingJob": JobSpec, "AcceleratorFlavor": FlavorSpec, "TrainingBudget": MonthlyBudget}
PARTS = [(kind, part) for kind in KINDS for part in ("spec", "status")]
BOUNDS = {
    "string": {"maxLength", "enum", "format"},
    "array": {"maxItems"},
    "map": {"maxProperties"},
}
RULES = "x-kubernetes-validations"
MONTHLY = {"spec": {"limit": "500", "currency": "USD"}}
DECIMALS = ("0", "0.0", "0.25", "0.5", "1", "1.0", "1.5", "2e-4", "9e9", "99999999", "", "-1", "abc", "1e", " 1")

Schema = dict[str, Any]


def type_of(field: Schema) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    return "map" if "additionalProperties" in field else str(field["type"])


def test_the_chart_brings_the_same_crds() -> None:
    copies = sorted((REPOSITORY / "charts" / "xray-operator" / "crds").iterdir())
    assert {path.name: path.read_text() for path in copies} == {path.name: path.read_text() for path in CRDS}


@pytest.mark.parametrize("path", CRDS, ids=lambda path: path.stem.split(".")[0])
def test_a_crd_fits_into_kubectl_applys_annotation_of_262144_bytes_with_room(path: Path) -> None:
    assert path.stat().st_size < 100_000


@pytest.mark.parametrize("path", CRDS, ids=lambda path: path.stem.split(".")[0])
def test_every_field_has_a_description(path: Path) -> None:
    schema = yaml.safe_load(path.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["metadata"]  # Kubernetes describes it
    told = [where for where, field in walk(schema, "") if not where.endswith(("[]", "{}"))]
    assert len(told) > 20
    assert [w for w, field in walk(schema, "") if w in told and not field.get("description")] == []


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_every_text_list_and_map_has_a_bound(kind: str, part: str) -> None:
    assert list(unbounded(crd_schema(kind, part), part)) == []


def test_a_missing_bound_is_found() -> None:
    text = {"type": "string"}
    fields = {
        "text": text,
        "pattern": text | {"pattern": "^a*$"},
        "bounded": text | {"maxLength": 3},
        "list": {"type": "array", "items": text},
        "map": {"type": "object", "maxProperties": 3, "additionalProperties": text},
        "open": {"type": "object", "additionalProperties": text | {"enum": ["a"]}},
        "number": {"x-kubernetes-int-or-string": True},
    }
    missing = ["spec.text", "spec.pattern", "spec.list", "spec.list[]", "spec.map{}", "spec.open", "spec.number"]
    assert list(unbounded({"type": "object", "properties": fields}, "spec")) == missing


def unbounded(schema: Schema, path: str) -> Iterator[str]:
    """Paths of texts, lists and maps that may be of any size. A pattern bounds only as far as it has no star."""
    for where, field in walk(schema, path):
        kind = type_of(field).removeprefix("integer or ")
        fixed = re.fullmatch(r"\^[^*+]*\$", field.get("pattern", ""))
        if kind in BOUNDS and not BOUNDS[kind] & field.keys() and not fixed:
            yield where


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_tells_the_offending_values_and_has_a_fallback(kind: str) -> None:
    ruled = [rule for _, field in walk(crd_schema(kind, "spec"), "spec") for rule in field.get(RULES, ())]
    assert ruled
    for rule in ruled:
        assert rule["message"]
        assert re.search(r"%[sd].*\.format\(\[.*\bself\b", rule["messageExpression"]), rule


def test_the_crd_refuses_what_the_operator_derives_with_the_same_words() -> None:
    (rule,) = crd_schema("XRayTrainingJob", "spec")["properties"]["ipu"]["properties"]["overrides"][RULES]
    assert re.findall(r"'(\w+)'", rule["rule"]) == sorted(DERIVED)
    assert dict(re.findall(r"\['(\w+)', '([\w.]+)'\]", rule["messageExpression"])) == DERIVED


@pytest.mark.parametrize("kind", KINDS)
def test_crd_and_model_have_the_same_fields(kind: str) -> None:
    ours = dict(walk(model_schema(KINDS[kind]), "spec"))
    passed_on = tuple(path for path, field in ours.items() if field.get("additionalProperties") is True)
    theirs = dict(walk(crd_schema(kind, "spec"), "spec"))
    assert ours.keys() == {path for path in theirs if not path.startswith(tuple(f"{path}." for path in passed_on))}


@pytest.mark.parametrize("kind", KINDS)
def test_crd_and_model_have_the_same_types_bounds_and_defaults(kind: str) -> None:
    theirs = dict(walk(crd_schema(kind, "spec"), "spec"))
    pairs = {path: (theirs[path], field) for path, field in walk(model_schema(KINDS[kind]), "spec")}
    differing = {path: found for path, pair in pairs.items() if (found := differences(*pair))}
    assert differing == {}


def differences(theirs: Schema, ours: Schema) -> dict[str, tuple[object, object]]:
    """What the CRD and the model say otherwise about one field: word -> (CRD, model)."""
    if ours.get("additionalProperties") is True:  # handed on as it is
        return {}
    decimal = ours["type"] == "decimal"
    said = {word: (theirs.get(word), ours.get(word)) for word in COMPARED if not decimal}
    said["type"] = (type_of(theirs), "string" if decimal else type_of(ours))
    said["required"] = (sorted(theirs.get("required", [])), sorted(ours.get("required", [])))
    said["default"] = tuple(comparable(filled(side, side.get("default"))) for side in (theirs, ours))
    return {word: pair for word, pair in said.items() if pair[0] != pair[1]}


def test_a_difference_is_found() -> None:
    crd, model = crd_schema("XRayTrainingJob", "spec"), model_schema(JobSpec)
    assert differences(crd, model) == {}
    changed = copy.deepcopy(crd)
    changed["properties"]["training"]["properties"]["epochs"]["default"] = 4
    assert differences(changed["properties"]["training"], model["properties"]["training"]).keys() == {"default"}
    epochs = model["properties"]["training"]["properties"]["epochs"]
    assert differences(changed["properties"]["training"]["properties"]["epochs"], epochs | {"maximum": 9}).keys() == {
        "default",
        "maximum",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_decimal_that_the_crd_takes_is_taken_by_the_model(kind: str) -> None:
    theirs = dict(walk(crd_schema(kind, "spec"), "spec"))
    above_zero = {rule["rule"] for field in theirs.values() for rule in field.get(RULES, ())}
    for path, text in decimals(kind, theirs):
        if Decimal(text) or not any(f"double(self.{path.rpartition('.')[2]}) > 0.0" in rule for rule in above_zero):
            assert takes(kind, path.replace("[]", ".0"), text), (path, text)


def decimals(kind: str, theirs: dict[str, Schema]) -> Iterator[tuple[str, str]]:
    """Each decimal field with each text that the CRD's schema lets through."""
    for path, field in walk(model_schema(KINDS[kind]), "spec"):
        if field["type"] == "decimal":
            pattern, longest = theirs[path]["pattern"], theirs[path]["maxLength"]
            fitting = [text for text in DECIMALS if re.search(pattern, text) and len(text) <= longest]
            assert 2 <= len(fitting) < len(DECIMALS)
            yield from ((path, text) for text in fitting)


def takes(kind: str, path: str, text: str) -> bool:
    """Whether the model has nothing against the text at this place of an otherwise right spec."""
    specs = {"XRayTrainingJob": xray_job("n"), "AcceleratorFlavor": flavor(), "TrainingBudget": MONTHLY}
    raw: Any = copy.deepcopy(specs[kind]["spec"])
    place, (*way, last) = raw, path.split(".")[1:]
    for step in way:
        place = place[int(step)] if step.isdigit() else place.setdefault(step, {})
    place[last] = text
    parsed = parse_part(KINDS[kind], raw, "spec", "")
    return not isinstance(parsed, list) or path not in {problem.path for problem in parsed}


def test_a_refused_decimal_is_found() -> None:
    assert takes("XRayTrainingJob", "spec.training.learningRate", "1")
    assert not takes("XRayTrainingJob", "spec.training.learningRate", "0")
    assert not takes("AcceleratorFlavor", "spec.prices.0.perHour", "-1")


@pytest.mark.parametrize(("spec", "message"), [row for row in JOBS if "unknown field" not in row[1]])
def test_a_job_that_the_crd_refuses_is_refused_by_the_model(spec: dict[str, Any], message: str) -> None:
    assert isinstance(parse_part(JobSpec, xray_job("n", **spec)["spec"], "spec", ""), list), message


@pytest.mark.parametrize(("spec", "message"), [*FLAVORS, HOST_WITH_PORT])
def test_a_flavor_that_the_crd_refuses_is_refused_by_the_model(spec: dict[str, Any], message: str) -> None:
    raw = {key: value for key, value in (flavor()["spec"] | spec).items() if value is not None}
    assert isinstance(parse_part(FlavorSpec, raw, "spec", ""), list), message


def test_what_both_take_is_taken() -> None:
    assert isinstance(parse_part(JobSpec, xray_job("n")["spec"], "spec", ""), JobSpec)
    assert isinstance(parse_part(FlavorSpec, flavor()["spec"], "spec", ""), FlavorSpec)


@pytest.mark.parametrize("name", NO_HUB_IDS)
def test_what_is_refused_as_a_hub_id_is_refused_by_the_hubs_library(name: str) -> None:
    with pytest.raises(HFValidationError):
        validate_repo_id(name)


@pytest.mark.parametrize("name", ["google/vit-base-patch16-224-in21k", "vit", "_a/b_", "a.b/c.d", "1/2", "x" * 96])
def test_a_hub_id_is_taken(name: str) -> None:
    validate_repo_id(name)
    assert isinstance(parse_part(JobSpec, xray_job("n", model={"name": name})["spec"], "spec", ""), JobSpec)
