"""JSON schemas from the CRDs and from Kubernetes' own API description, for kubeconform and for the chart's values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]


def closed(schema: Any) -> Any:
    """An OpenAPI schema as a strict JSON schema: properties that it does not name are refused."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: closed(value) for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        strict["type"] = ["integer", "string"]
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not open_ended:
        strict["additionalProperties"] = False
    return strict


def crd_schema(crd: Schema) -> Schema:
    """Of objects of the CRD's kind, in its only version."""
    schema: Schema = closed(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


_NO_HOST = {name: {"type": "null"} for name in ("hostNetwork", "hostIPC", "privileged", "extraResources")}
BACKENDS: tuple[tuple[list[str], Schema], ...] = (
    (["cpu"], {"properties": {"accelerators": {"type": "null"}, "resourceName": {"type": "null"}}}),
    (["cpu", "gpu", "devicePlugin"], {"properties": {"host": {"properties": _NO_HOST}}}),
    (["cpu", "gpu", "devicePlugin", "ipuOperator"], {"properties": {"partition": {"type": "null"}}}),
    (["cpu", "gpu", "devicePlugin", "vipuPartition"], {"properties": {"vipuProxyUrl": {"type": "null"}}}),
    (["gpu", "devicePlugin"], {"required": ["accelerators", "resourceName"]}),
    (
        ["devicePlugin", "vipuPartition", "ipuOperator"],
        {"properties": {"accelerators": {"enum": [1, 2, 4, 8, 16, 32, 64]}}},
    ),
    (
        ["vipuPartition"],
        {
            "required": ["accelerators", "partition", "nodeSelector"],
            "properties": {
                "resourceName": {"type": "null"},
                "nodeSelector": {"minProperties": 1},
                "partition": {
                    "oneOf": [{"required": ["host", "id"]}, {"required": ["configSecretName"], "maxProperties": 1}]
                },
                "host": {"properties": {"extraResources": {"propertyNames": {"pattern": "/"}}}},
            },
        },
    ),
    (
        ["ipuOperator"],
        {
            "required": ["accelerators", "vipuProxyUrl"],
            "properties": {
                "resourceName": {"type": "null"},
                "host": {"properties": {"extraResources": {"propertyNames": {"pattern": "/"}}}},
            },
        },
    ),
)
"""What the CEL rules of the CRD ask of a flavor with one of these backends."""


def flavor_value(crd: Schema) -> Schema:
    """Of one entry of the value `flavors`: the spec of a flavor or, without backend, an addition to an example."""
    spec: Schema = dict(crd_schema(crd)["properties"]["spec"])
    spec.pop("required")
    return spec | {"allOf": [_with_backend(backends, then) for backends, then in BACKENDS]}


def _with_backend(backends: list[str], then: Schema) -> Schema:
    return {"if": {"required": ["backend"], "properties": {"backend": {"enum": backends}}}, "then": then}


def native_schema(api: Schema, group: str, version: str, kind: str) -> Schema:
    """Of one of Kubernetes' own kinds.

    Args:
        api: api/openapi-spec/swagger.json of the Kubernetes sources.
    """
    wanted = {"group": group, "version": version, "kind": kind}
    found = [each for each in api["definitions"].values() if wanted in each.get("x-kubernetes-group-version-kind", [])]
    if len(found) != 1:
        raise LookupError(f"{group}/{version} {kind}: in {len(found)} definitions of Kubernetes' API; expected one")
    schema: Schema = closed(_resolved(found[0], api["definitions"]))
    return schema


def _resolved(schema: Any, definitions: Schema) -> Any:
    """References replaced by what they name; the kinds of a chart refer to none in a circle."""
    if isinstance(schema, list):
        return [_resolved(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" not in schema:
        return {key: _resolved(value, definitions) for key, value in schema.items()}
    name = schema["$ref"].removeprefix("#/definitions/")
    if name.endswith(".Quantity"):
        return {"type": ["string", "number"]}
    return _resolved(definitions[name], definitions)


def write_schemas(folder: Path, manifests: list[Schema], crds: list[Schema], swagger: Path) -> None:
    """KIND-GROUP-VERSION.json, as kubeconform names them, for every kind of the manifests, by its CRD if one is here."""
    by_kind = {(crd["spec"]["group"], crd["spec"]["names"]["kind"]): crd for crd in crds}
    api = json.loads(swagger.read_text())
    for api_version, kind in {(each["apiVersion"], each["kind"]) for each in manifests}:
        group, _, version = api_version.rpartition("/")
        crd = by_kind.get((group, kind))
        schema = crd_schema(crd) if crd else native_schema(api, group, version, kind)
        words = [kind, group.split(".")[0], version]
        folder.joinpath("-".join(word.lower() for word in words if word) + ".json").write_text(json.dumps(schema))


def read_yaml(*paths: Path) -> list[Schema]:
    """All documents of the files."""
    return [each for path in paths for each in yaml.safe_load_all(path.read_text()) if each]
