"""The model on its IPUs: compiled for one shape of input, with weights of its own, run by calling it."""

from __future__ import annotations

import hashlib
import logging
import os
import time
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import torch
from torch.func import functional_call

from poptorch._blocks import StagesWatch
from poptorch._errors import Error
from poptorch._hardware import acquire, check_health, check_memory, release
from poptorch.enums import OutputMode, ReductionType
from poptorch.optim import SGD, Optimizer, State
from poptorch.options import Options

LOG = logging.getLogger("poptorch.emulation")
LOG.setLevel(logging.INFO)  # its parent's is for PopTorch's own messages, and programs silence those

NO_EXECUTABLE = "Model has not been compiled or has been destroyed."
DEFAULT_LEARNING_RATE = 0.01
"""Of the SGD that a training model gets which has no optimizer, as with PopTorch."""


class Inputs(NamedTuple):
    """Arguments of the model's forward pass; all are tensors whose first dimension is the batch."""

    args: Tuple[torch.Tensor, ...]
    kwargs: Dict[str, torch.Tensor]

    def shapes(self) -> List[Tuple[str, Tuple[int, ...], str]]:
        return [(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in self._named()]

    def micro_batches(self, count: int) -> List[Inputs]:
        """Raises: AssertionError if a batch can't be divided by that count."""
        for name, tensor in self._named():
            size = tensor.shape[0] if tensor.ndim else 1
            assert size % count == 0, (
                f"Invalid batch dimension: In the input {name}, the batch dimension ({size}) must be a multiple of "
                f"deviceIterations * replicationFactor * gradientAccumulation = {count}"
            )
        parts = [tensor.detach().chunk(count) for tensor in self.args]
        named = {name: tensor.detach().chunk(count) for name, tensor in self.kwargs.items()}
        return [
            Inputs(
                tuple(_computable(part[index]) for part in parts),
                {name: _computable(part[index]) for name, part in named.items()},
            )
            for index in range(count)
        ]

    def _named(self) -> List[Tuple[str, torch.Tensor]]:
        return [(str(index), tensor) for index, tensor in enumerate(self.args)] + list(self.kwargs.items())


class Executable(NamedTuple):
    shapes: List[Tuple[str, Tuple[int, ...], str]]
    """What it takes, and nothing else."""
    ipus: int


class PoplarExecutor:
    """Made by `trainingModel` and `inferenceModel`.

    The samples of one call are taken in the order device iteration, accumulation, replica, micro-batch.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        options: Optional[Options],
        training: bool,
        optimizer: Optional[torch.optim.Optimizer] = None,
    ) -> None:
        self._user_model = model
        self._options = options or Options()
        self._training = training
        self._executable: Optional[Executable] = None
        self._is_attached = False
        self._dirty = False
        self._calls = 0
        self._weights: Dict[str, torch.Tensor] = {}
        self._dtypes: Dict[str, torch.dtype] = {}
        self._state: Dict[str, State] = {}
        self._groups: List[Tuple[List[str], Mapping[str, Any]]] = []
        self._random_state: Optional[torch.Tensor] = None
        weakref.finalize(self, release, id(self))
        if training:
            self._let_model_ask_for_weights()
            self.setOptimizer(optimizer or SGD(model.parameters(), lr=DEFAULT_LEARNING_RATE))
        elif self._options.Training.gradient_accumulation != 1:
            raise Error("Training.gradientAccumulation has to be 1 for inference")

    def __getattr__(self, name: str) -> Any:
        """What it hasn't is the model's."""
        return getattr(self.__dict__["_user_model"], name)

    @property
    def options(self) -> Options:
        return self._options

    @property
    def model(self) -> torch.nn.Module:
        return self._user_model

    # the device

    def isCompiled(self) -> bool:
        return self._executable is not None

    def isAttachedToDevice(self) -> bool:
        return self._is_attached

    def attachToDevice(self) -> None:
        """Take the IPUs, and the host's weights onto them.

        Raises: Error if it isn't compiled, has them already or can't have them; AssertionError for an offline target.
        """
        executable = self._compiled()
        assert not self._options.offline, "Trying to attach to an offline device (ConnectionType.Never)"
        if self._is_attached:
            raise Error("Device is already attached")
        acquire(id(self), executable.ipus)
        self._is_attached = True
        self.copyWeightsToDevice()

    def detachFromDevice(self) -> None:
        """Let the IPUs go; the host gets the weights if they have changed. Raises: Error if it isn't attached."""
        self._compiled()
        if not self._is_attached:
            raise Error("Device is not attached")
        self._give_weights_if_changed()
        self._is_attached = False
        release(id(self))

    def copyWeightsToHost(self) -> None:
        """Raises: Error if there are none on a device."""
        self._compiled()
        if not self._is_attached:
            raise Error("Device is not attached")
        self._dirty = False
        with torch.no_grad():
            for name, tensor in _tensors_of(self._user_model).items():
                tensor.copy_(self._weights[name])

    def copyWeightsToDevice(self) -> None:
        """Raises: Error if it isn't compiled."""
        self._compiled()
        self._dirty = False
        host = _tensors_of(self._user_model)
        self._dtypes = {name: tensor.dtype for name, tensor in host.items()}
        self._weights = {name: _on_device(tensor, self._training) for name, tensor in host.items()}

    def _compiled(self) -> Executable:
        if self._executable is None:
            raise Error(NO_EXECUTABLE)
        return self._executable

    def _give_weights_if_changed(self) -> None:
        if self._dirty:
            self.copyWeightsToHost()

    def _let_model_ask_for_weights(self) -> None:
        """Whoever reads the host's weights as a whole gets those of the device; whoever sets them finds that they stay.

        PopTorch does it for each single tensor, too.
        """
        executor = weakref.ref(self)

        def synchronise(*_: Any) -> None:
            alive = executor()
            if alive is not None:
                alive._give_weights_if_changed()

        self._user_model.register_state_dict_pre_hook(synchronise)  # type: ignore[no-untyped-call]
        self._user_model._register_load_state_dict_pre_hook(synchronise)  # type: ignore[no-untyped-call]

    # compilation

    def compile(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> None:
        """For inputs of these shapes; then take the IPUs, unless the target is offline.

        Raises: Error if the model can't be laid out on IPUs, if they can't be had, or if it doesn't fit onto them.
        """
        if self.isCompiled():
            LOG.warning("Call to compile() ignored: the executable is already compiled")
            return
        inputs = Inputs(args, kwargs)
        first = inputs.micro_batches(self._options.samples_factor)[0]
        executable = Executable(inputs.shapes(), self._count_ipus(self._trace(first)))
        LOG.warning("EMULATED: no IPU is used, the CPU computes what %d IPUs would", executable.ipus)
        if not self._options.offline:
            acquire(id(self), executable.ipus)
        try:
            check_memory()
        except Error:
            release(id(self))
            raise
        self._build(executable)
        self._executable = executable
        if not self._options.offline:
            self._is_attached = True
            self.copyWeightsToDevice()

    def _trace(self, inputs: Inputs) -> List[int]:
        """The IPU of each stage, from a forward pass on the host.

        Raises: Error if pipelining needs more accumulation.
        """
        weights = {name: _on_device(tensor, False) for name, tensor in _tensors_of(self._user_model).items()}
        with torch.no_grad(), self._own_random_numbers(), StagesWatch() as watch:
            functional_call(self._user_model, weights, inputs.args, inputs.kwargs)
        needed = 2 * len(watch.stages) - 1
        accumulation = self._options.Training.gradient_accumulation
        if self._training and self._options.pipelined and accumulation < needed and len(watch.stages) > 1:
            raise Error(
                f"Invalid gradientAccumulation {accumulation}: a pipeline of {len(watch.stages)} stages needs at least "
                f"{needed} micro-batches to train",
                "popart_exception",
            )
        return watch.stages

    def _count_ipus(self, stages: Sequence[int]) -> int:
        """Raises: Error if they are no power of two and may not be rounded up to one."""
        ipus = (max(stages) + 1) * self._options.replication_factor
        rounded = 1 << (ipus - 1).bit_length()
        if ipus != rounded and not self._options.auto_round_num_ipus:
            raise Error(
                f"{ipus} IPUs are no power of two; expected one, or autoRoundNumIPUs(True)", "poptorch_cpp_error"
            )
        return rounded

    def _build(self, executable: Executable) -> None:
        """Unless it is kept: take the time of a compiler, and write a file where PopART keeps what it compiled."""
        kept = self._place_in_cache(executable)
        if kept and kept.is_file():
            LOG.info("executable found in the cache: %s", kept.name)
            return
        seconds = float(os.environ.get("POPTORCH_EMULATED_COMPILE_SECONDS", "0"))
        LOG.info("compiling for %g s", seconds)
        time.sleep(seconds)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text("no executable: written by an emulation of PopTorch\n", encoding="utf-8")

    def _place_in_cache(self, executable: Executable) -> Optional[Path]:
        """None without a cache."""
        if not self._options.cache_dir:
            return None
        host = [
            (name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in _tensors_of(self._user_model).items()
        ]
        what = repr((self._training, self._options.described(), executable, host))
        return Path(self._options.cache_dir) / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.popef"

    # execution

    def __call__(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> Any:
        """One call of the executable: forward passes, and for a training model one update per device iteration.

        Returns: what the model returns, of the micro-batches that the output mode tells.
        Raises: Error if the inputs have other shapes than those it was compiled for.
        """
        assert not self._options.offline, "Trying to run a model on an offline device (ConnectionType.Never)"
        inputs = Inputs(args, kwargs)
        if not self.isCompiled():
            self.compile(*args, **kwargs)
        if not self._is_attached:
            self.attachToDevice()
        executable = self._compiled()
        if inputs.shapes() != executable.shapes:
            raise Error(
                f"inputs {inputs.shapes()} were given to a model compiled for {executable.shapes}", "poptorch_cpp_error"
            )
        self._user_model.train(self._training)
        micro_batches = inputs.micro_batches(self._options.samples_factor)
        with self._own_random_numbers():
            return self._collect(self._train(micro_batches) if self._training else self._infer(micro_batches))

    def _infer(self, micro_batches: Sequence[Inputs]) -> List[Any]:
        with torch.no_grad():
            return [self._forward(each) for each in micro_batches]

    def _train(self, micro_batches: Sequence[Inputs]) -> List[Any]:
        self._calls += 1
        check_health(self._calls)
        per_update = self._options.replication_factor * self._options.Training.gradient_accumulation
        results = []
        with torch.enable_grad():
            for start in range(0, len(micro_batches), per_update):
                for inputs in micro_batches[start : start + per_update]:
                    results.append(self._forward(inputs))
                    _loss_of(results[-1]).backward()  # type: ignore[no-untyped-call]
                self._update(per_update)
        return results

    def _forward(self, inputs: Inputs) -> Any:
        return functional_call(self._user_model, self._weights, inputs.args, inputs.kwargs)

    @torch.no_grad()
    def _update(self, micro_batches: int) -> None:
        """The weights, by the sum or the mean of the gradients of these micro-batches."""
        mean = self._options.Training.reduction == ReductionType.Mean
        for names, group in self._groups:
            for name in names:
                weight = self._weights[name]
                if weight.grad is None:
                    continue
                gradient = weight.grad / micro_batches if mean else weight.grad
                self._optimizer._update(self._state.setdefault(name, {}), weight, gradient, group)
                weight.grad = None
                weight.copy_(weight.to(self._dtypes[name]))  # an IPU keeps it in its own precision
        self._dirty = True

    def _collect(self, results: Sequence[Any]) -> Any:
        """Args: results: of the micro-batches, in their order."""
        replicas, last = self._options.replication_factor, results[-1]
        columns = zip(*map(_values, results))
        mode = self._output_mode()
        if mode == OutputMode.Sum:
            chosen = [[sum(column[replica::replicas]) for replica in range(replicas)] for column in columns]
        else:
            chosen = [list(column if mode == OutputMode.All else column[-replicas:]) for column in columns]
        half = torch.float16 in self._dtypes.values()
        return _like(last, [_joined([_returned(each, half) for each in column]) for column in chosen])

    def _output_mode(self) -> OutputMode:
        mode = self._options.output_mode
        if mode != OutputMode.Default:
            return mode
        return OutputMode.Final if self._training else OutputMode.All

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """As a device has: the host's are as they were, and go on from there with the next call."""
        with torch.random.fork_rng(devices=[]):
            if self._random_state is not None:
                torch.set_rng_state(self._random_state)
            elif self._options.random_seed is not None:
                torch.manual_seed(self._options.random_seed)
            yield
            self._random_state = torch.get_rng_state()

    # the optimizer

    def setOptimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """From the next call on; a change of a group's values needs it, too. A state that was loaded reaches the device.

        Raises: ValueError if it isn't one of PopTorch's.
        """
        if not isinstance(optimizer, Optimizer):
            raise ValueError(f"{type(optimizer).__name__}: only poptorch.optim is emulated")
        names = {id(parameter): name for name, parameter in self._user_model.named_parameters()}
        self._groups = [
            (
                [names[id(parameter)] for parameter in group["params"]],
                {name: value for name, value in group.items() if name != "params"},
            )
            for group in optimizer.param_groups
        ]
        self._optimizer = optimizer
        if optimizer.read_device is None and optimizer.ipu_state is not None:
            self._state = _copied(optimizer.ipu_state)
        optimizer.read_device = self._read_state

    def _read_state(self) -> Dict[str, State]:
        return _copied(self._state)


def trainingModel(
    model: torch.nn.Module,
    options: Optional[Options] = None,
    optimizer: Optional[torch.optim.Optimizer] = None,
) -> PoplarExecutor:
    return PoplarExecutor(model, options, training=True, optimizer=optimizer)


def inferenceModel(model: torch.nn.Module, options: Optional[Options] = None) -> PoplarExecutor:
    return PoplarExecutor(model, options, training=False)


def _tensors_of(model: torch.nn.Module) -> Dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _computable(tensor: torch.Tensor) -> torch.Tensor:
    """The CPU has few operators of half precision."""
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def _on_device(tensor: torch.Tensor, training: bool) -> torch.Tensor:
    copy = _computable(tensor.detach()).clone()
    return copy.requires_grad_(training and tensor.requires_grad)


def _copied(state: Mapping[str, State]) -> Dict[str, State]:
    return {name: {key: value.clone() for key, value in each.items()} for name, each in state.items()}


def _values(result: Any) -> List[torch.Tensor]:
    """Raises: Error if the model returns something that isn't tensors, side by side."""
    values = list(result.values() if isinstance(result, dict) else result if isinstance(result, tuple) else [result])
    if not all(isinstance(value, torch.Tensor) for value in values):
        raise Error(f"the model returns {[type(value).__name__ for value in values]}; only tensors are emulated")
    return values


def _like(result: Any, values: List[torch.Tensor]) -> Any:
    if isinstance(result, dict):
        return type(result)(**dict(zip(result, values)))
    return tuple(values) if isinstance(result, tuple) else values[0]


def _loss_of(result: Any) -> torch.Tensor:
    """The first of what a model returns. Raises: Error if it is no loss."""
    loss = _values(result)[0]
    if loss.ndim or not loss.requires_grad:
        raise Error("a training model has to return a loss first")
    return loss


def _returned(tensor: torch.Tensor, half: bool) -> torch.Tensor:
    tensor = tensor.detach()
    return tensor.half() if half and tensor.is_floating_point() else tensor


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    if len(tensors) == 1:
        return tensors[0]
    return torch.cat(list(tensors)) if tensors[0].ndim else torch.stack(list(tensors))
