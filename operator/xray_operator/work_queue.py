"""Keys that want to be looked at: each at most once in the queue and with at most one worker at a time.

After client-go's workqueue (util/workqueue/queue.go): a key that is added while a worker has it comes again.
"""

from __future__ import annotations

import asyncio
from typing import Final

FIRST_RETRY_SECONDS: Final = 0.5
LAST_RETRY_SECONDS: Final = 60.0


class WorkQueue:
    """For one event loop."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()
        self._held: set[str] = set()
        self._failures: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether a worker has a key."""
        return bool(self._held)

    def add(self, key: str) -> None:
        """Look at this key soon."""
        if key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._held:
            self._ready.put_nowait(key)

    async def get(self) -> str:
        """The next key; the caller must give it back with done."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._held.add(key)
        return key

    def done(self, key: str) -> None:
        """The caller has finished with the key, well or not."""
        self._held.discard(key)
        if key in self._waiting:
            self._ready.put_nowait(key)

    def succeeded(self, key: str) -> None:
        """The next failure of this key is a first one."""
        self._failures.pop(key, None)

    def retry(self, key: str) -> float:
        """Look at the key again after a pause that doubles with each failure in a row; returns the pause."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        pause = min(FIRST_RETRY_SECONDS * 2.0 ** min(failures, 30), LAST_RETRY_SECONDS)
        asyncio.get_running_loop().call_later(pause, self.add, key)
        return pause
