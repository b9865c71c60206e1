"""What `-f` takes: files, folders, standard input and Lists, of YAML or JSON; and what is told of what it can't read."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from xray_cli.__main__ import run
from xray_cli.connection import Connection
from xray_cli.errors import ServerError

JOB = "apiVersion: xray.training/v1alpha1\nkind: XRayTrainingJob\n"
SPEC = "spec: {flavor: x, model: {name: m}, dataset: {source: {synthetic: {images: 60}}}, output: {claimName: out}}\n"
DRY = ("--dry-run=client", "-n", "x", "-o", "name")


def job(name: str, more: str = "") -> str:
    return f"{JOB}metadata: {{name: {name}{more}}}\n{SPEC}"


def listed(*names: str) -> str:
    rows = "".join("- " + job(name).replace("\n", "\n  ").rstrip(" ") for name in names)
    return f"apiVersion: v1\nkind: List\nitems:\n{rows}"


def named(*names: str) -> str:
    return "".join(f"xraytrainingjob.xray.training/{name}\n" for name in names)


def test_submit_takes_a_folder_and_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "2.yaml").write_text(listed("c", "d") + "---\n" + job("e"))
    (tmp_path / "1.json").write_text(job("b"))
    (tmp_path / "notes.txt").write_text("not asked for")
    assert run(["submit", "-f", str(tmp_path), *DRY]) == 0
    assert capsys.readouterr() == (named("b", "c", "d", "e"), "")


def test_a_folder_takes_one_kind_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "claim.yaml").write_text("{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: out}}")
    assert run(["submit", "-f", str(tmp_path), *DRY]) == 1
    told = (
        "PersistentVolumeClaim of v1 in place of XRayTrainingJob of xray.training/v1alpha1 (the rest: kubectl apply -f)"
    )
    assert capsys.readouterr() == ("", f"error: {tmp_path}/claim.yaml: {told}\n")


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for text, told in ((listed("a"), (named("a"), "")), ("---", ("", "error: no objects in stdin\n"))):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        run(["submit", "-f", "-", *DRY])
        assert capsys.readouterr() == told


def test_of_several_jobs_one_that_is_refused_keeps_back_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def create(_: Connection, path: str, body: dict[str, Any], query: object) -> dict[str, Any]:  # noqa: ARG001
        if body["metadata"]["name"] in ("c", "e"):
            raise ServerError(409, {"reason": "AlreadyExists", "message": f"{body['metadata']['name']} already exists"})
        return body

    monkeypatch.setattr(Connection, "create", create)
    file = tmp_path / "jobs.yaml"
    for text, code in ((listed("a", "b"), 0), (listed("a", "c", "d", "e"), 1)):
        file.write_text(text)
        assert run(["submit", "-f", str(file), "-n", "x"]) == code
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"xraytrainingjob.xray.training/{name} created" for name in ("a", "b", "a", "d")]
    assert err.splitlines() == [
        f'Error from server (AlreadyExists): error when creating "{file}": {name} already exists' for name in ("c", "e")
    ]


@pytest.mark.parametrize("command", ["submit", "render"])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a:\n  b: c: d\n", "line 2, column 7: mapping values are not allowed in this context"),
        ("- [1, 2\nb: 3\n", "line 2, column 2: while parsing a flow sequence, did not find expected ',' or ']'"),
        ("a: !secret b\n", "line 1, column 4: could not determine a constructor for the tag '!secret'"),
        ("a: \x07", "position 3: control characters are not allowed"),
        (b"a: \x80", "position 3: invalid leading UTF-8 octet"),
        ("&a [*a]", "expected what JSON can say: Circular reference detected"),
        ("!!timestamp x", "expected what JSON can say: 'NoneType' object has no attribute 'groupdict'"),
        ("spec:\n  a: 1\n  b: 2\n  a: 3\n", "line 4, column 3: a is written twice"),
        ('{"a": [{"b": 1, "b": 1}]}', "line 1, column 17: b is written twice"),
        ("a: .nan", "expected what JSON can say: Out of range float values are not JSON compliant"),
    ],
)
def test_what_is_no_yaml_is_told_in_one_line(
    command: str, text: str | bytes, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert run([command, "-f", str(file)]) == 1
    assert capsys.readouterr() == ("", f"error: error parsing {file}: {told}\n")


def test_what_looks_like_a_time_or_a_number_is_text_where_json_has_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.yaml").write_text(job("a", ", annotations: {since: 2026-01-01, 5: five}"))
    assert run(["submit", "-f", str(tmp_path), "--dry-run=client", "-n", "x", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["metadata"]["annotations"] == {"since": "2026-01-01", "5": "five"}


def test_what_is_merged_in_gives_way_to_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = job("a").replace("metadata: ", "metadata: &first ")
    second = job("b").replace("metadata: {", "metadata: {<<: *first, ")
    items = "".join("- " + each.replace("\n", "\n  ").rstrip(" ") for each in (first, second))
    (tmp_path / "jobs.yaml").write_text(f"apiVersion: v1\nkind: List\nitems:\n{items}")
    assert run(["submit", "-f", str(tmp_path), *DRY]) == 0
    assert capsys.readouterr() == (named("a", "b"), "")


@pytest.mark.parametrize("command", ["submit", "render"])
@pytest.mark.parametrize(
    ("more", "told"),
    [
        (", labels: text", "metadata.labels: 'text' in place of fields"),
        (", labels: {a: [b]}", "metadata.labels.a: ['b'] in place of text"),
        (", namespace: [a]", "metadata.namespace: ['a'] in place of text"),
        (", creationTimestamp: soon", "metadata.creationTimestamp: 'soon' in place of a time of RFC 3339"),
    ],
)
def test_metadata_of_another_type(
    command: str, more: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(job("a", more))
    assert run([command, "-f", str(file)]) == 1
    assert capsys.readouterr() == ("", f"error: {file}: {told}\n")


def test_a_name_may_be_left_to_the_server_but_not_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(job("", "").replace("name: }", "generateName: a-}"))
    assert run(["submit", "-f", str(file), *DRY]) == 0
    assert capsys.readouterr() == (named("a-"), "")
    file.write_text(f"{JOB}{SPEC}")
    assert run(["submit", "-f", str(file), *DRY]) == 1
    assert capsys.readouterr() == ("", f"error: {file}: XRayTrainingJob without metadata.name\n")
