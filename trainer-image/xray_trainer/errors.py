"""Errors that end a container, each with the exit code and reason that the operator acts on.

    TrainerError
    ├── ConfigurationError   10  the run file is wrong: the same run can't succeed
    ├── DataError            11  the data are wrong or damaged
    │   └── MemberError          and one file of theirs tells it
    ├── DivergedError        12  the loss is no longer a number
    ├── DiskFullError        13  a volume has too little room
    ├── OutOfMemoryError     15  the accelerator's or the host's memory doesn't hold the run
    ├── LimitReachedError    16  the time is over and nobody else keeps it; a checkpoint was saved
    ├── TransportError       20  something could not be fetched: worth another try
    ├── AcceleratorError     21  the accelerator that the pod should hold is not there: worth another try
    └── StoppedError        143  SIGTERM from outside: the run goes on from its checkpoint

Messages name the place, the value and what was expected. They never hold a file name of an image or a patient's
number: they go to logs, events and status.
"""

from __future__ import annotations

from typing import ClassVar


class TrainerError(Exception):
    """Base of all errors that this package raises on purpose."""

    exit_code: ClassVar[int] = 1
    reason: ClassVar[str] = "Unexpected"


class ConfigurationError(TrainerError):
    exit_code = 10
    reason = "ConfigurationInvalid"


class DataError(TrainerError):
    exit_code = 11
    reason = "DataCorrupt"


class MemberError(DataError):
    """A file of a source that ends the preparation. `path` is for the list on the data's own volume, never for a message."""

    def __init__(self, place: str, ordinal: int, path: str, problem: str) -> None:
        super().__init__(f"{place}: member {ordinal}: {problem}")
        self.place = place
        self.ordinal = ordinal
        self.path = path
        self.problem = problem


class DivergedError(TrainerError):
    exit_code = 12
    reason = "Diverged"


class DiskFullError(TrainerError):
    exit_code = 13
    reason = "DiskFull"


class OutOfMemoryError(TrainerError):
    exit_code = 15
    reason = "OutOfMemory"


class LimitReachedError(TrainerError):
    exit_code = 16
    reason = "LimitReached"


class TransportError(TrainerError):
    exit_code = 20
    reason = "TransportFailed"


class AcceleratorError(TrainerError):
    exit_code = 21
    reason = "AcceleratorNotAcquired"


class StoppedError(TrainerError):
    exit_code = 143
    reason = "Stopped"
