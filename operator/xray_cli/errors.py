"""What a user reads in place of a traceback, in the words of kubectl.

CommandError         what was asked can't be done; `error: ` stands before it
├── ServerError      the API server refused: Error from server (NotFound): ...
└── NoConnection     there was no answer
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from xray_operator.names import GROUP, short


class CommandError(Exception):
    """Ends the process with exit code 1 and this message."""

    @property
    def line(self) -> str:
        """As it is printed."""
        return f"error: {self}"


class NoConnection(CommandError):
    """No answer from the API server; the message is kubectl's whole sentence."""

    @property
    def line(self) -> str:
        return str(self)


class ServerError(CommandError):
    """A refusal of the API server.

    Args:
        status: HTTP status.
        answer: the `Status` object that came with it; empty if there was none.
        text: what came instead.
    """

    def __init__(self, status: int, answer: Mapping[str, Any], text: str = "") -> None:
        super().__init__(str(answer.get("message", "")) or short(text, 256) or f"HTTP status {status}")
        self.status = status
        self.reason = str(answer.get("reason", ""))
        self.answer = answer
        self._doing = ""

    def while_creating(self, file: str) -> ServerError:
        """The same, with the file that asked for it."""
        if file:
            self._doing = f'error when creating "{file}": '
        return self

    @property
    def line(self) -> str:
        if self.status == 401:
            return f"error: You must be logged in to the server ({self.reason or 'Unauthorized'})"
        if self.reason == "Invalid":
            return _invalid(self.answer.get("details", {}))
        told = f"{self._doing}{self}"
        return f"Error from server ({self.reason}): {told}" if self.reason else f"Error from server: {told}"


def read_refusal(status: int, path: str, body: bytes) -> CommandError:
    """What an HTTP status from 300 on means. Of a resource that it doesn't know, the API server speaks plain text."""
    text = body.decode(errors="replace")
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and answer.get("kind") == "Status":
        return ServerError(status, answer)
    if status == 404 and path.startswith(f"/apis/{GROUP}/"):
        told = f"the server doesn't have the resources of {GROUP}: xray-operator is not installed there"
        return CommandError(f"{told} (see `kubectl xray doctor`)")
    return ServerError(status, {}, text)


def _invalid(details: Mapping[str, Any]) -> str:
    what = f"The {details['kind']} {json.dumps(details.get('name', ''))}" if details.get("kind") else "The request"
    causes = [
        ": ".join(filter(None, (cause.get("field"), cause.get("message")))) for cause in details.get("causes", ())
    ]
    if len(causes) == 1:
        return f"{what} is invalid: {causes[0]}"
    return "\n".join([f"{what} is invalid:", *(f"* {cause}" for cause in causes)])
