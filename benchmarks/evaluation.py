"""The evaluation of a model's predictions for as many images as NIH's official test part has: the intervals alone, all of
evaluation.json, and predictions.csv.

Patients, labels, ages and views are those of ChestX-ray14's labels file, as the package torchxrayvision has it; NIH's own
list isn't in it: a part of the same size, cut by patient, stands in for it. The predictions are random, and right more often
than not. `make bench` runs it; build/bench/evaluation.json has the figures.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from tests.unit.trainer.build import NIH_COLUMNS
from tests.unit.trainer.nih_metadata import write_nih_labels
from xray_trainer.config import Split
from xray_trainer.doctor.table import make_table
from xray_trainer.evaluation.document import SEED, Parts, evaluate
from xray_trainer.evaluation.predictions import Predictions, write_predictions
from xray_trainer.evaluation.resampling import RESAMPLES, draw_patients, resample_aurocs
from xray_trainer.findings import NIH_FINDINGS
from xray_trainer.prepare.labels import read_labels
from xray_trainer.prepare.split import split_images

REPOSITORY: Final = Path(__file__).parents[1]
RESULT: Final = REPOSITORY / "build" / "bench" / "evaluation.json"
RUNS: Final = 5
TEST_IMAGES: Final = 25_596
"""Lines of NIH's test_list.txt."""
ALL_IMAGES: Final = 112_120
MOST_SECONDS: Final = {"intervals": 3.0, "evaluation": 6.0}
"""Of the ten that the whole report may take."""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        parts, held_out, validation = draw(Path(folder))
        runs = [measure_once(parts, held_out, validation, Path(folder)) for _ in range(RUNS)]
    figures: dict[str, Any] = {}
    for name in runs[0]:
        seconds, cpu_seconds = (sorted(run[name][clock] for run in runs) for clock in (0, 1))
        figures[name] = {
            "medianSeconds": round(statistics.median(seconds), 2),
            "medianCpuSeconds": round(statistics.median(cpu_seconds), 2),
            "leastSeconds": round(seconds[0], 2),
            "mostSeconds": round(seconds[-1], 2),
        }
    for name, most in MOST_SECONDS.items():
        figures[name]["mostAllowed"] = most
    document = {
        "images": len(held_out.labels),
        "patients": len(np.unique(parts.table.patients[parts.test])),
        "findings": len(held_out.findings),
        "resamples": RESAMPLES,
        "runs": RUNS,
        "missed": [name for name, most in MOST_SECONDS.items() if figures[name]["medianSeconds"] > most],
        **figures,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document, indent=2))
    return int(bool(document["missed"]))


def draw(folder: Path) -> tuple[Parts, Predictions, Predictions]:
    """The parts of a split by patient, and predictions for test and validation."""
    rows = read_labels(write_nih_labels(folder), NIH_COLUMNS, NIH_FINDINGS).rows
    test = TEST_IMAGES / ALL_IMAGES
    part_of = split_images(rows, Split(by="Patient", seed=0, train=0.9 - test, validation=0.1, test=test))
    part = np.array([part_of[image] for image in rows])
    table = make_table(rows, NIH_FINDINGS).with_findings(range(len(NIH_FINDINGS)))
    noise = np.random.default_rng(0).normal(size=table.labels.shape)
    logits = (1.5 * noise + 2 * table.labels - 3).astype(np.float32)
    held_out, validation = (
        Predictions(NIH_FINDINGS, logits[part == name], table.labels[part == name]) for name in ("test", "validation")
    )
    return Parts(table, part == "train", part == "test"), held_out, validation


def measure_once(
    parts: Parts, held_out: Predictions, validation: Predictions, folder: Path
) -> dict[str, tuple[float, float]]:
    patients = np.unique(parts.table.patients[parts.test], return_inverse=True)[1]
    scores, ordinals = held_out.scores, np.flatnonzero(parts.test)

    def intervals() -> None:
        weights = draw_patients(int(patients.max()) + 1, RESAMPLES, SEED)
        resample_aurocs(scores, held_out.labels, patients, weights)

    return {
        "intervals": clocked(intervals),
        "evaluation": clocked(lambda: evaluate(held_out, validation, parts)),
        "predictions": clocked(lambda: write_predictions(folder / "predictions.csv", held_out, ordinals)),
    }


def clocked(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor: they differ where the machine does other work."""
    begin = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begin[0], time.process_time() - begin[1]


if __name__ == "__main__":
    sys.exit(main())
