"""Objects as they change, for as long as somebody looks: LIST, then WATCH, over dropped connections and a past that is gone."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from xray_cli.connection import JSON, TABLE, Connection
from xray_cli.errors import CommandError, NoConnection, ServerError

Raw = dict[str, Any]

GONE: Final = 410
BUSY: Final = (429, 500, 502, 503, 504)
LONGEST_PAUSE_SECONDS: Final = 10.0
SHORTEST_WATCH_SECONDS: Final = 1.0
"""One that has ended sooner, without a word, is no reason to ask at once again."""


@dataclass(frozen=True)
class Change:
    """One object is there, or is no more.

    `item` is the object, or a row of the server's table with the object's metadata.
    """

    item: Raw
    deleted: bool = False


@dataclass
class Following:
    """What has been seen of a list.

    Args:
        path: of the list.
        query: which of its objects.
        table: rows of the server's table in place of objects.
    """

    connection: Connection
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    table: bool = False
    _version: str = ""
    """Of the list, up to which all changes have been seen; empty: list it anew."""
    _seen: dict[str, Raw] = field(default_factory=dict)
    _failures: int = 0

    def changes(self) -> Iterator[list[Change]]:
        """What is there, all at once, and then every change, without end.

        Raises: CommandError if the first answer is a refusal or doesn't come, or a later one is a refusal for good.
        """
        yield self._list()
        while True:
            try:
                if not self._version:
                    yield self._list()
                for change in self._watch():
                    yield [change]
            except NoConnection as error:
                self._pause(error)
            except ServerError as error:
                if error.status == GONE:
                    self._version = ""
                elif error.status in BUSY:
                    self._pause(error)
                else:
                    raise

    def _list(self) -> list[Change]:
        pages = self.connection.pages(self.path, self.query, self._accept)
        found = {self._uid(item): item for page in pages for item in page["rows" if self.table else "items"] or ()}
        former, self._seen = self._seen, found
        self._version = pages[0]["metadata"]["resourceVersion"]
        self._failures = 0
        gone = [Change(item, deleted=True) for uid, item in former.items() if uid not in found]
        return gone + [Change(item) for uid, item in found.items() if _version(former.get(uid)) != _version(item)]

    def _watch(self) -> Iterator[Change]:
        begin, told = time.monotonic(), False
        for event in self.connection.watch(self.path, {**self.query, "resourceVersion": self._version}, self._accept):
            self._failures, told = 0, True
            if event["type"] == "ERROR":
                raise ServerError(int(event["object"].get("code", 500)), event["object"])
            item = self._item(event["object"])
            self._version = _metadata(item)["resourceVersion"]
            if event["type"] != "BOOKMARK":
                yield self._note(item, deleted=event["type"] == "DELETED")
        if not told and time.monotonic() - begin < SHORTEST_WATCH_SECONDS:
            raise NoConnection("The connection to the server was lost: a watch ended as soon as it had begun")

    def _note(self, item: Raw, *, deleted: bool) -> Change:
        if deleted:
            self._seen.pop(self._uid(item), None)
        else:
            self._seen[self._uid(item)] = item
        return Change(item, deleted)

    def _item(self, event_object: Raw) -> Raw:
        row: Raw = event_object["rows"][0] if self.table else event_object
        return row

    @staticmethod
    def _uid(item: Raw) -> str:
        return str(_metadata(item)["uid"])

    @property
    def _accept(self) -> str:
        return TABLE if self.table else JSON

    def _pause(self, error: CommandError) -> None:
        """Longer each time; what is wrong is told once."""
        self._failures += 1
        if self._failures == 1:
            print(f"Warning: {error.line}; trying again", file=sys.stderr)
        time.sleep(min(0.5 * 2 ** (self._failures - 1), LONGEST_PAUSE_SECONDS))


def _metadata(item: Raw) -> Raw:
    metadata: Raw = (item["object"] if "cells" in item else item)["metadata"]
    return metadata


def _version(item: Raw | None) -> str | None:
    return None if item is None else str(_metadata(item)["resourceVersion"])
