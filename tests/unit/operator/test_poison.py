"""Malformed objects, messages and status: understood or refused, never trusted; and they hurt only themselves."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.builders import (
    CONFIG,
    JOB_UID,
    at,
    condition,
    created_config_map,
    example,
    make_job,
    make_pod,
    make_run,
    started,
    train_result,
)
from xray_operator import names
from xray_operator.core.attempts import render_time
from xray_operator.core.manifests import build_job
from xray_operator.core.observed import read_handle
from xray_operator.core.plan import read_snapshot
from xray_operator.core.reconcile import reconcile
from xray_operator.core.reports import ErrorResult, PrepareResult, Progress, TrainResult, read_report
from xray_operator.errors import RecordError

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
REPORTS = (PrepareResult, TrainResult, ErrorResult, Progress)


@given(st.text(max_size=200) | JSON.map(json.dumps))
def test_any_text_is_a_report_or_nothing(text: str) -> None:
    for model in REPORTS:
        read_report(model, text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("auroc_macro", float("nan")),
        ("auroc_macro", "0.9"),
        ("auroc_interval", [0.5]),
        ("auroc_interval", [0.5, float("inf")]),
        ("report", "../../other/report.html"),
        ("model_folder", "/model"),
        ("loss", float("inf")),
        ("findings", [{"name": "x" * 65, "auroc": 0.5, "positives": 1}]),
        ("findings", [{"name": "Mass", "auroc": 0.5, "positives": 1}] * 33),
        ("model_digest", "x" * 81),
        ("exit_code", 1),
        ("phases", [{"name": "Evaluating", "started_at": "2026-11-22T10:00:00"}]),
    ],
)
def test_a_result_out_of_bounds_is_not_read(field: str, value: object) -> None:
    assert read_report(TrainResult, train_result()) is not None
    text = json.dumps(json.loads(example("result.json")) | {field: value})
    if field == "auroc_macro" and isinstance(value, str):
        assert read_report(TrainResult, text) is not None, "a number in quotes is a number"
    else:
        assert read_report(TrainResult, text) is None


@given(JSON)
def test_any_spec_is_started_or_refused(spec: Any) -> None:
    raw = make_job().raw() | {"spec": spec}
    from xray_operator.core.observed import Observed, read_xray_job

    decision = reconcile(read_xray_job(raw), Observed(), at(1), CONFIG)
    assert decision.status is not None
    assert decision.status["state"] == "Pending"


def test_a_spoilt_snapshot_is_an_error_of_that_job() -> None:
    for data in (None, {}, *({names.SNAPSHOT_FILE: text} for text in (None, "", "{", "[]", "{}"))):
        with pytest.raises(RecordError):
            read_snapshot(created_config_map() | {"data": data})


@pytest.mark.parametrize("rerun", ["1", "-1", "x", "", "9999999"])
def test_a_job_that_only_claims_to_be_a_run_of_ours_is_not(rerun: str) -> None:
    raw = build_job(make_run())
    raw["metadata"]["uid"] = JOB_UID
    ref = make_job().build().ref
    assert read_handle(raw, ref) is not None
    stranger = raw | {"metadata": raw["metadata"] | {"name": "mine"}}
    assert read_handle(stranger, ref) is None
    raw["metadata"]["labels"] |= {names.LABEL_RERUN: rerun}
    handle = read_handle(raw, ref)
    assert handle is None or handle.rerun == 0


@pytest.mark.parametrize("status", [None, [], "text", {}, {"conditions": None}, {"conditions": [1, {"type": 2}]}])
def test_a_status_without_sense_is_written_anew(status: Any) -> None:
    decision = reconcile(make_job().status(status).build(), started(make_pod().scheduled(10)), at(20), CONFIG)
    assert decision.status is not None
    assert decision.status["state"] == "Preparing"


def test_any_moment_is_written_as_kubernetes_reads_it() -> None:
    assert render_time(datetime(1, 2, 3, 4, 5, 6, 789, tzinfo=UTC)) == "0001-02-03T04:05:06Z"


def test_counts_that_somebody_took_out_of_the_status_are_not_needed() -> None:
    pod = make_pod().scheduled(10).prepared(12, 40, message="cut of").trains(42)
    decision = reconcile(make_job().status({"data": {"images": 3}}).build(), started(pod), at(60), CONFIG)
    assert decision.status is not None
    assert condition(decision.status, "DataReady") == ("True", "Prepared", "prepared; the counts could not be read")


def test_long_words_are_cut() -> None:
    report = json.loads(example("error-result.json")) | {"message": "x" * 4000 + "\nsecond line"}
    pod = make_pod().scheduled(10).prepared(12, 40, 11, json.dumps(report))
    decision = reconcile(make_job().build(), started(pod, end="PodFailurePolicy"), at(60), CONFIG)
    assert decision.status is not None
    assert all(len(c["message"]) <= 1024 for c in decision.status["conditions"])
    assert all(len(e["message"]) <= 1024 for e in decision.events)


def test_children_of_long_or_dotted_names_have_legal_names() -> None:
    for name in ("a" * 253, "chest.x-ray." * 5 + "end", "cxr"):
        child = make_job(name).build().run_name
        assert len(child) <= 36
        assert child.replace("-", "").isalnum()
    ref = make_job("cxr").build().ref
    assert len({ref.run_name(0), ref.run_name(1), replace(ref, uid=JOB_UID).run_name(0)}) == 3
