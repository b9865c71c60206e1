"""From a model on a hub to a trained one: `prepare` fetches it, `train` has no way out to any network."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import ViTConfig, ViTForImageClassification

from tests.contract.test_trainer_config import example, shape_of
from tests.contract.test_trainer_run import run
from tests.hub_server import Hub, hub_server
from tests.unit.trainer.build import run_document, write_data_set
from xray_trainer.__main__ import main

pytestmark = pytest.mark.usefixtures("environment_as_before")

NAME = "example/vit"
ORDER = "xray-model-1"


def save_vit(folder: Path) -> Path:
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTForImageClassification(ViTConfig(**size, patch_size=16, image_size=32)).save_pretrained(folder)
    return folder


def refuse_all_networks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Returns: whom anybody has tried to reach."""
    tried: list[object] = []

    def connect(_: socket.socket, address: object) -> None:
        tried.append(address)
        raise ConnectionRefusedError(111, "no network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    return tried


def order(folder: Path, cache: str) -> dict[str, Any]:
    """What a preparation of its own answers."""
    document = {"version": 1, "name": ORDER, "hub_name": NAME, "revision": None, "cache_dir": cache, "progress_port": 0}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        code = main(["prepare-model", "--order", json.dumps(document), "--result-file", str(folder / "order.json")])
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert code == 0
    return dict(json.loads((folder / "order.json").read_text()))


def prepared_from(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run file whose model an order has fetched."""
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    for name, value in (("HF_HUB_DISABLE_TELEMETRY", True), ("HF_HUB_OFFLINE", False)):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    document = run_document(folder, training={"learning_rate": 1e-9})
    document["model"] = {"path": None, "hub_name": NAME, "revision": None, "config": None}
    told = order(folder, document["dataset"]["cache_dir"])
    assert shape_of(told) == shape_of(example("model-result.json") | {"model": told["model"]})
    assert told["model"].keys() == example("model-result.json")["model"].keys()
    return {**document, "model_prepared_by": ORDER}


def test_a_hub_model_is_trained_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data_set(tmp_path / "nih")
    saved = save_vit(tmp_path / "saved")
    with hub_server() as hub:
        commit = hub.push_folder(NAME, saved)
        document = prepared_from(hub, tmp_path, monkeypatch)
    tried = refuse_all_networks(monkeypatch)
    code, prepared = run(tmp_path, "prepare", document)
    assert (code, prepared["model"]["commit"]) == (0, commit)
    code, result = run(tmp_path, "train", document)
    assert (code, tried) == (0, []), result
    before, after = (load_file(folder / "model.safetensors") for folder in (saved, tmp_path / "out" / "model"))
    body = [name for name in before if not name.startswith("classifier.")]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in body)
    assert f"model {NAME} at commit {commit}" in (tmp_path / "out" / "train.log").read_text()
    report = json.loads((tmp_path / "out" / "result.json").read_text())
    assert report["model"] == prepared["model"]
    assert run(tmp_path, "prepare", document)[1] == prepared | {"adopted": True}, "also as a finished run answers it"
