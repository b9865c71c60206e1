"""How far the watch is behind our own writes, and when the API server last answered. Tells deaf from idle.

The watch may show a write before the write's own answer has arrived, so both sides are remembered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

CHILD_SECONDS: Final = 5.0
"""Longest wait for a Job that we made to appear in the watch; usually milliseconds."""


@dataclass
class Freshness:
    """Keys are uids of jobs. Moments are seconds of one monotonic clock, given by the caller."""

    heard_at: float
    """When a LIST last succeeded; at first, when the process started."""
    _seen: dict[str, int] = field(default_factory=dict)
    _unseen: dict[str, tuple[int, float]] = field(default_factory=dict)
    _children: set[str] = field(default_factory=set)
    _unseen_children: dict[str, float] = field(default_factory=dict)

    def heard(self, moment: float) -> None:
        """A LIST has succeeded."""
        self.heard_at = moment

    def wrote(self, key: str, resource_version: str, moment: float) -> None:
        """We wrote this version; until the watch shows it or a later one, what we hold is stale."""
        if int(resource_version) > self._seen.get(key, 0):
            self._unseen[key] = (int(resource_version), moment)

    def saw(self, key: str, resource_version: str) -> None:
        """The watch has shown this version (versions grow: KEP-5504)."""
        self._seen[key] = int(resource_version)
        if self._seen[key] >= self._unseen.get(key, (0, 0.0))[0]:
            self._unseen.pop(key, None)

    def made_child(self, key: str, moment: float) -> None:
        """We made the Job of this key."""
        if key not in self._children:
            self._unseen_children[key] = moment

    def saw_child(self, key: str, *, gone: bool = False) -> None:
        """The watch has shown a Job of this key, or its end."""
        self._unseen_children.pop(key, None)
        if gone:
            self._children.discard(key)
        else:
            self._children.add(key)

    def gone(self, key: str) -> None:
        """The watch has shown the end of the object itself."""
        self._seen.pop(key, None)
        self._unseen.pop(key, None)
        self._unseen_children.pop(key, None)

    def is_stale(self, key: str, moment: float) -> bool:
        """Whether something that we wrote has not come back yet.

        A Job may never come back, if somebody took its label off: after a while the key is looked at anyway.
        """
        waiting = moment - self._unseen_children.get(key, -CHILD_SECONDS) < CHILD_SECONDS
        return key in self._unseen or waiting

    def silent_seconds(self, moment: float) -> float:
        """The longest that anything has been missing: an answer to LIST, or a write of ours in the watch."""
        since = min([self.heard_at, *(written for _, written in self._unseen.values())])
        return moment - since
