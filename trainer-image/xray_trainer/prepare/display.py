"""What preparation tells whoever watches it on stderr: a bar on a terminal, else a line in the log now and then."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Callable, Optional, Protocol

from xray_trainer.progress import DataCounts

LOG = logging.getLogger(__name__)

LOG_SECONDS = 30.0
"""Between two lines. Short against the two hours of a whole set, long against what anybody wants to scroll through."""


class Display(Protocol):
    """Shows where preparation is."""

    def tell(self, counts: DataCounts, remaining_seconds: Optional[int]) -> None:
        """Show this, if it is time to."""

    def close(self) -> None:
        """Give the terminal back."""


def open_display(total_bytes: int, seconds: Callable[[], float]) -> Display:
    """The one that fits where stderr leads."""
    return Bar(total_bytes) if sys.stderr.isatty() else Lines(seconds)


class Lines:
    """A line in the log every LOG_SECONDS."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._told = seconds()

    def tell(self, counts: DataCounts, remaining_seconds: Optional[int]) -> None:
        now = self._seconds()
        if now - self._told >= LOG_SECONDS:
            self._told = now
            LOG.info("preparing: %s", describe(counts, remaining_seconds))

    def close(self) -> None:
        """A log has no end."""


class Bar:
    """By bytes, whose total is known; the images stand behind it."""

    def __init__(self, total_bytes: int) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]  # tqdm ships no types
        from tqdm.contrib.logging import logging_redirect_tqdm  # type: ignore[import-untyped]

        self._open = contextlib.ExitStack()
        self._open.enter_context(logging_redirect_tqdm())
        self._bar = self._open.enter_context(tqdm(total=total_bytes, unit="B", unit_scale=True, desc="preparing"))

    def tell(self, counts: DataCounts, remaining_seconds: Optional[int]) -> None:  # noqa: ARG002 (the bar has its own)
        bar, known = self._bar, (describe_images(counts), describe_rate(counts))
        bar.total = counts.total_bytes
        bar.set_description_str(describe_archive(counts) or "preparing", refresh=False)
        bar.set_postfix_str(", ".join(part for part in known if part), refresh=False)
        bar.update(counts.bytes_read - bar.n)

    def close(self) -> None:
        self._open.close()


def describe(counts: DataCounts, remaining_seconds: Optional[int]) -> str:
    """`archive 3 of 12, 21,034 of about 112,120 images, 8.1 of 42.0 GB, 94 images/s, 16 min left`, as far as it is known."""
    left = None if remaining_seconds is None else f"{describe_seconds(remaining_seconds)} left"
    size = describe_bytes(counts.bytes_read, counts.total_bytes)
    told = [describe_archive(counts), describe_images(counts), size, describe_rate(counts), left]
    return ", ".join(part for part in told if part)


def describe_archive(counts: DataCounts) -> Optional[str]:
    """The one that is read, if there are any."""
    reading = min(counts.archives_done + 1, counts.archives)
    return f"archive {reading} of {counts.archives}" if counts.archives else None


def describe_images(counts: DataCounts) -> str:
    return f"{counts.images:,} of about {counts.expected_images:,} images"


def describe_rate(counts: DataCounts) -> Optional[str]:
    rate = counts.images_per_second
    return None if rate is None else f"{rate:.3g} images/s" if rate < 10 else f"{rate:.0f} images/s"


def describe_bytes(done: int, total: int) -> str:
    """Both in the unit of the whole."""
    unit, size = ("GB", 1e9) if total >= 1e9 else ("MB", 1e6)
    return f"{done / size:.1f} of {total / size:.1f} {unit}"


def describe_seconds(seconds: int) -> str:
    """In the two largest units at most: nobody plans by the seconds of an hour."""
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
