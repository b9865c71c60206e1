"""Our IPU backend on the unmodified optimum-graphcore and the stand-in for PopTorch."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
import poptorch
import pytest
import torch
from optimum.graphcore import IPUConfig
from poptorch import _hardware
from tiny import FINDINGS, IMAGE_SIZE, IMAGES, STORED_SIZE, VIT, open_parts, write_cache
from transformers import ViTConfig, ViTForImageClassification, set_seed

from xray_trainer.backends.callbacks import MetricsFile
from xray_trainer.backends.common import Outcome, Shuffled
from xray_trainer.backends.ipu import IMAGE_CONTENTS, image_digest, make_ipu_config, run, share_layers
from xray_trainer.checkpoints import Checkpoints
from xray_trainer.config import Checkpoint, Ipu, RunFile, parse_run_file
from xray_trainer.errors import (
    AcceleratorError,
    ConfigurationError,
    DivergedError,
    OutOfMemoryError,
    StoppedError,
    TrainerError,
)
from xray_trainer.interruption import Interruption, StopSignal
from xray_trainer.metrics import auroc, bce_from_logits, macro
from xray_trainer.model import make_model, normalise
from xray_trainer.prepare.cache import Manifest
from xray_trainer.progress import Progress
from xray_trainer.trackers.tracker import Trackers

EXAMPLE = Path(__file__).parents[1] / "contract" / "examples" / "run-ipu.json"
EPOCHS, GLOBAL_BATCH = 6, 16
PER_EPOCH = IMAGES["train"] // GLOBAL_BATCH
STEPS = EPOCHS * PER_EPOCH
HALF = 2e-2
"""How far outputs of half precision may lie from those of the same weights in 32 bits."""

VIT_BASE_IPU: Dict[str, Any] = {
    "recompute_checkpoint_every_layer": True,
    "optimizer_state_offchip": True,
    "replicated_tensor_sharding": True,
    "enable_half_partials": True,
    "replication_factor": 1,
    "gradient_accumulation_steps": 128,
    "device_iterations": 1,
    "inference_device_iterations": 4,
    "inference_replication_factor": 1,
    "ipus_per_replica": 4,
    "layers_per_ipu": [3, 3, 3, 3],
    "matmul_proportion": 0.3,
}
"""Source: https://huggingface.co/Graphcore/vit-base-ipu/resolve/main/ipu_config.json, without its folder of executables."""

Prepared = Tuple[Path, Manifest]


class StopAt(StopSignal):
    """SIGTERM, once a step of a phase is done."""

    def __init__(self, progress: Progress, step: int, phase: str) -> None:
        super().__init__()
        self._progress, self._step, self._phase = progress, step, phase

    @property
    def requested(self) -> bool:
        state = self._progress.state
        return state.phases[-1].name == self._phase and state.step >= self._step

    @requested.setter
    def requested(self, value: bool) -> None:
        """It is asked for by the step."""


