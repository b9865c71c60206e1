"""The stand-in computes what PopTorch's documentation says, and refuses what PopTorch refuses."""

from __future__ import annotations

import copy
import logging
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import poptorch
import pytest
import torch
from optimum.graphcore import IPUConfig
from poptorch import _hardware

INPUTS, OUTPUTS, SAMPLES = 3, 2, 16
STAGES = 2
ACCUMULATION = 4
"""At least 2 x stages - 1."""


class Small(torch.nn.Module):
    """Two layers on two IPUs, and the mean squared error as its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(INPUTS, 4)
        self.second = torch.nn.Linear(4, OUTPUTS)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        out = self.second(torch.tanh(self.first(x)))
        return torch.nn.functional.mse_loss(out, y), out


def small(half: bool = False) -> Small:
    torch.manual_seed(1)
    model = Small()
    poptorch.BeginBlock(model.first, "first", ipu_id=0)
    poptorch.BeginBlock(model.second, "second", ipu_id=1)
    return model.half() if half else model


def batch(samples: int = SAMPLES, seed: int = 2) -> Dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(samples, width, generator=generator) for name, width in (("x", INPUTS), ("y", OUTPUTS))}


def options(replicas: int = 2, accumulation: int = ACCUMULATION, iterations: int = 1) -> poptorch.Options:
    opts = poptorch.Options().replicationFactor(replicas).deviceIterations(iterations).randomSeed(3)
    opts.Training.gradientAccumulation(accumulation)
    return opts.setExecutionStrategy(poptorch.PipelinedExecution(poptorch.AutoStage.AutoIncrement))


def inference(replicas: int = 1, iterations: int = 1) -> poptorch.Options:
    return poptorch.Options().replicationFactor(replicas).deviceIterations(iterations)


def sgd(model: torch.nn.Module, lr: float = 0.1) -> poptorch.optim.SGD:
    return poptorch.optim.SGD(model.parameters(), lr=lr)


def trained(model: torch.nn.Module, opts: poptorch.Options, optimizer: Any, *batches: Dict[str, torch.Tensor]) -> Any:
    """The executor, after these calls and with its weights on the host."""
    executor = poptorch.trainingModel(model, opts, optimizer)
    for each in batches:
        executor(**each)
    executor.copyWeightsToHost()
    return executor


def weights(model: torch.nn.Module) -> Dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def by_hand(optimizer: torch.optim.Optimizer, model: torch.nn.Module, *batches: Dict[str, torch.Tensor]) -> None:
    for each in batches:
        optimizer.zero_grad()
        model(**each)[0].backward()
        optimizer.step()


def assert_close(model: torch.nn.Module, expected: torch.nn.Module, tolerance: float = 1e-6) -> None:
    for name, value in weights(model).items():
        torch.testing.assert_close(value, weights(expected)[name], atol=tolerance, rtol=tolerance)


@pytest.fixture(autouse=True)
def as_many_ipus_as_needed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("POPTORCH_EMULATED_IPUS", "64")
    for name in (
        "POPTORCH_CACHE_DIR",
        "POPTORCH_EMULATED_COMPILE_SECONDS",
        "POPTORCH_EMULATED_FAILURE",
        "POPTORCH_IPU_MODEL",
    ):
        monkeypatch.delenv(name, raising=False)
    _hardware._held.clear()
    yield
    _hardware._held.clear()


# what it computes


def test_gradients_are_those_of_the_combined_batch_by_hand() -> None:
    model, expected = small(), small()
    before = weights(expected)
    trained(model, options(), sgd(model), batch())
    loss, _ = expected(**batch())
    loss.backward()
    for name, parameter in expected.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 1e-3
        torch.testing.assert_close(weights(model)[name], before[name] - 0.1 * parameter.grad, atol=1e-6, rtol=1e-6)


def test_a_sum_of_gradients_is_the_mean_times_the_micro_batches() -> None:
    summed, mean = small(), small()
    opts = options()
    opts.Training.accumulationAndReplicationReductionType(poptorch.ReductionType.Sum)
    trained(summed, opts, sgd(summed, lr=0.1 / (2 * ACCUMULATION)), batch())
    trained(mean, options(), sgd(mean, lr=0.1), batch())
    assert_close(summed, mean)


def test_replicas_and_accumulation_are_the_same_to_the_weights() -> None:
    one, two = small(), small()
    trained(one, options(replicas=1, accumulation=8), sgd(one), batch())
    trained(two, options(replicas=2, accumulation=4), sgd(two), batch())
    assert_close(one, two)


def test_each_device_iteration_is_an_update() -> None:
    together, apart = small(), small()
    first, second = batch(seed=5), batch(seed=6)
    both = {name: torch.cat([first[name], second[name]]) for name in first}
    trained(together, options(iterations=2), sgd(together), both)
    trained(apart, options(), sgd(apart), first, second)
    assert_close(together, apart)


Optimizers = Callable[[Any], torch.optim.Optimizer]


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (
            lambda p: poptorch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
        ),
        (
            lambda p: poptorch.optim.Adam(p, lr=0.01, weight_decay=0.1),
            lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
        ),
        (
            lambda p: poptorch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
            lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
        ),
        (
            lambda p: poptorch.optim.RMSprop(p, lr=0.01, weight_decay=0.1),
            lambda p: torch.optim.RMSprop(p, lr=0.01, weight_decay=0.1),
        ),
    ],
    ids=["SGD", "Adam", "AdamW", "RMSprop"],
)
def test_optimizers_step_as_torchs_do(ours: Optimizers, torchs: Optimizers) -> None:
    model, expected = small(), small()
    batches = [batch(seed=seed) for seed in range(4)]
    trained(model, options(), ours(model.parameters()), *batches)
    by_hand(torchs(expected.parameters()), expected, *batches)
    assert_close(model, expected, tolerance=1e-5)


def test_adam_without_bias_correction_takes_the_plain_averages() -> None:
    model, expected = small(), small()
    adam = poptorch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1, bias_correction=False)
    trained(model, options(), adam, batch())
    expected(**batch())[0].backward()
    with torch.no_grad():
        for parameter in expected.parameters():
            assert parameter.grad is not None
            first, second = 0.1 * parameter.grad, 0.001 * parameter.grad**2
            parameter -= 0.01 * (first / (second.sqrt() + 1e-8) + 0.1 * parameter)
    assert_close(model, expected)


def test_lamb_steps_by_a_share_of_each_tensors_length() -> None:
    model = small()
    before = weights(model)
    trained(model, options(), poptorch.optim.LAMB(model.parameters(), lr=0.01, weight_decay=0.0), batch())
    for name, value in weights(model).items():
        step = (value - before[name]).norm() / before[name].norm()
        assert step.item() == pytest.approx(0.01, rel=1e-3)


def test_a_group_without_trust_ratio_steps_as_adam() -> None:
    model, expected = small(), small()
    groups = [{"params": model.parameters(), "max_weight_norm": 0.0}]
    trained(model, options(), poptorch.optim.LAMB(groups, lr=0.01, weight_decay=0.1), batch())
    trained(expected, options(), poptorch.optim.AdamW(expected.parameters(), lr=0.01, weight_decay=0.1), batch())
    assert_close(model, expected)


@pytest.mark.parametrize(
    ("mode", "chosen"),
    [
        (poptorch.OutputMode.All, slice(0, 16)),
        (poptorch.OutputMode.Final, slice(14, 16)),
        (poptorch.OutputMode.Default, slice(14, 16)),
    ],
)
def test_output_mode_chooses_the_micro_batches_that_come_back(mode: poptorch.OutputMode, chosen: slice) -> None:
    model, whole = small(), batch()
    expected = [model(x=whole["x"][index : index + 1], y=whole["y"][index : index + 1])[0] for index in range(SAMPLES)]
    executor = poptorch.trainingModel(model, options(2, 8).outputMode(mode), sgd(model))
    loss, out = executor(**whole)
    torch.testing.assert_close(loss, torch.stack(expected)[chosen].detach())
    torch.testing.assert_close(out, small()(**whole)[1][chosen].detach())


def test_output_mode_sum_adds_up_over_the_micro_batches_of_a_replica() -> None:
    model, whole = small(), batch()
    expected = [model(x=whole["x"][index : index + 1], y=whole["y"][index : index + 1])[0] for index in range(SAMPLES)]
    executor = poptorch.trainingModel(model, options(2, 8).outputMode(poptorch.OutputMode.Sum), sgd(model))
    loss, _ = executor(**whole)
    torch.testing.assert_close(loss, torch.stack([sum(expected[0::2]), sum(expected[1::2])]).detach())  # type: ignore[list-item]


def test_the_loss_of_one_micro_batch_is_a_scalar() -> None:
    loss, _ = poptorch.trainingModel(small(), options(1, 4))(**batch())
    assert loss.shape == ()


def test_inference_returns_everything_in_order() -> None:
    model = small()
    executor = poptorch.inferenceModel(model, inference(replicas=2, iterations=4))
    loss, out = executor(**batch())
    assert loss.shape == (8,)
    torch.testing.assert_close(out, model(**batch())[1].detach())


def test_half_precision_comes_back_and_stays_in_the_weights() -> None:
    model = small(half=True)
    executor = poptorch.trainingModel(model, options(), sgd(model))
    loss, out = executor(**{name: tensor.half() for name, tensor in batch().items()})
    assert (loss.dtype, out.dtype) == (torch.float16, torch.float16)
    for tensor in executor._weights.values():
        assert torch.equal(tensor, tensor.half().float())
    executor.detachFromDevice()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}


def test_the_hosts_random_numbers_are_left_alone() -> None:
    model = small()
    dropping = torch.nn.Sequential(torch.nn.Dropout(), model.first, _Mean())
    executor = poptorch.trainingModel(dropping, options(1, 4), sgd(dropping, lr=0.0))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = executor(batch()["x"])
    assert torch.equal(torch.rand(3), expected)
    assert not torch.equal(first, executor(batch()["x"]))


class _Mean(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean()


def test_one_model_trains_and_infers_each_in_its_own_mode() -> None:
    dropping = torch.nn.Sequential(torch.nn.Dropout(), small().first, _Mean())
    training = poptorch.trainingModel(dropping, options(1, 4), sgd(dropping, lr=0.0))
    inferring = poptorch.inferenceModel(dropping, inference())
    x = batch()["x"]
    whole = inferring(x)
    assert not torch.equal(training(x), training(x))
    assert torch.equal(inferring(x), whole)


# whose weights, and when


def test_the_hosts_weights_change_when_they_are_copied() -> None:
    model = small()
    before = weights(model)
    executor = poptorch.trainingModel(model, options(), sgd(model))
    executor(**batch())
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
    executor.copyWeightsToHost()
    assert not any(torch.equal(value, before[name]) for name, value in weights(model).items())


@pytest.mark.parametrize("ask", [lambda executor, _: executor.detachFromDevice(), lambda _, model: model.state_dict()])
def test_detaching_and_reading_the_models_state_bring_the_weights_home(ask: Callable[..., Any]) -> None:
    model = small()
    before = weights(model)
    executor = poptorch.trainingModel(model, options(), sgd(model))
    executor(**batch())
    ask(executor, model)
    assert not any(torch.equal(value, before[name]) for name, value in weights(model).items())


def test_weights_that_are_loaded_are_not_overwritten_when_the_device_is_left() -> None:
    model = small()
    best = copy.deepcopy(model.state_dict())
    executor = poptorch.trainingModel(model, options(), sgd(model))
    executor(**batch())
    model.load_state_dict(best)
    executor.detachFromDevice()
    assert all(torch.equal(value, best[name]) for name, value in weights(model).items())


def test_attaching_takes_the_hosts_weights() -> None:
    model = small()
    executor = poptorch.inferenceModel(model, inference())
    executor(**batch())
    executor.detachFromDevice()
    with torch.no_grad():
        model.second.bias += 1
    executor.attachToDevice()
    torch.testing.assert_close(executor(**batch())[1], model(**batch())[1].detach())


def test_a_changed_learning_rate_counts_once_it_is_set() -> None:
    model = small()
    optimizer = sgd(model)
    executor = trained(model, options(), optimizer, batch())
    optimizer.param_groups[0]["lr"] = 0.0
    before = weights(model)
    executor(**batch())
    executor.copyWeightsToHost()
    assert not torch.equal(weights(model)["second.bias"], before["second.bias"])
    executor.setOptimizer(optimizer)
    before = weights(model)
    executor(**batch())
    executor.copyWeightsToHost()
    assert torch.equal(weights(model)["second.bias"], before["second.bias"])


def test_training_goes_on_from_a_saved_optimizer_as_if_it_had_not_ended(tmp_path: Path) -> None:
    whole, resumed = small(), small()
    batches = [batch(seed=seed) for seed in range(4)]
    trained(whole, options(), poptorch.optim.AdamW(whole.parameters(), lr=0.01), *batches)
    optimizer = poptorch.optim.AdamW(resumed.parameters(), lr=0.01)
    trained(resumed, options(), optimizer, *batches[:2])
    torch.save({"model": resumed.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "saved")
    saved = torch.load(tmp_path / "saved")
    again = small()
    again.load_state_dict(saved["model"])
    optimizer = poptorch.optim.AdamW(again.parameters(), lr=1.0)
    optimizer.load_state_dict(saved["optimizer"])
    trained(again, options(), optimizer, *batches[2:])
    assert_close(again, whole)


def test_an_executable_is_kept_in_the_cache_folder_for_each_way_to_compile(tmp_path: Path) -> None:
    def compile_with(replicas: int) -> List[str]:
        executor = poptorch.trainingModel(small(), options(replicas).enableExecutableCaching(str(tmp_path / "cache")))
        executor.compile(**batch())
        executor.detachFromDevice()
        return sorted(path.name for path in (tmp_path / "cache").iterdir())

    once = compile_with(1)
    assert len(once) == 1
    assert compile_with(1) == once
    assert len(compile_with(2)) == 2


def test_compiling_takes_the_time_that_was_asked_for_unless_the_executable_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: List[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setenv("POPTORCH_EMULATED_COMPILE_SECONDS", "2.5")
    for _ in range(2):
        kept = inference().enableExecutableCaching(str(tmp_path))
        poptorch.inferenceModel(small(), kept).compile(**batch())
    assert slept == [2.5]
    poptorch.inferenceModel(small(), inference()).compile(**batch())
    assert slept == [2.5, 2.5], "without a cache each time"


def test_the_cache_folder_can_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POPTORCH_CACHE_DIR", str(tmp_path / "cache"))
    poptorch.inferenceModel(small(), inference()).compile(**batch())
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".popef"]


def test_it_says_that_it_is_an_emulation(caplog: pytest.LogCaptureFixture) -> None:
    poptorch.setLogLevel("ERR")
    with caplog.at_level(logging.INFO):
        poptorch.trainingModel(small(), options()).compile(**batch())
    assert "EMULATED: no IPU is used, the CPU computes what 4 IPUs would" in caplog.text
    assert poptorch.__version__.endswith("+emulated")


# misuse


def executor_of(opts: poptorch.Options) -> poptorch.PoplarExecutor:
    return poptorch.trainingModel(small(), opts)


@pytest.mark.parametrize(
    ("misuse", "error", "message"),
    [
        (
            lambda: executor_of(options(1, 2)).compile(**batch()),
            poptorch.Error,
            "2 stages needs at least 3 micro-batches",
        ),
        (lambda: executor_of(options()).compile(**batch(12)), AssertionError, r"\(12\) must be a multiple of .* = 8"),
        (lambda: trained(small(), options(), None, batch(), batch(8)), poptorch.Error, "compiled for"),
        (lambda: trained(small(), options(), None, batch(), {"x": batch()["x"]}), poptorch.Error, "compiled for"),
        (lambda: executor_of(options()).attachToDevice(), poptorch.Error, "not been compiled"),
        (lambda: executor_of(options()).detachFromDevice(), poptorch.Error, "not been compiled"),
        (lambda: executor_of(options()).copyWeightsToHost(), poptorch.Error, "not been compiled"),
        (lambda: trained(small(), options(), None, batch()).attachToDevice(), poptorch.Error, "already attached"),
        (lambda: detached().detachFromDevice(), poptorch.Error, "not attached"),
        (lambda: detached().copyWeightsToHost(), poptorch.Error, "not attached"),
        (lambda: executor_of(options().useOfflineIpuTarget())(**batch()), AssertionError, "offline"),
        (lambda: executor_of(options(replicas=3)).compile(**batch(24)), poptorch.Error, "6 IPUs are no power of two"),
        (lambda: poptorch.inferenceModel(small(), options()), poptorch.Error, "has to be 1 for inference"),
        (
            lambda: poptorch.trainingModel(small(), options(), torch.optim.SGD(small().parameters(), 0.1)),
            ValueError,
            "SGD",
        ),
        (
            lambda: poptorch.trainingModel(torch.nn.Linear(3, 2), options(1, 4))(batch()["x"]),
            poptorch.Error,
            "a loss first",
        ),
        (lambda: poptorch.BeginBlock(small().first, ipu_id=0), poptorch.Error, "already been applied"),
        (lambda: options(replicas=0), AssertionError, "greater than 0"),
        (lambda: options().Training.gradientAccumulation(0), AssertionError, "greater than 0"),
        (lambda: options().Precision.setPartialsType(torch.int8), ValueError, "torch.half"),
        (lambda: options().setAvailableMemoryProportion({"0": 0.5}), AssertionError, "Invalid key 0"),
        (lambda: poptorch.setLogLevel("LOUD"), ValueError, "Unknown log level: LOUD"),
        (lambda: options().outputMode(poptorch.OutputMode.EveryN), ValueError, "not emulated"),
        (lambda: sgd(small()).variable_attrs.markAsConstant("speed"), AssertionError, "speed"),
        (
            lambda: sgd(small()).load_state_dict(torch.optim.SGD(small().parameters(), 0.1).state_dict()),
            RuntimeError,
            "Only IPU",
        ),
        (lambda: poptorch.optim.AdamW(small().parameters(), amsgrad=True), ValueError, "amsgrad"),
        (lambda: poptorch.optim.AdamW(small().parameters(), max_grad_norm=1.0), ValueError, "max_grad_norm"),
        (
            lambda: poptorch.optim.AdamW(small().parameters(), accum_type=torch.int8),
            AssertionError,
            "Accumulation types",
        ),
    ],
)
def test_misuse_is_refused(misuse: Callable[[], Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        misuse()


def detached() -> poptorch.PoplarExecutor:
    executor = trained(small(), options(), None, batch())
    executor.detachFromDevice()
    return executor  # type: ignore[no-any-return]


@pytest.mark.parametrize(("ipus", "needed"), [((0, 0), 1), ((0, 1), 3), ((1, 1), 1)])
def test_only_a_change_of_the_ipu_begins_a_stage(ipus: Tuple[int, int], needed: int) -> None:
    def compile_with(accumulation: int) -> None:
        model = Small()
        for layer, ipu in zip((model.first, model.second), ipus):
            poptorch.BeginBlock(layer, ipu_id=ipu)
        poptorch.trainingModel(model, options(1, accumulation)).compile(**batch(12))

    compile_with(needed)
    if needed > 1:
        with pytest.raises(poptorch.Error, match=f"at least {needed} micro-batches"):
            compile_with(needed - 1)


def test_sharded_training_needs_no_accumulation() -> None:
    opts = options(1, 1).setExecutionStrategy(poptorch.ShardedExecution(poptorch.AutoStage.AutoIncrement))
    trained(small(), opts, None, batch())


def test_ipus_are_rounded_up_where_that_is_allowed() -> None:
    executor_of(options(replicas=3).autoRoundNumIPUs(True)).compile(**batch(24))
    assert list(_hardware._held.values()) == [8]


def test_compiling_offline_takes_no_ipu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POPTORCH_EMULATED_IPUS", "0")
    executor = executor_of(options().useOfflineIpuTarget())
    executor.compile(**batch())
    assert executor.isCompiled()
    assert not executor.isAttachedToDevice()


def test_blocks_that_are_removed_leave_one_stage() -> None:
    model = small()
    poptorch.removeBlocks(model)
    poptorch.trainingModel(model, options(1, 1)).compile(**batch())
    assert list(_hardware._held.values()) == [1]


def test_a_model_of_an_ipu_is_no_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    assert poptorch.ipuHardwareVersion() == 2
    monkeypatch.setenv("POPTORCH_IPU_MODEL", "1")
    with pytest.raises(AssertionError, match="no IPU"):
        poptorch.ipuHardwareVersion()
    with pytest.raises(AssertionError, match="no IPU"):
        IPUConfig().to_options()


# failures


def test_more_ipus_than_there_are_free_are_not_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POPTORCH_EMULATED_IPUS", "4")
    first, second = executor_of(options()), executor_of(options())
    first.compile(**batch())
    with pytest.raises(poptorch.Error, match=r"Failed to acquire 4 IPU\(s\)"):
        second.compile(**batch())
    first.detachFromDevice()
    second.compile(**batch())


@pytest.mark.parametrize(
    ("asked", "error", "message", "calls"),
    [
        ("acquire", poptorch.Error, r"Failed to acquire 4 IPU\(s\)", 0),
        ("out_of_memory", poptorch.Error, "popart_exception.*Out of memory", 0),
        ("recoverable:PARTITION_RESET@2", poptorch.RecoverableError, "recoverable", 1),
        ("unrecoverable@3", poptorch.UnrecoverableError, "unrecoverable", 2),
        ("recoverable@1", ValueError, "POPTORCH_EMULATED_FAILURE", 0),
        ("broken", ValueError, "POPTORCH_EMULATED_FAILURE", 0),
    ],
)
def test_a_failure_comes_when_it_is_asked_for(
    asked: str, error: type, message: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POPTORCH_EMULATED_FAILURE", asked)
    executor = executor_of(options())
    for _ in range(calls):
        executor(**batch())
    with pytest.raises(error, match=message) as raised:
        executor(**batch())
    assert getattr(raised.value, "recovery_action", "PARTITION_RESET") == "PARTITION_RESET"
    if calls == 0:
        assert _hardware._held == {}
