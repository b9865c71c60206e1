"""How a model is compiled and run. Values are checked where PopTorch checks them; those that only make an IPU faster or
leave more of its memory free are kept and have no effect."""

from __future__ import annotations

import os
from typing import Any, Dict, Mapping, Optional

import torch

from poptorch.enums import AutoStage, OutputMode, ReductionType


class PipelinedExecution:
    """The stages of the model work at the same time, each on another micro-batch."""

    def __init__(self, auto_stage: AutoStage = AutoStage.SameAsIpu) -> None:
        assert isinstance(auto_stage, AutoStage)
        self.auto_stage = auto_stage


class ShardedExecution(PipelinedExecution):
    """The stages work one after the other."""


class TensorLocationSettings:
    def __init__(self) -> None:
        self.values: Dict[str, bool] = {}

    def useOnChipStorage(self, use: bool = True) -> TensorLocationSettings:
        return self._set("on_chip", use)

    def useReplicatedTensorSharding(self, use: bool = True) -> TensorLocationSettings:
        return self._set("replicated_tensor_sharding", use)

    def _set(self, name: str, use: bool) -> TensorLocationSettings:
        assert isinstance(use, bool)
        self.values[name] = use
        return self


class _TensorLocations:
    def __init__(self) -> None:
        self.optimizer = TensorLocationSettings()

    def setOptimizerLocation(self, location: TensorLocationSettings) -> _TensorLocations:
        assert isinstance(location, TensorLocationSettings)
        self.optimizer = location
        return self


class _PopartOptions:
    """What goes to the compiler untouched."""

    def __init__(self) -> None:
        self.options: Dict[str, Any] = {}
        self.patterns: Dict[str, bool] = {}

    def set(self, key: str, value: Any) -> _PopartOptions:
        self.options[key] = value
        return self

    def setPatterns(self, patterns: Mapping[str, bool]) -> _PopartOptions:
        self.patterns.update(patterns)
        return self


class _Precision:
    def __init__(self, popart: _PopartOptions) -> None:
        self._popart = popart

    def enableStochasticRounding(self, enabled: bool) -> _Precision:
        self._popart.set("enableStochasticRounding", enabled)
        return self

    def setPartialsType(self, dtype: torch.dtype) -> _Precision:
        if dtype not in (torch.float16, torch.float32):
            raise ValueError("parameter to setPartialsType should be either torch.float or torch.half")
        self._popart.set("partialsTypeMatMuls", str(dtype))
        return self


class _Training:
    def __init__(self, popart: _PopartOptions) -> None:
        self._popart = popart
        self.gradient_accumulation = 1
        self.reduction = ReductionType.Mean

    def gradientAccumulation(self, gradient_accumulation: int) -> _Training:
        """Args: gradient_accumulation: micro-batches of each replica per weight update."""
        self.gradient_accumulation = _positive("gradientAccumulation", gradient_accumulation)
        return self

    def accumulationAndReplicationReductionType(self, reduction_type: ReductionType) -> _Training:
        if reduction_type not in (ReductionType.Mean, ReductionType.Sum):
            raise ValueError("reduction_type must be set to poptorch.ReductionType.Mean or poptorch.ReductionType.Sum")
        self.reduction = reduction_type
        return self

    def setAutomaticLossScaling(self, enabled: bool) -> _Training:
        self._popart.set("automaticLossScalingSettings.enabled", enabled)
        return self


class Options:
    def __init__(self) -> None:
        self._Popart = self._popart = _PopartOptions()
        self.Training = _Training(self._Popart)
        self.Precision = _Precision(self._Popart)
        self.TensorLocations = _TensorLocations()
        self.replication_factor = 1
        self.device_iterations = 1
        self.output_mode = OutputMode.Default
        self.auto_round_num_ipus = False
        self.random_seed: Optional[int] = None
        self.offline = False
        self.execution_strategy = PipelinedExecution()
        self.available_memory_proportion: Dict[str, float] = {}
        self.cache_dir = os.environ.get("POPTORCH_CACHE_DIR", "")

    def replicationFactor(self, replication_factor: int) -> Options:
        self.replication_factor = _positive("replicationFactor", replication_factor)
        return self

    def deviceIterations(self, device_iterations: int) -> Options:
        self.device_iterations = _positive("deviceIterations", device_iterations)
        return self

    def outputMode(self, output_mode: OutputMode) -> Options:
        """Raises: ValueError for EveryN, which nobody here uses."""
        if output_mode == OutputMode.EveryN:
            raise ValueError("OutputMode.EveryN is not emulated")
        self.output_mode = OutputMode(output_mode)
        return self

    def autoRoundNumIPUs(self, auto_round_num_ipus: bool = True) -> Options:
        """Take the next power of two of IPUs, which is what can be had."""
        self.auto_round_num_ipus = auto_round_num_ipus
        return self

    def randomSeed(self, random_seed: int) -> Options:
        assert isinstance(random_seed, int)
        self.random_seed = random_seed
        return self

    def setExecutionStrategy(self, strategy: PipelinedExecution) -> Options:
        assert isinstance(strategy, PipelinedExecution)
        self.execution_strategy = strategy
        return self

    def useOfflineIpuTarget(self) -> Options:
        """Compile only: no IPU is needed."""
        self.offline = True
        return self

    def setAvailableMemoryProportion(self, available_memory_proportion: Mapping[str, float]) -> Options:
        """Args: available_memory_proportion: `IPU0` and so on -> share of its memory for temporary values. PopTorch looks at
        the shares no sooner than the compiler does.
        """
        for ipu in available_memory_proportion:
            assert ipu.startswith("IPU") and ipu[3:].isdigit(), f"Invalid key {ipu}, expected IPU0, IPU1, ..."
        self.available_memory_proportion = dict(available_memory_proportion)
        return self

    def enableExecutableCaching(self, path: str) -> Options:
        self.cache_dir = path
        return self

    @property
    def samples_factor(self) -> int:
        """Micro-batches in one call."""
        return self.device_iterations * self.replication_factor * self.Training.gradient_accumulation

    @property
    def pipelined(self) -> bool:
        return not isinstance(self.execution_strategy, ShardedExecution)

    def described(self) -> str:
        """What decides over the executable, as far as it is told here."""
        parts = (self.replication_factor, self.device_iterations, self.Training.gradient_accumulation, self.pipelined)
        return repr((*parts, self.output_mode.name, self.Training.reduction.name, self.available_memory_proportion))


def _positive(name: str, value: int) -> int:
    assert isinstance(value, int) and value > 0, f"{name} must be greater than 0: {value}"
    return value
