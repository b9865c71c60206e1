"""The IPUs that aren't there: how many, who holds them, and what goes wrong with them on request.

POPTORCH_EMULATED_FAILURE is one of
    acquire: no IPU can be had
    out_of_memory: nothing that is compiled fits
    recoverable:ACTION@CALL, e.g. recoverable:PARTITION_RESET@7: the seventh call of a training model fails so
    unrecoverable@CALL
"""

from __future__ import annotations

import os
import re
from typing import Dict

from poptorch._errors import Error, RecoverableError, UnrecoverableError

MK2 = 2
"""What PopTorch answers for the IPUs of all vPODs; 21 for those with FP8."""
DEFAULT_IPUS = 4
ACTIONS = ("IPU_RESET", "LINK_RESET", "PARTITION_RESET", "FULL_RESET")

_held: Dict[int, int] = {}
"""By `id` of the executor."""


def ipuHardwareVersion() -> int:
    """2 for the IPUs that are emulated. Raises: AssertionError if there are none, or a model of an IPU takes their place."""
    there = 0 if os.environ.get("POPTORCH_IPU_MODEL", "0") == "1" else _ipus()
    assert there, "there is no IPU (requested by emulation)"
    return MK2


def acquire(holder: int, ipus: int) -> None:
    """Raises: Error if there aren't that many free IPUs; in a line more, as PopTorch's, if there never are."""
    if _failure() == "acquire" or ipus > _ipus() - sum(_held.values()):
        why = f"\nNo device found on the system with {ipus} IPUs: the configuration needs changing" * (ipus > _ipus())
        raise Error(f"Failed to acquire {ipus} IPU(s){why}", "poptorch_cpp_error")
    _held[holder] = ipus


def release(holder: int) -> None:
    _held.pop(holder, None)


def check_memory() -> None:
    """Called where a model is compiled."""
    if _failure() == "out_of_memory":
        # PopART passes Poplar's graph_memory_allocation_error on as an error of its own
        raise Error("Out of memory on tile 0 (requested by emulation)", "popart_exception")


def check_health(call: int) -> None:
    """Called at each call of a training model, counted from 1.

    Raises: RecoverableError, UnrecoverableError.
    """
    kind, _, number = _failure().partition("@")
    if not number or int(number) != call:
        return
    if kind == "unrecoverable":
        raise UnrecoverableError("an IPU failed (requested by emulation)")
    raise RecoverableError("an IPU failed (requested by emulation)", kind.partition(":")[2])


def _ipus() -> int:
    return int(os.environ.get("POPTORCH_EMULATED_IPUS", DEFAULT_IPUS))


def _failure() -> str:
    """Raises: ValueError if it is spelt wrong: a test must not pass because nothing failed."""
    asked = os.environ.get("POPTORCH_EMULATED_FAILURE", "")
    if not re.fullmatch(rf"|acquire|out_of_memory|(recoverable:({'|'.join(ACTIONS)})|unrecoverable)@[1-9]\d*", asked):
        raise ValueError(f"POPTORCH_EMULATED_FAILURE: {asked!r}; expected what {__name__} describes")
    return asked
