"""Our own exceptions.

XRayOperatorError
├── ConfigError        the operator can't be run as it is configured: the process ends
├── DocumentError      a text is not the YAML or JSON that it should be
├── RecordError        what was fixed at a run's start can't be read
├── MissedEvent        the watches have not shown all that happened: the process ends, and lists everything anew
└── ClusterError       the API server refused
    ├── Conflict       someone wrote first: look again
    ├── AlreadyExists  the name is taken: look whose it is
    ├── NotFound
    └── Refused        quota, admission, rights or rules are against it, for now
"""

from __future__ import annotations


class XRayOperatorError(Exception):
    """Base of everything that this package raises itself."""


class ConfigError(XRayOperatorError):
    """The configuration is missing or wrong; the message names the place and the value."""


class DocumentError(XRayOperatorError):
    """A text can't be read as YAML or JSON; the message, of one line, names the place."""


class RecordError(XRayOperatorError):
    """The snapshot in a ConfigMap of ours can't be read, or was replaced."""


class MissedEvent(XRayOperatorError):
    """What the watches have shown is not what is there."""


class ClusterError(XRayOperatorError):
    """The API server answered with an error, or not at all (status 0)."""

    def __init__(self, what: str, status: int, reason: str) -> None:
        super().__init__(f"{what}: {status} {reason}")
        self.status = status
        self.reason = reason
        """The server's own words."""


class Conflict(ClusterError):
    """409 on an update: our copy is older than the server's."""


class AlreadyExists(ClusterError):
    """409 on a creation."""


class NotFound(ClusterError):
    """404."""


class Refused(ClusterError):
    """403 or 422."""
