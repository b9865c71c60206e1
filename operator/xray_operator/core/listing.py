"""Whether the watches have missed something: what a LIST says, held against what the watches have shown.

kopf lists anew when a watch is too old (410) and tells nobody of what vanished meanwhile; a proxy may swallow an event.
Either way the index would be wrong for ever, and a run would wait for a pod that is gone. Called by the resync.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Listing:
    """All objects of a kind at one moment, by uid, each with its resourceVersion (versions grow: KEP-5504)."""

    version: int
    objects: Mapping[str, int]


def missed_events(before: Listing, after: Listing, shown: Mapping[str, int]) -> Iterator[str]:
    """What the watch should have shown long since.

    Args:
        before: a LIST so long ago that the watch must have caught up with it.
        after: a LIST of now.
        shown: what the watch has shown by now, by uid.

    Returns: a sentence for each object.
    """
    for uid, version in before.objects.items():
        if uid in after.objects and shown.get(uid, 0) < version:
            yield f"version {version} of {uid} was not shown"
    for uid, version in shown.items():
        if uid not in before.objects and version <= before.version:
            yield f"the end of {uid} was not shown"
