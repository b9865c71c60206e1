"""How far preparation is: counted for `/progress` and `/metrics`, and told on stderr, see `display`."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Callable, Optional, Type

from xray_trainer.prepare.display import Display, open_display
from xray_trainer.progress import DataCounts, Progress


@dataclass
class Meter:
    """Turns bytes read, images done and archives finished into progress, while it is entered.

    The rate and the time left are those since the reading began, or since `on_found`: a preparation is steady, and a
    shorter stretch would jump from archive to archive.
    """

    progress: Progress
    total_bytes: int
    expected_images: int
    archives: int
    seconds: Callable[[], float]
    """A clock that nobody sets."""

    def __post_init__(self) -> None:
        self._bytes_read = self._images = self._archives_done = 0
        self._found_bytes = self._found_images = 0
        self._began = self.seconds()

    def __enter__(self) -> Meter:
        self._display: Display = open_display(self.total_bytes, self.seconds)
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.progress.lives()  # so that the last count is told
        self._display.close()

    def on_bytes(self, count: int) -> None:
        """So many more bytes of the source were read."""
        self._bytes_read += count

    def on_image(self, images: int, rejected: int) -> None:
        """So many images are done, and so many files left out, in all."""
        self._images = images
        counts, remaining = self._counts(), self._remaining_seconds()
        self.progress.count_data(
            counts, remaining, images_prepared=images, images_rejected=rejected, source_bytes_read=self._bytes_read
        )
        self._display.tell(counts, remaining)

    def on_archive(self, done: int) -> None:
        """So many archives are read to their end."""
        self._archives_done = done

    def on_found(self, images: int) -> None:
        """All that was read up to here had been done by an earlier attempt, so many images: it tells nothing of speed."""
        self._images = self._found_images = images
        self._found_bytes = self._bytes_read
        self._began = self.seconds()

    def _counts(self) -> DataCounts:
        elapsed, images = self.seconds() - self._began, self._images - self._found_images
        return DataCounts(
            archives_done=self._archives_done,
            archives=self.archives,
            images=self._images,
            expected_images=max(self._images, self.expected_images),
            bytes_read=self._bytes_read,
            total_bytes=max(self._bytes_read, self.total_bytes),
            images_per_second=images / elapsed if elapsed > 0 else None,
        )

    def _remaining_seconds(self) -> Optional[int]:
        """By the bytes, whose total is known; None before there is a rate."""
        done = self._bytes_read - self._found_bytes
        if done <= 0:
            return None
        left = max(0, self.total_bytes - self._bytes_read)
        return round((self.seconds() - self._began) * left / done)
