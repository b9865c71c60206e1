"""A store that fsspec reads by a package of its own: s3fs, against a server that speaks the S3 API and checks signatures.

The whole program runs in the server's environment, for s3fs is in no other.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.unit.trainer.build import (
    LABELS_FILE,
    TRAINER,
    image_name,
    label_line,
    make_png,
    make_run_file,
    run_document,
    write_archive,
    write_data_set,
    write_labels,
)
from tests.unit.trainer.chexpert import COLUMNS, write_set
from tests.unit.trainer.s3_server import URL, Server, filled, python_of_its_own, serve
from xray_trainer.prepare.run import prepare
from xray_trainer.progress import Progress

pytestmark = pytest.mark.slow

CANARY = 87654321


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as server:
        yield server


class Ending(NamedTuple):
    code: int
    result: dict[str, Any]
    told: str
    """Log and result."""


def prepare_by_s3fs(folder: Path, url: str = URL, options: object = None, **dataset: Any) -> Ending:
    """`options`: what the Secret holds; None: there is none."""
    document = run_document(folder, dataset={"root": None, "fsspec": {"url": url}, **dataset})
    (folder / "run.json").write_text(json.dumps(document))
    result = folder / "result.json"
    arguments = ["prepare", "--run-file", str(folder / "run.json"), "--result-file", str(result)]
    own = {} if options is None else {"STORAGE_OPTIONS": options if isinstance(options, str) else json.dumps(options)}
    command = [*python_of_its_own(), "-m", "xray_trainer", *arguments]
    environment = {**os.environ, **own, "PYTHONPATH": str(TRAINER)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return Ending(done.returncode, json.loads(result.read_text()), done.stderr + result.read_text())


def access(server: Server, **changes: str) -> dict[str, str]:
    return {"endpoint_url": server.endpoint, "key": server.key, "secret": server.secret} | changes


def test_a_set_in_a_store_becomes_what_the_same_set_on_a_claim_becomes(server: Server, tmp_path: Path) -> None:
    write_data_set(tmp_path / "nih")
    (tmp_path / "nih" / "images").mkdir()
    (tmp_path / "nih" / "images" / image_name(99)).write_bytes(make_png())
    on_claim = prepare(make_run_file(tmp_path), Progress("Preparing"))
    with filled(server, tmp_path / "nih"):
        ending = prepare_by_s3fs(tmp_path, options=access(server), cache_dir=str(tmp_path / "s3"))
        assert (ending.code, ending.result) == (0, on_claim)
        again = prepare_by_s3fs(tmp_path, options=access(server), cache_dir=str(tmp_path / "s3"))
    assert again.result == on_claim
    assert "reused" in again.told
    assert len(list((tmp_path / "s3").iterdir())) == 1, "no archive and no table is kept"


def test_folders_in_a_store_are_read_like_folders_on_a_claim(server: Server, tmp_path: Path) -> None:
    write_set(tmp_path / "cxp")
    layout = {"labels": COLUMNS, "findings": ["Edema", "Pleural Effusion"]}
    on_claim = prepare(
        make_run_file(tmp_path, dataset={"root": str(tmp_path / "cxp"), **layout}), Progress("Preparing")
    )
    with filled(server, tmp_path / "cxp"):
        ending = prepare_by_s3fs(tmp_path, options=access(server), cache_dir=str(tmp_path / "s3"), **layout)
    assert (ending.code, ending.result) == (0, on_claim)
    assert "patient0" not in ending.told


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (
            {"secret": "wrong"},
            10,
            "spec.dataset.source.fsspec.secretName: s3://xrays/sets/nih: PermissionError with the S",
        ),
        ({"unheard_of": "1"}, 10, "spec.dataset.source.fsspec: s3://xrays/sets/nih: "),
        ({"endpoint_url": "http://127.0.0.1:9"}, 20, "s3://xrays/sets/nih: "),
    ],
)
def test_what_is_wrong_is_told_without_what_the_secret_holds(
    server: Server, tmp_path: Path, change: dict[str, str], code: int, told: str
) -> None:
    write_data_set(tmp_path / "nih")
    with filled(server, tmp_path / "nih"):
        ending = prepare_by_s3fs(tmp_path, options=access(server, **change))
    assert (ending.code, ending.result["exit_code"]) == (code, code)
    assert ending.result["message"].startswith(told)
    assert server.secret not in ending.told
    assert server.key not in ending.told


def test_a_folder_that_is_not_there_is_told(server: Server, tmp_path: Path) -> None:
    ending = prepare_by_s3fs(tmp_path, url="s3://nobody/sets", options=access(server))
    assert ending.code == 10
    assert ending.result["message"].startswith("spec.dataset.source.fsspec.url: s3://nobody/sets: ")


def test_a_store_tells_no_patient(server: Server, tmp_path: Path) -> None:
    write_labels(tmp_path / "nih", [label_line(CANARY), label_line(2), label_line(3), label_line(4)])
    good = [(image_name(patient), make_png(patient)) for patient in (2, 3, 4)]
    write_archive(tmp_path / "nih" / "images_001.tar.gz", good)
    (tmp_path / "nih" / "images").mkdir()
    (tmp_path / "nih" / "images" / image_name(CANARY)).write_bytes(make_png()[:-60])
    with filled(server, tmp_path / "nih"):
        ending = prepare_by_s3fs(tmp_path, options=access(server))
    assert (ending.code, ending.result["rejected"]) == (0, 1)
    assert "images/: member 1" in ending.told
    assert str(CANARY) not in ending.told
    assert LABELS_FILE not in ending.result
