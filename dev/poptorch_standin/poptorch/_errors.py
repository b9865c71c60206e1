"""What PopTorch raises."""

from __future__ import annotations


class Error(RuntimeError):
    """Attributes: message, type (which layer it came from) and location."""

    def __init__(self, message: str, kind: str = "poptorch_py_error") -> None:
        super().__init__(f"'{kind}': {message}")
        self.message = message
        self.type = kind
        self.location = ""


class RecoverableError(Error):
    """The hardware failed and works again after `recovery_action`: IPU_RESET, LINK_RESET, PARTITION_RESET or FULL_RESET."""

    def __init__(self, message: str, recovery_action: str) -> None:
        super().__init__(message, "poplar_recoverable_runtime_error")
        self.recovery_action = recovery_action


class UnrecoverableError(Error):
    """The hardware failed for good and has to be taken out of service."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "poplar_unrecoverable_runtime_error")