class Ran(NamedTuple):
    outcome: Outcome
    progress: Progress
    metrics: MetricsFile


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """Sums of several threads differ in their last digits from those of one."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(autouse=True)
def four_ipus(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POPTORCH_EMULATED_IPUS", "POPTORCH_EMULATED_FAILURE", "POPTORCH_IPU_MODEL"):
        monkeypatch.delenv(name, raising=False)
    _hardware._held.clear()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return write_cache(tmp_path_factory.mktemp("cache"))


def make_run_file(folder: Path, replicas: int = 1, ipu: Optional[Dict[str, Any]] = None, **training: Any) -> RunFile:
    document: Dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    document["model"] = {"config": VIT}
    document["accelerator"]["count"] = 4 * replicas
    document["dataset"].update(findings=FINDINGS, image_size=IMAGE_SIZE, stored_size=STORED_SIZE)
    settings = {"global_batch_size": GLOBAL_BATCH, "micro_batch_size": 2, "gradient_accumulation_steps": 8}
    document["training"].update({**settings, "epochs": EPOCHS, "learning_rate": 3e-3, "seed": 1, **training})
    micro_batches = document["training"]["gradient_accumulation_steps"]
    layout = {
        "replication_factor": replicas,
        "gradient_accumulation_steps": micro_batches // replicas,
        "layers_per_ipu": None,
        "overrides": {},
        "executables_dir": str(folder / "executables"),
    }
    document["ipu"].update({**layout, **(ipu or {})})
    document["checkpoint"] = {"every_steps": 4, "keep": 2}
    document["output_dir"] = str(folder)
    return parse_run_file(document)


def train(
    run_file: RunFile,
    prepared: Prepared,
    stop_at: Optional[int] = None,
    phase: str = "Training",
    progress: Optional[Progress] = None,
) -> Ran:
    output, progress = run_file.output_dir, progress or Progress("Training")
    output.mkdir(parents=True, exist_ok=True)
    metrics = MetricsFile(output / "metrics.jsonl", Trackers())
    checkpoints = Checkpoints(output / "checkpoints", run_file.checkpoint.keep, "sha256:0", {})
    signal = StopSignal() if stop_at is None else StopAt(progress, stop_at, phase)
    interruption = Interruption(progress, None, signal)
    return Ran(run(run_file, *prepared, progress, metrics, checkpoints, interruption), progress, metrics)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, prepared: Prepared) -> Ran:
    _hardware._held.clear()
    return train(make_run_file(tmp_path_factory.mktemp("ran")), prepared)


def test_it_learns_and_predicts_each_held_out_image_once(ran: Ran, prepared: Prepared) -> None:
    outcome = ran.outcome
    assert (outcome.steps, outcome.resumed_from_step) == (STEPS, None)
    assert outcome.test_logits.shape == (IMAGES["test"], len(FINDINGS))
    assert np.array_equal(outcome.test_labels, open_parts(*prepared)["test"].labels)
    assert macro(auroc(outcome.test_logits, outcome.test_labels)) > 0.9


def test_what_was_validated_last_is_handed_on(ran: Ran, prepared: Prepared) -> None:
    outcome = ran.outcome
    assert outcome.validation_logits.shape == (IMAGES["validation"], len(FINDINGS))
    assert np.array_equal(outcome.validation_labels, open_parts(*prepared)["validation"].labels)
    last = [row["validation_loss"] for row in ran.metrics.rows if "validation_loss" in row][-1]
    assert bce_from_logits(outcome.validation_logits, outcome.validation_labels) == last


def test_the_model_computes_in_32_bits_what_the_device_computed(ran: Ran, prepared: Prepared, tmp_path: Path) -> None:
    ran.outcome.model.save_pretrained(str(tmp_path), safe_serialization=True)
    model = ViTForImageClassification.from_pretrained(str(tmp_path), use_safetensors=True).eval()
    assert model.dtype == torch.float32
    pixels = open_parts(*prepared)["test"].__getitems__(list(range(IMAGES["test"])))["pixel_values"]
    with torch.no_grad():
        logits = model(pixel_values=normalise(pixels)).logits.numpy()
    np.testing.assert_allclose(ran.outcome.test_logits, logits, atol=HALF, rtol=HALF)


def test_compiling_is_a_phase_of_its_own(ran: Ran) -> None:
    names = [phase.name for phase in ran.progress.finish()]
    assert names == ["Training", "Compiling", "Training", "Compiling", "Training", "Evaluating"]


def test_steps_that_are_done_stay_done_while_evaluation_is_compiled(prepared: Prepared, tmp_path: Path) -> None:
    told: List[int] = []

    class Looking(Progress):
        def lives(self) -> None:
            """At each batch of validation."""
            super().lives()
            told.append(self.state.step)

    with pytest.raises(StoppedError):
        train(make_run_file(tmp_path), prepared, stop_at=PER_EPOCH + 1, progress=Looking("Training"))
    assert set(told) == {PER_EPOCH}


def test_losses_and_validation_are_told(ran: Ran) -> None:
    losses = [row["loss"] for row in ran.metrics.rows if "loss" in row]
    validated = [row for row in ran.metrics.rows if "validation_loss" in row]
    assert len(losses) == STEPS
    assert np.mean(losses[-PER_EPOCH:]) < 0.7 * np.mean(losses[:PER_EPOCH])
    assert [row["step"] for row in validated] == [PER_EPOCH * (epoch + 1) for epoch in range(EPOCHS)]
    assert validated[-1]["validation_auroc_macro"] > 0.9
    assert validated[-1]["validation_loss"] < validated[0]["validation_loss"]


def test_executables_of_training_and_evaluation_lie_in_one_folder_below_that_of_the_run_file(
    prepared: Prepared, tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        train(make_run_file(tmp_path), prepared, stop_at=PER_EPOCH + 1)
    (folder,) = (tmp_path / "executables").iterdir()
    assert len(list(folder.glob("*.popef"))) == 2
    assert {oct(made.stat().st_mode & 0o7777) for made in (folder, folder.parent)} == {"0o2775"}, (
        "for other users' runs"
    )


@pytest.mark.parametrize("stop_at", [3, PER_EPOCH, PER_EPOCH + 3, STEPS])
def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_was_not(
    stop_at: int, ran: Ran, prepared: Prepared, tmp_path: Path
) -> None:
    run_file = make_run_file(tmp_path)
    with pytest.raises(StoppedError, match=f"after step {stop_at} of {STEPS}, of which a checkpoint is saved"):
        train(run_file, prepared, stop_at=stop_at)
    _hardware._held.clear()  # the process is another one
    resumed = train(run_file, prepared)
    assert resumed.outcome.resumed_from_step == stop_at
    for name, weight in ran.outcome.model.state_dict().items():
        assert torch.equal(resumed.outcome.model.state_dict()[name], weight), name
    assert [row["step"] for row in resumed.metrics.rows] == [row["step"] for row in ran.metrics.rows]
    assert np.array_equal(resumed.outcome.test_logits, ran.outcome.test_logits)


def test_a_run_that_was_stopped_in_evaluation_needs_no_step_more(ran: Ran, prepared: Prepared, tmp_path: Path) -> None:
    run_file = make_run_file(tmp_path).model_copy(update={"checkpoint": Checkpoint(every_steps=1000, keep=1)})
    with pytest.raises(StoppedError, match=f"after step {STEPS} of {STEPS}"):
        train(run_file, prepared, stop_at=0, phase="Evaluating")
    _hardware._held.clear()  # the process is another one
    resumed = train(run_file, prepared)
    assert resumed.outcome.resumed_from_step == STEPS
    assert np.array_equal(resumed.outcome.test_logits, ran.outcome.test_logits)
    assert np.array_equal(resumed.outcome.validation_logits, ran.outcome.validation_logits), "predicted anew"


def test_a_loss_that_is_no_number_ends_the_run(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(
        DivergedError, match=r"step \d: loss \w+; expected finite numbers, try a learning rate below 1e\+08"
    ):
        train(make_run_file(tmp_path).model_copy(update={"training": _with_rate(tmp_path, 1e8)}), prepared)


def test_weights_that_are_no_numbers_are_not_saved(prepared: Prepared, tmp_path: Path) -> None:
    """The loss that shows them is only that of the next step."""
    overflowing = make_run_file(tmp_path).model_copy(
        update={"training": _with_rate(tmp_path, 1e8), "checkpoint": Checkpoint(every_steps=1, keep=2)}
    )
    with pytest.raises(DivergedError, match="step 1: weights that are no numbers"):
        train(overflowing, prepared)
    assert not list((tmp_path / "checkpoints").glob("step-*"))


def _with_rate(folder: Path, rate: float) -> Any:
    return make_run_file(folder).training.model_copy(update={"learning_rate": rate, "warmup_ratio": 0.0})


@pytest.mark.parametrize(
    ("variable", "value", "error", "message"),
    [
        (
            *("POPTORCH_EMULATED_IPUS", "2", AcceleratorError),
            r"^Failed to acquire 4 IPU\(s\); No device found on the system with 4 IPUs: the configuration needs changing; "
            "the pod holds 4: those that it sees are no device of that size; a V-IPU partition has to have it, or to be "
            "reconfigurable$",
        ),
        (
            *("POPTORCH_EMULATED_FAILURE", "acquire", AcceleratorError),
            r"^Failed to acquire 4 IPU\(s\); the pod holds 4: another process may use them$",
        ),
        ("POPTORCH_EMULATED_FAILURE", "recoverable:PARTITION_RESET@3", AcceleratorError, "needs PARTITION_RESET"),
        ("POPTORCH_EMULATED_FAILURE", "unrecoverable@3", AcceleratorError, "taken out of service"),
        ("POPTORCH_EMULATED_FAILURE", "out_of_memory", OutOfMemoryError, "training.micro_batch_size: 2"),
        ("POPTORCH_EMULATED_IPUS", "0", AcceleratorError, "finds no IPU.*should hold 4"),
        ("POPTORCH_IPU_MODEL", "1", AcceleratorError, "finds no IPU"),
    ],
)
def test_a_failure_of_the_hardware_is_told_with_its_exit_code(
    variable: str,
    value: str,
    error: type,
    message: str,
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(error, match=message) as raised:
        train(make_run_file(tmp_path), prepared)
    assert isinstance(raised.value, TrainerError)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("popart_exception", "Out of memory: some tiles are too small"),
        ("popart_exception", "Tile 0 receives more data than it has total memory"),
        ("popart_exception", "there is too much code"),
        ("poplar_stream_memory_allocation_error", "a stream is too long"),
    ],
)
def test_that_a_model_does_not_fit_is_told_by_the_errors_type_or_by_its_words(
    kind: str, message: str, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise poptorch.Error(message, kind)

    monkeypatch.setattr("poptorch._poplar_executor.check_memory", refuse)
    with pytest.raises(OutOfMemoryError, match=f"does not fit onto 4 IPUs.*; PopTorch: {message}"):
        train(make_run_file(tmp_path), prepared)


@pytest.mark.parametrize(
    ("batches", "advice"),
    [
        ({}, "micro_batch_size: 2: .* expected a smaller one, more of them for each replica"),
        ({"micro_batch_size": 1, "gradient_accumulation_steps": 16}, "micro_batch_size: 1: .* expected more of them"),
    ],
)
def test_advice_against_too_little_memory_is_what_can_be_done(
    batches: Dict[str, Any], advice: str, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POPTORCH_EMULATED_FAILURE", "out_of_memory")
    with pytest.raises(OutOfMemoryError, match=rf"{advice}.*ipu\.layers_per_ipu.*matmul_proportion.*smaller model"):
        train(make_run_file(tmp_path, **batches), prepared)


@pytest.mark.parametrize(
    "refused",
    [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: can't allocate memory")],
    ids=["python", "torch"],
)
def test_a_host_without_memory_is_no_failure_of_the_ipus(
    refused: Exception, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise refused

    monkeypatch.setattr("poptorch._poplar_executor.check_memory", refuse)
    with pytest.raises(OutOfMemoryError, match=r"the host's memory does not hold the run.*host\.memory"):
        train(make_run_file(tmp_path), prepared)


@pytest.mark.parametrize("version", [-1, 1])
def test_hardware_that_upstream_does_not_take_is_no_ipu(
    version: int, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poptorch.ipuHardwareVersion", lambda: version)
    with pytest.raises(AcceleratorError, match=f"hardware version {version}; expected 2 or 21"):
        train(make_run_file(tmp_path), prepared)


def test_an_epochs_order_follows_from_seed_and_epoch(prepared: Prepared) -> None:
    dataset = open_parts(*prepared)["train"]
    first, again = list(Shuffled(dataset, 1)), list(Shuffled(dataset, 1))
    dataset.epoch = 1
    assert first == again
    assert sorted(first) == list(range(IMAGES["train"]))
    assert len({tuple(first), tuple(Shuffled(dataset, 1)), tuple(Shuffled(dataset, 2))}) == 3


def test_a_learning_rate_means_what_it_means_elsewhere(prepared: Prepared, tmp_path: Path) -> None:
    """Adam's first step moves each weight by it, whatever the gradient's length."""
    rate = 1e-2
    run_file = make_run_file(tmp_path, learning_rate=rate, warmup_ratio=0.0, scheduler="constant_with_warmup")
    with pytest.raises(StoppedError):
        train(run_file, prepared, stop_at=1)
    set_seed(run_file.training.seed)
    before = make_model(run_file.model, FINDINGS, IMAGE_SIZE).state_dict()
    after = torch.load(str(tmp_path / "checkpoints" / "step-00000001" / "pytorch_model.bin"))
    moved = torch.cat([(after[name].float() - weight).abs().flatten() for name, weight in before.items()])
    assert moved.quantile(0.9).item() == pytest.approx(rate, rel=0.02)


def test_it_computes_in_half_precision(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: List[torch.dtype] = []
    compile_as_usual = poptorch.PoplarExecutor.compile

    def compile_and_look(executor: poptorch.PoplarExecutor, **inputs: torch.Tensor) -> None:
        taken.extend(tensor.dtype for tensor in [*inputs.values(), *executor.model.state_dict().values()])
        compile_as_usual(executor, **inputs)

    monkeypatch.setattr(poptorch.PoplarExecutor, "compile", compile_and_look)
    with pytest.raises(StoppedError):
        train(make_run_file(tmp_path), prepared, stop_at=PER_EPOCH + 1)
    assert set(taken) == {torch.float16}, "pixels, labels and weights, in training and in evaluation"


@pytest.mark.usefixtures("eight_ipus")
def test_two_replicas_learn_what_one_does(ran: Ran, prepared: Prepared, tmp_path: Path) -> None:
    """They take the same global batches: only the order of sums in half precision differs."""
    batches = {"micro_batch_size": 1, "gradient_accumulation_steps": GLOBAL_BATCH}
    replicated = train(make_run_file(tmp_path, replicas=2, **batches), prepared)
    assert replicated.outcome.steps == STEPS
    assert macro(auroc(replicated.outcome.test_logits, replicated.outcome.test_labels)) > 0.9
    assert first_validation(replicated) == pytest.approx(first_validation(ran), abs=1e-2)


def first_validation(ran: Ran) -> Optional[float]:
    return next(row["validation_loss"] for row in ran.metrics.rows if "validation_loss" in row)


@pytest.fixture
def eight_ipus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POPTORCH_EMULATED_IPUS", "8")


def config_of(folder: Path, layers: int = 12, **ipu: Any) -> Any:
    return make_ipu_config(make_run_file(folder, ipu=ipu), ViTConfig(num_hidden_layers=layers))


def test_a_run_of_the_tutorials_size_has_its_configuration(tmp_path: Path) -> None:
    batches = {"global_batch_size": 128, "micro_batch_size": 1, "gradient_accumulation_steps": 128}
    config = make_ipu_config(make_run_file(tmp_path, **batches), ViTConfig())
    published = IPUConfig(**VIT_BASE_IPU, executable_cache_dir=config.executable_cache_dir)
    assert config.to_dict() == published.to_dict()


def test_the_layout_is_the_run_files(tmp_path: Path) -> None:
    batches = {"global_batch_size": 64, "gradient_accumulation_steps": 32}
    told = make_ipu_config(make_run_file(tmp_path, 2, **batches), ViTConfig()).to_dict()
    assert told["layers_per_ipu"] == told["inference_layers_per_ipu"] == [3, 3, 3, 3]
    assert (told["replication_factor"], told["inference_replication_factor"]) == (2, 2)
    assert (told["ipus_per_replica"], told["gradient_accumulation_steps"]) == (4, 16)


def test_an_override_reaches_the_configuration(tmp_path: Path) -> None:
    overrides = {"matmul_proportion": [0.1, 0.2, 0.3, 0.4], "recompute_checkpoint_every_layer": False}
    config = config_of(tmp_path, overrides=overrides)
    assert {name: getattr(config, name) for name in overrides} == overrides
    assert config.optimizer_state_offchip is VIT_BASE_IPU["optimizer_state_offchip"]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"matmul_share": 0.3}, r"ipu\.overrides\.matmul_share: can't be set; expected one of .*matmul_proportion"),
        ({"replication_factor": 2}, r"ipu\.overrides\.replication_factor: can't be set"),
        ({"executable_cache_dir": "/tmp"}, r"ipu\.overrides\.executable_cache_dir: can't be set"),
        ({"device_iterations": 2}, r"ipu\.overrides\.device_iterations: can't be set"),
        ({"matmul_proportion": "much"}, r'matmul_proportion: "much"; expected Union\[float, List\[float\]\]'),
        ({"enable_half_partials": "no"}, r'enable_half_partials: "no"; expected .*bool'),
        ({"matmul_proportion": -0.1}, r"ipu\.overrides\.matmul_proportion: -0\.1: .* must be >= 0"),
        ({"output_mode": "most"}, r'ipu\.overrides\.output_mode: "most": .*can only take'),
        ({"matmul_proportion": [0.1, 0.2]}, r"ipu\.overrides .*same number of IPUs as ipus_per_replica=4"),
        ({"matmul_proportion": 1.5}, r"matmul_proportion: 1\.5; expected shares of an IPU's memory, at most 1"),
        ({"inference_matmul_proportion": [0.1, 2.0]}, r"inference_matmul_proportion: \[0\.1, 2\.0\]; .*at most 1"),
        ({"seed": 1, "nothing": 2}, r"overrides\.seed: .*; ipu\.overrides\.nothing: "),
    ],
)
def test_an_override_that_is_none_is_refused_by_its_name(overrides: Dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=told):
        config_of(tmp_path, overrides=overrides)


@pytest.mark.parametrize(
    ("given", "ipus", "layers", "shared"),
    [
        (None, 4, 12, [3, 3, 3, 3]),
        (None, 4, 4, [1, 1, 1, 1]),
        (None, 4, 7, [1, 2, 2, 2]),
        (None, 1, 12, [12]),
        ([0, 4, 4, 4], 4, 12, [0, 4, 4, 4]),
    ],
)
def test_layers_are_shared_out(given: Optional[List[int]], ipus: int, layers: int, shared: List[int]) -> None:
    assert share_layers(_ipu(given, ipus), layers) == shared


@pytest.mark.parametrize(
    ("given", "layers", "told"),
    [
        (None, 3, "ipu.ipus_per_replica: 4 for a model of 3 layers; expected at least one layer for each IPU"),
        ([3, 3, 3, 3], 11, r"ipu.layers_per_ipu: \[3, 3, 3, 3\] are 12 layers; expected the 11 of the model"),
    ],
)
def test_layers_that_do_not_fit_the_model_are_refused(given: Optional[List[int]], layers: int, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        share_layers(_ipu(given, 4), layers)


def _ipu(layers_per_ipu: Optional[List[int]], ipus: int) -> Ipu:
    return Ipu(
        ipus_per_replica=ipus,
        replication_factor=1,
        gradient_accumulation_steps=8,
        layers_per_ipu=layers_per_ipu,
        executables_dir=Path("/cache"),
        image="trainer-ipu:1",
    )


def _replicas(folder: Path, count: int) -> RunFile:
    return make_run_file(folder, count, micro_batch_size=2 // count, gradient_accumulation_steps=8 * count)


def test_programs_that_differ_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder(run_file: RunFile, **config: Any) -> str:
        return str(make_ipu_config(run_file, ViTConfig(**config)).executable_cache_dir)

    usual = make_run_file(tmp_path)
    folders = [
        folder(usual),
        folder(usual, num_hidden_layers=8),
        folder(usual, image_size=96),
        folder(make_run_file(tmp_path, ipu={"image": "trainer-ipu:2"})),
        folder(make_run_file(tmp_path, ipu={"layers_per_ipu": [2, 3, 3, 4]})),
        folder(make_run_file(tmp_path, ipu={"overrides": {"matmul_proportion": 0.2}})),
        folder(make_run_file(tmp_path, micro_batch_size=1, global_batch_size=8)),
        folder(_replicas(tmp_path, 2)),
        folder(usual.model_copy(update={"accelerator": usual.accelerator.model_copy(update={"count": 8})})),
    ]
    monkeypatch.setattr("poptorch.__version__", "3.4.0")
    folders.append(folder(usual))
    assert len(set(folders)) == len(folders)
    assert all(Path(each).is_dir() for each in folders)


def test_the_same_program_of_another_run_has_the_same_folder(tmp_path: Path) -> None:
    first, second = make_run_file(tmp_path), make_run_file(tmp_path, seed=2, learning_rate=1e-5)
    one, other = (
        make_ipu_config(run_file, ViTConfig(name_or_path=path)).executable_cache_dir
        for run_file, path in ((first, "/mnt/model/a"), (second.model_copy(update={"output_dir": tmp_path}), "/b"))
    )
    assert one == other


def test_an_image_is_known_by_its_digest_whatever_its_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = tmp_path / "image-contents"
    monkeypatch.setattr("xray_trainer.backends.ipu.IMAGE_CONTENTS", contents)
    outside = image_digest("registry/ipu:1")
    contents.write_text("one")
    first = image_digest("registry/ipu:1")
    assert image_digest("mirror/ipu:2") == first, "the same image"
    contents.write_text("another")
    assert len({outside, first, image_digest("registry/ipu:1")}) == 3
    assert image_digest("registry/ipu:1@sha256:0123") == "sha256:0123"


def test_its_contents_are_read_where_the_dockerfile_writes_them() -> None:
    instructions = (EXAMPLE.parents[3] / "trainer-image" / "Dockerfile").read_text(encoding="utf-8")
    assert f" >> {IMAGE_CONTENTS}\n" in instructions


def test_a_place_for_executables_that_cannot_be_written_to_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))  # nobody refuses root, who may run this

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ConfigurationError, match=r"ipu\.executables_dir: .*Permission denied"):
        config_of(tmp_path)


def test_a_global_batch_larger_than_the_training_part_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    size = IMAGES["train"] + 1
    batches = {"gradient_accumulation_steps": size, "micro_batch_size": 1, "global_batch_size": size}
    with pytest.raises(ConfigurationError, match=f"expected at most the {IMAGES['train']} training images"):
        train(make_run_file(tmp_path, **batches), prepared)
