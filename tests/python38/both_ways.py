"""The cache in front of whatever Python and `datasets` run this: what they read of it, and what our writer makes there.

    python both_ways.py FROM TO    # TO becomes the same cache; answers as JSON what was read of FROM, and with what

Python 3.8 runs it too.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]  # datasets ships no types
import numpy as np

import xray_trainer
from xray_trainer.files import write_json
from xray_trainer.prepare.cache import MANIFEST, check_files, content_digest, publish, read_manifest
from xray_trainer.prepare.columns import Subject, finding_column
from xray_trainer.prepare.shards import Rows, write_shards
from xray_trainer.prepare.split import PARTS
from xray_trainer.prepare.staging import Shard, StagedImages, Staging


def read(folder: Path) -> list[dict[str, Any]]:
    """The rows by `datasets`, images in hex, of a cache whose manifest and digests are right."""
    manifest = read_manifest(folder)
    check_files(folder, manifest, sample_seed=None)
    files = [datasets.Dataset.from_file(str(folder / file.name)) for file in manifest.files]
    return [{**row, "image": row["image"].hex()} for row in datasets.concatenate_datasets(files)]


def write(source: Path, target: Path) -> None:
    """The same cache again, by our own writer and the pyarrow that is here."""
    manifest, rows = read_manifest(source), sorted(read(source), key=lambda row: row["ordinal"])
    findings = manifest.settings["findings"]
    staging = Staging(target.parent, manifest.key, manifest.settings["stored_size"])
    pixels = np.stack([np.frombuffer(bytes.fromhex(row["image"]), dtype=np.uint8) for row in rows])
    place = (0, 0)
    staging.write(
        place, Shard(len(rows), True, np.arange(len(rows), dtype=np.int32), pixels, Counter(manifest.modes), [])
    )
    told = Rows(
        labels=np.array([[row[finding_column(finding)] for finding in findings] for row in rows], dtype=np.int8),
        patients=[row["patient"] for row in rows],
        parts=[row["split"] for row in rows],
        subjects=[Subject(*(row[name] for name in Subject._fields)) for row in rows],
    )
    files = write_shards(staging, StagedImages(staging, [place]), told, findings, PARTS, cores=2)
    copied = manifest.model_copy(update={"files": files, "digest": content_digest(files)})
    write_json(staging.parts / MANIFEST, copied.model_dump(mode="json"))
    publish(staging.parts, target)
    shutil.rmtree(staging.folder)


def lacking() -> dict[str, str | None]:
    """Each of our modules, and the package for want of which it can't be imported here."""
    names = [module.name for module in pkgutil.walk_packages(xray_trainer.__path__, "xray_trainer.")]
    return {name: _lacking(name) for name in names if not name.endswith("__main__")}


def _lacking(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return error.name
    return None


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    write(source, target)
    json.dump({"datasets": datasets.__version__, "rows": read(source), "lacking": lacking()}, sys.stdout)
