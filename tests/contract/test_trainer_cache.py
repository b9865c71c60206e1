"""The cache is the same to `datasets` 5, to `datasets` 3.1 on Python 3.8 and to our own reader, whichever side wrote it.

Python 3.8 is what the IPU's libraries need. Its packages are those of tests/python38/requirements.txt.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from datasets import __version__  # type: ignore[import-untyped]  # datasets ships no types

from tests.python38.both_ways import read
from tests.unit.trainer.build import TRAINER, make_run_file, write_data_set
from xray_trainer.dataset import open_part
from xray_trainer.findings import NIH_FINDINGS
from xray_trainer.prepare.cache import Manifest, read_manifest
from xray_trainer.prepare.columns import Subject, make_schema
from xray_trainer.prepare.run import prepare
from xray_trainer.prepare.split import PARTS
from xray_trainer.progress import Progress

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "tests" / "python38"
PAGE = (REPOSITORY / "docs" / "data.md").read_text().split("\n## The cache\n", 1)[1].split("\n## ", 1)[0]
FILMS = (1, 2, 3, 1, 4, 2, 1, 3, 2, 1)
STORED_SIZE, IMAGES_PER_FILE = 256, 6
COLUMNS = [
    "image",
    *(f"finding_{finding}" for finding in NIH_FINDINGS),
    "ordinal",
    "patient",
    "split",
    *Subject._fields,
]
NEEDED_THERE = {
    *("checkpoints", "config", "dataset", "errors", "files", "findings", "finished", "interruption", "metrics"),
    *("grace", "model", "progress", "report.write", "resources", "result", "train", "backends.callbacks"),
    *("evaluation.article", "evaluation.cached", "evaluation.document", "evaluation.figures", "evaluation.floors"),
    *(
        "evaluation.predictions",
        "evaluation.resampling",
        "evaluation.rounding",
        "evaluation.subgroups",
        "evaluation.table",
    ),
    *("prepare.cache", "prepare.columns", "prepare.shards", "prepare.staging"),
}
"""Of xray_trainer, to train there on what others have prepared."""


class There(NamedTuple):
    """What Python 3.8 makes of a cache."""

    written: Path
    """The same cache from our writer there."""
    datasets: str
    rows: list[dict[str, Any]]
    lacking: dict[str, str | None]
    """Each of our modules, and the package for want of which it can't be imported there."""


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """Returns: stdout."""
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of this side, in several files."""
    folder = tmp_path_factory.mktemp("prepared")
    write_data_set(folder / "nih", FILMS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("xray_trainer.prepare.shards.SHARD_BYTES", IMAGES_PER_FILE * STORED_SIZE**2)
        prepare(make_run_file(folder, dataset={"stored_size": STORED_SIZE}), Progress("Preparing"))
    return Path(json.loads((folder / "out" / "prepared.json").read_text())["cache"])


@pytest.fixture(scope="module")
def there(prepared: Path, python38: Path, tmp_path_factory: pytest.TempPathFactory) -> There:
    written = tmp_path_factory.mktemp("there") / "cache"
    answer = run(python38, FOLDER / "both_ways.py", prepared, written, PYTHONPATH=str(TRAINER))
    return There(written, **json.loads(answer))


def rows_of_ours(cache: Path) -> list[tuple[str, list[int]]]:
    """Pixels in hex and labels of each image, as training sees them uncropped."""
    manifest = read_manifest(cache)
    parts = [open_part(cache, manifest, part, STORED_SIZE) for part in PARTS]
    items = [part[index] for part in parts for index in range(len(part))]
    return [(item["pixel_values"].numpy().tobytes().hex(), item["labels"].int().tolist()) for item in items]


def test_python_3_8_reads_what_this_side_prepared(prepared: Path, there: There) -> None:
    assert (there.datasets[:4], __version__[:2]) == ("3.1.", "5.")
    assert there.rows == read(prepared)
    assert list(there.rows[0]) == COLUMNS
    assert sorted(row["ordinal"] for row in there.rows) == list(range(sum(FILMS)))
    assert rows_of_ours(prepared) == [
        (row["image"], [row[f"finding_{finding}"] for finding in NIH_FINDINGS]) for row in there.rows
    ]


def test_this_side_reads_what_python_3_8_wrote(prepared: Path, there: There) -> None:
    assert read(there.written) == read(prepared)
    assert rows_of_ours(there.written) == rows_of_ours(prepared)


def test_python_3_8_has_all_modules_but_those_that_need_what_is_not_there(there: There) -> None:
    found = {name.partition(".")[2] for name, package in there.lacking.items() if package is None}
    assert found >= NEEDED_THERE
    assert "xray_trainer" not in {(package or "").partition(".")[0] for package in there.lacking.values()}


def test_every_module_has_the_syntax_of_python_3_8(python38: Path) -> None:
    run(python38, "-m", "compileall", "-q", "-f", TRAINER / "xray_trainer")


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_what_the_page_says_of_reading_holds_for_both(block: str, prepared: Path, python38: Path) -> None:
    before = sorted(prepared.iterdir())
    here, there = (run(python, "-c", block, cwd=prepared) for python in (sys.executable, python38))
    assert here == there
    manifest = read_manifest(prepared)
    train = manifest.parts["train"]
    assert here in (
        f"{train.positives['Effusion']} of {train.images} training images show an effusion; the first is (256, 256)\n",
        f"{manifest.patients} patients, {max(FILMS)} images at most\n",
    )
    assert sorted(prepared.iterdir()) == before


def test_the_page_names_what_is_in_the_folder(prepared: Path) -> None:
    tables = [table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE)]
    files, columns, fields = ([line.split("|")[1:3] for line in table[2:]] for table in tables)
    assert {re.sub(r"\w+-\d+", "PART-NUMBER", path.name) for path in prepared.iterdir()} == words(files)
    schema = make_schema(["NAME"])
    assert [(name.strip(" `"), kind.strip(" `")) for name, kind in columns] == [(f.name, str(f.type)) for f in schema]
    assert words(fields) == set(Manifest.model_fields)


def words(rows: list[list[str]]) -> set[str]:
    """In code style in the first cells."""
    return {word for first, *_ in rows for word in re.findall(r"`([^`]+)`", first)}
