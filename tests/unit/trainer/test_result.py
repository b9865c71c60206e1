"""The termination message: whole JSON of at most 4096 bytes, whatever happens."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.trainer.build import EXAMPLES
from xray_trainer.errors import DataError, TrainerError
from xray_trainer.findings import NIH_FINDINGS
from xray_trainer.result import MAX_BYTES, encode, error_result, write_result


def result_with(names: list[str]) -> dict[str, object]:
    findings = [{"name": name, "auroc": 0.1234567890123456, "positives": 1234567} for name in names]
    phases = [{"name": name, "started_at": "2026-11-22T10:00:04Z", "finished_at": None} for name in "ab"]
    return {"version": 1, "exit_code": 0, "auroc_macro": 1 / 3, "findings": findings, "phases": phases}


def test_fourteen_findings_with_long_numbers_fit_uncut() -> None:
    document = result_with(list(NIH_FINDINGS))
    assert len(encode(document)) <= MAX_BYTES
    assert json.loads(encode(document)) == document


def test_all_findings_that_may_be_absent_fit_uncut() -> None:
    """One less than the CRD's 32 of 64 characters: without any, there is no result."""
    document = json.loads((EXAMPLES / "prepare-result.json").read_text())
    document["absent_findings"] = [f"{number:064d}" for number in range(31)]
    assert len(encode(document)) <= MAX_BYTES
    assert json.loads(encode(document)) == document


def test_too_many_findings_are_cut_and_the_rest_stays_whole() -> None:
    encoded = encode(result_with([f"Ünusual_finding_{number:050d}" for number in range(100)]))
    document = json.loads(encoded)
    assert len(encoded) <= MAX_BYTES
    assert 0 < len(document["findings"]) < 100
    assert document["auroc_macro"] == 1 / 3
    assert len(document["phases"]) == 2


def test_long_messages_of_any_alphabet_fit() -> None:
    for text in ("x" * 9000, "ü" * 9000, "\N{LUNGS}" * 9000, '"\\\n' * 3000, "\x01" * 9000):
        encoded = encode(error_result(DataError(text)))
        assert len(encoded) <= MAX_BYTES
        assert json.loads(encoded)["exit_code"] == 11


def test_every_error_has_an_exit_code_of_its_own() -> None:
    kinds = TrainerError.__subclasses__()
    assert {kind.exit_code for kind in kinds} == {10, 11, 12, 13, 15, 16, 20, 21, 143}
    assert len({kind.reason for kind in kinds}) == len(kinds)


def test_texts_of_unexpected_errors_stay_in_the_log() -> None:
    document = error_result(ValueError("images/00012345_000.png"))
    assert document["exit_code"] == 1
    assert "00012345" not in json.dumps(document)


def test_a_result_file_that_can_t_be_written_is_no_error(tmp_path: Path) -> None:
    write_result(tmp_path / "absent" / "result", {"version": 1})
