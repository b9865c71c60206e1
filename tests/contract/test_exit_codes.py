"""Both sides of an exit code: what the trainer means by it, and what the operator says where it has only the code."""

from __future__ import annotations

from collections.abc import Iterator

from xray_operator.core.batch_job import GRACE_SECONDS
from xray_operator.names import EXIT_REASONS, FATAL_EXIT_CODES
from xray_trainer import grace
from xray_trainer.errors import TrainerError

KERNEL = {137}
"""SIGKILL: nothing of the trainer runs any more."""
RESERVED = {14}
"""A partition that is not there: PopTorch's words don't tell it from one whose IPUs can't be seen for a while."""


def kinds(base: type[TrainerError]) -> Iterator[type[TrainerError]]:
    """Every kind of error below this one that ends a container."""
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_operator_and_trainer_call_an_exit_code_by_the_same_name() -> None:
    trainer = {kind.exit_code: kind.reason for kind in kinds(TrainerError)}
    operator = {code: reason for code, reason in EXIT_REASONS.items() if code not in KERNEL | RESERVED}
    assert operator == trainer


def test_one_code_has_one_reason() -> None:
    pairs = {(kind.exit_code, kind.reason) for kind in kinds(TrainerError)}
    assert len({code for code, _ in pairs}) == len(pairs)


def test_an_error_that_another_try_may_pass_is_not_fatal() -> None:
    codes = {kind.exit_code for kind in kinds(TrainerError)} | RESERVED
    assert {code for code in codes if code < 20} == set(FATAL_EXIT_CODES)


def test_a_container_that_is_stopped_knows_when_it_will_be_killed() -> None:
    """Or its exit code would be the kernel's."""
    assert grace.GRACE_SECONDS == GRACE_SECONDS
