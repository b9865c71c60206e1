"""The doctor on the 112,120 lines of ChestX-ray14's labels file: seconds until counts, splits and overlaps are known, and for
floors and picture.

The file is that of the package torchxrayvision. NIH's two lists aren't in it: lists of the same sizes stand in for them,
cut by patient. `make bench` runs it; build/bench/doctor.json has the figures.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.unit.trainer.build import LABELS_FILE, NIH_COLUMNS
from tests.unit.trainer.nih_metadata import write_nih_labels
from xray_trainer.config import Split
from xray_trainer.doctor.document import make_document
from xray_trainer.doctor.examine import count, measure
from xray_trainer.doctor.picture import make_picture
from xray_trainer.doctor.text import make_text
from xray_trainer.findings import NIH_FINDINGS
from xray_trainer.prepare.labels import read_labels
from xray_trainer.prepare.official import TEST_LIST, TRAIN_VAL_LIST
from xray_trainer.prepare.split import split_images

REPOSITORY: Final = Path(__file__).parents[1]
RESULT: Final = REPOSITORY / "build" / "bench" / "doctor.json"
RUNS: Final = 5
SEED: Final = 42
OFFICIAL_TEST_SHARE: Final = 25_596 / 112_120
MOST_SECONDS: Final[Mapping[str, float]] = {"counts": 3, "floors": 15}


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        write_nih_labels(Path(folder))
        write_lists(Path(folder))
        runs = [time_once(Path(folder) / LABELS_FILE) for _ in range(RUNS)]
    figures: dict[str, Any] = {"python": sys.version.split()[0], "runs": RUNS}
    for phase, most in MOST_SECONDS.items():
        seconds = sorted(run[phase] for run in runs)
        figures[phase] = {
            "medianSeconds": round(statistics.median(seconds), 2),
            "leastSeconds": round(seconds[0], 2),
            "mostSeconds": round(seconds[-1], 2),
            "mostAllowed": most,
        }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    return int(any(figures[phase]["medianSeconds"] > most for phase, most in MOST_SECONDS.items()))


def write_lists(folder: Path) -> None:
    rows = read_labels(folder / LABELS_FILE, NIH_COLUMNS, NIH_FINDINGS).rows
    share = OFFICIAL_TEST_SHARE
    parts = split_images(rows, Split(by="Patient", seed=0, train=0.9 - share, validation=0.1, test=share))
    for name, in_test in ((TEST_LIST, True), (TRAIN_VAL_LIST, False)):
        (folder / name).write_text("".join(f"{image}\n" for image in rows if (parts[image] == "test") == in_test))


def time_once(path: Path) -> dict[str, float]:
    begin = time.perf_counter()
    counted = count(path, NIH_COLUMNS, NIH_FINDINGS, SEED)
    counts = time.perf_counter()
    document = make_document(measure(counted))
    make_text(document)
    make_picture(document)
    return {"counts": counts - begin, "floors": time.perf_counter() - counts}


if __name__ == "__main__":
    sys.exit(main())
