"""Refusals in kubectl's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from xray_cli.connection import warning_text
from xray_cli.errors import read_refusal

JOBS = "/apis/xray.training/v1alpha1/namespaces/a/xraytrainingjobs"


def refusal(status: int, **answer: Any) -> str:
    return read_refusal(status, JOBS, json.dumps({"kind": "Status", **answer}).encode()).line


def invalid(*causes: tuple[str, str]) -> str:
    details = {"kind": "XRayTrainingJob", "name": "cxr", "causes": [{"field": f, "message": m} for f, m in causes]}
    return refusal(422, reason="Invalid", message="long", details=details)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (refusal(404, reason="NotFound", message="x not found"), "Error from server (NotFound): x not found"),
        (refusal(500, message="etcd"), "Error from server: etcd"),
        (refusal(401, reason="Unauthorized"), "error: You must be logged in to the server (Unauthorized)"),
        (invalid(("spec.a", "wrong")), 'The XRayTrainingJob "cxr" is invalid: spec.a: wrong'),
        (
            invalid(("spec.a", "wrong"), ("spec.b", "too")),
            'The XRayTrainingJob "cxr" is invalid:\n* spec.a: wrong\n* spec.b: too',
        ),
        (read_refusal(502, JOBS, b"<html>\nBad gateway").line, "Error from server: <html> Bad gateway"),
        (read_refusal(503, JOBS, b"").line, "Error from server: HTTP status 503"),
        (
            read_refusal(404, JOBS, b"404 page not found\n").line,
            "error: the server doesn't have the resources of xray.training: xray-operator is not installed there "
            "(see `kubectl xray doctor`)",
        ),
        (read_refusal(404, "/api/v1/nodes", b"404 page not found\n").line, "Error from server: 404 page not found"),
    ],
)
def test_a_refusal(line: str, told: str) -> None:
    assert line == told


def test_a_warning_of_the_server() -> None:
    assert warning_text('299 - "unknown field \\"spec.x\\""') == 'unknown field "spec.x"'
    assert warning_text("odd") == "odd"
