"""Overrides are read as what IPUConfig takes, and everything wrong with them is told at once."""

from __future__ import annotations

from typing import Any

import pytest

from xray_operator.core.ipu_config import DERIVED, FIELDS, parse_overrides


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("matmul_proportion", "0.25", 0.25),
        ("matmul_proportion", "1", 1),
        ("matmul_proportion", "[0.1, 0.2]", [0.1, 0.2]),
        ("auto_loss_scaling", "true", True),
        ("inference_device_iterations", "8", 8),
        ("output_mode", "all", "all"),
    ],
)
def test_a_text_becomes_a_value(name: str, text: str, value: Any) -> None:
    assert parse_overrides({name: text}) == {name: value}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "matmul_proportoin",
            "0.2",
            "no field of IPUConfig that a Vision Transformer uses; nearest is matmul_proportion",
        ),
        ("x", "0.2", "nearest is "),
        ("matmul_proportion", "1.5", '"1.5" is not a number from 0 to 1'),
        ("matmul_proportion", "NaN", '"NaN" is not a number from 0 to 1'),
        ("matmul_proportion", "[]", '"[]" is not a number from 0 to 1'),
        ("auto_loss_scaling", "1", '"1" is not true or false'),
        ("auto_loss_scaling", "yes", '"yes" is not true or false'),
        ("inference_device_iterations", "0", '"0" is not a whole number'),
        ("inference_device_iterations", "2.5", '"2.5" is not a whole number'),
        ("output_mode", "first", '"first" is not all, final or default'),
        ("output_mode", "sum", '"sum" is not all, final or default'),
        ("replication_factor", "2", "is derived by the operator: use spec.ipu.ipusPerReplica"),
    ],
)
def test_a_wrong_override_is_refused(name: str, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"^") as refusal:
        parse_overrides({name: text})
    assert words in str(refusal.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"seed.*; outputmode.*nearest is output_mode; matmul_proportion"):
        parse_overrides({"seed": "1", "outputmode": "all", "matmul_proportion": "-1", "auto_loss_scaling": "true"})


def test_a_name_of_a_megabyte_is_told_in_part() -> None:
    with pytest.raises(ValueError, match="nearest is ") as refusal:
        parse_overrides({"seed" * 2**18: "1"})
    assert len(str(refusal.value)) < 200


def test_no_field_is_both_derived_and_free() -> None:
    assert not DERIVED.keys() & FIELDS.keys()
