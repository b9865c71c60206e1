"""A Prometheus of this machine's own whose past is given: for the pictures and for tests of queries."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.samples import Sample

from dev.cluster.state import ClusterError
from dev.cluster.tools import run
from dev.prometheus import running_server

BETWEEN_SCRAPES = "59s"
"""How long a sample counts: until the next one. What has ended has no mark of it in a past that was written afterwards."""


@dataclass(frozen=True)
class Series:
    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]
    """(Unix time, value)."""


@dataclass(frozen=True)
class History:
    url: str

    def between(self, promql: str, begin: float, end: float, step: float) -> list[Series]:
        """The answer at each step."""
        asked = {"query": promql, "start": str(begin), "end": str(end), "step": str(step)}
        return [_series(each["metric"], each["values"]) for each in self._get("query_range", asked)]

    def at(self, promql: str, moment: float) -> list[Series]:
        """The answer at one moment, in its own order."""
        found = self._get("query", {"query": promql, "time": str(moment)})
        return [_series(each["metric"], [each["value"]]) for each in found]

    def _get(self, what: str, query: dict[str, str]) -> Any:
        try:
            with urllib.request.urlopen(
                f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(query)}", timeout=60
            ) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise ClusterError(f"{query['query']}: {error.read().decode()}") from error


def _series(labels: dict[str, str], values: Iterable[tuple[float, str]]) -> Series:
    return Series(labels, tuple((float(when), float(value)) for when, value in values))


@contextlib.contextmanager
def recorded(samples: Iterable[tuple[Sample, float]], folder: Path, programs: Path) -> Iterator[History]:
    """A server that has seen these samples, each at its Unix time; it ends with the block.

    Args:
        folder: for its data and its log.
        programs: the folder with prometheus and promtool.
    """
    page, data = folder / "samples.txt", folder / "data"
    page.write_text("".join(f"{_line(sample)} {when:.0f}\n" for sample, when in samples) + "# EOF\n")
    run(programs / "promtool", "tsdb", "create-blocks-from", "openmetrics", page, data)
    keep = ("--storage.tsdb.retention.time=100y", f"--query.lookback-delta={BETWEEN_SCRAPES}")
    with running_server({}, folder, programs, *keep) as url:
        yield History(url)


def _line(sample: Sample) -> str:
    labels = ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in sample.labels.items())
    return f"{sample.name}{{{labels}}} {sample.value}"
