"""Generated X-rays, rendered while they are read: for trying things out without a data set."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence

from xray_trainer import __version__
from xray_trainer.config import LabelsFile, Synthetic
from xray_trainer.prepare.archive import Bundle, Member, OnBytes
from xray_trainer.resources import available_cores
from xray_trainer.synthetic.film import render_png
from xray_trainer.synthetic.plan import Film, make_plan
from xray_trainer.synthetic.write import CHUNK, write_labels

PLACE = "generated"
BYTES_PER_PIXEL = 0.36
"""About, of the PNG files: 375 kB at 1024 x 1024."""


@dataclass(frozen=True)
class Generated:
    """Films that are planned, and made when they are wanted."""

    tables: Path
    settings: Synthetic
    films: List[Film]
    archives: int = 0

    def identity(self) -> List[Any]:
        return [PLACE, self.settings.model_dump(), __version__]

    def describe(self) -> List[Dict[str, Any]]:
        return [{"name": PLACE, **self.settings.model_dump()}]

    def total_bytes(self) -> int:
        return round(len(self.films) * self.settings.size**2 * BYTES_PER_PIXEL)

    def estimate(self, label_rows: int) -> int:
        return label_rows

    is_archive = False

    def bundles(self) -> Sequence[Bundle]:
        return [self]

    def read(self, on_bytes: OnBytes, after: int = 0) -> Iterator[Member]:
        films = self.films[after:]
        with multiprocessing.get_context("spawn").Pool(available_cores()) as pool:
            pngs = pool.imap(partial(render_png, size=self.settings.size), films, chunksize=CHUNK)
            for ordinal, (film, png) in enumerate(zip(films, pngs), start=after + 1):
                on_bytes(len(png))
                yield Member(PLACE, ordinal, film.name, png)


def open_generated(settings: Synthetic, labels: LabelsFile, folder: Path) -> Generated:
    """Plan the films and write their labels, under the name that the run gives that file, into `folder`."""
    films = make_plan(settings.images, settings.seed)
    write_labels(folder / labels.file, films, settings.size)
    return Generated(folder, settings, films)
