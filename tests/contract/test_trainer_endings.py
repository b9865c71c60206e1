"""How `train` ends when it can't succeed: each exit code that can be caused here, by its real cause."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_trainer_run import run
from tests.unit.operator.builders import make_flavor
from tests.unit.trainer.build import run_document, write_data_set
from xray_operator.core.backends.gpu import Gpu
from xray_operator.core.spec import FlavorSpec

pytestmark = pytest.mark.usefixtures("environment_as_before")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_data_set(folder / "nih")
    assert run(folder, "prepare", run_document(folder))[0] == 0
    return folder


@pytest.fixture
def document(prepared: Path, tmp_path: Path) -> dict[str, Any]:
    """A run file that would succeed, with an output folder of its own."""
    (tmp_path / "out").mkdir()
    shutil.copy(prepared / "out" / "prepared.json", tmp_path / "out")
    return {**run_document(prepared), "output_dir": str(tmp_path / "out")}


@pytest.mark.slow
def test_10_weights_that_are_not_there(document: dict[str, Any], tmp_path: Path) -> None:
    document["model"] = {"path": str(tmp_path), "hub_name": None, "revision": None, "config": None}
    code, result = run(tmp_path, "train", document)
    assert (code, result["reason"]) == (10, "ConfigurationInvalid")


def test_11_a_cache_that_was_damaged(document: dict[str, Any], tmp_path: Path) -> None:
    prepared = json.loads((tmp_path / "out" / "prepared.json").read_text())
    cache = Path(shutil.copytree(prepared["cache"], tmp_path / "cache"))
    shard = cache / "train-00000.arrow"
    shard.write_bytes(shard.read_bytes()[:-8])
    (tmp_path / "out" / "prepared.json").write_text(json.dumps({**prepared, "cache": str(cache)}))
    code, result = run(tmp_path, "train", document)
    assert (code, result["reason"]) == (11, "DataCorrupt")
    assert "train-00000.arrow" in result["message"]


def test_11_a_hub_model_that_nobody_has_fetched(document: dict[str, Any], tmp_path: Path) -> None:
    document["model"] = {"path": None, "hub_name": "example/vit", "revision": None, "config": None}
    code, result = run(tmp_path, "train", document)
    assert (code, result["reason"]) == (11, "DataCorrupt")
    assert "prepared-model.json" in result["message"]


@pytest.fixture
def little_memory() -> Iterator[None]:
    """This process gets at most 300 MB more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (300 << 20), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.usefixtures("little_memory")
def test_15_a_model_that_memory_does_not_hold(document: dict[str, Any], tmp_path: Path) -> None:
    document["model"]["config"] = {"hidden_size": 1280, "layers": 48, "heads": 16, "patch_size": 16}
    code, result = run(tmp_path, "train", document)
    assert (code, result["reason"]) == (15, "OutOfMemory")


def test_21_a_gpu_that_is_paid_for_and_absent(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = Gpu().pod_parts(FlavorSpec.model_validate(make_flavor("gpu"))).env
    monkeypatch.setenv(expected["name"], expected["value"])
    held = {"flavor": "gpu", "backend": "gpu", "resource_name": "nvidia.com/gpu", "count": 1}
    code, result = run(tmp_path, "train", {**document, "accelerator": held})
    assert (code, result["reason"]) == (21, "AcceleratorNotAcquired")
    assert "checkpoint" not in result


@pytest.mark.slow
def test_1_an_error_that_nobody_foresaw_tells_the_checkpoint_too(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("xray_trainer.train.evaluate", fail)
    code, result = run(tmp_path, "train", document)
    assert (code, result["reason"]) == (1, "Unexpected")
    assert "surprise" not in result["message"]
    assert result["checkpoint"]["step"] == 2
