"""PopTorch's optimizers: torch's to look at, with their state on the device.

The device computes `_update` in 32 bits, also where an IPU would keep gradients or momenta in 16.
"""

from __future__ import annotations

import abc
import math
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

import torch

State = Dict[str, torch.Tensor]
Group = Mapping[str, Any]
FLOATS = (torch.float16, torch.float32)


class VariableAttributes:
    """Which attributes may still change once the model is compiled. Said, and without effect: all may."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = set(allowed)
        self._constant: List[str] = []

    def markAsConstant(self, attr: str) -> None:
        """Raises: AssertionError if the optimizer has no such attribute."""
        assert attr in self._allowed, f"Unknown attribute {attr}, allowed values: {sorted(self._allowed)}"
        self._constant.append(attr)

    def isConstant(self, attr: str) -> bool:
        return attr in self._constant


class Optimizer(torch.optim.Optimizer, abc.ABC):
    """What all have: hyper-parameters in groups, as torch's, of which a change counts from `setOptimizer` on."""

    def __init__(
        self,
        params: Iterable[Any],
        defaults: Mapping[str, Any],
        loss_scaling: Optional[float] = None,
        max_grad_norm: Optional[float] = None,
        **accumulation_types: Optional[torch.dtype],
    ) -> None:
        if max_grad_norm not in (None, math.inf):
            raise ValueError(f"max_grad_norm: {max_grad_norm} is not emulated")
        assert all(dtype in (None, *FLOATS) for dtype in accumulation_types.values()), (
            "Accumulation types must be either torch.float32 or torch.float16"
        )
        self.loss_scaling = 1.0 if loss_scaling is None else loss_scaling
        self.ipu_state: Optional[Dict[str, State]] = None
        self.read_device: Optional[Callable[[], Dict[str, State]]] = None
        torch.optim.Optimizer.__init__(self, params, dict(defaults))
        self.variable_attrs = VariableAttributes([*defaults, "loss_scaling"])

    def state_dict(self) -> Dict[str, Any]:
        """torch's, which learning-rate schedulers look at, and the state on the device."""
        state = self.ipu_state if self.read_device is None else self.read_device()
        param = None if state is None else {"loss_scaling": self.loss_scaling}
        return {"ipu_state": state, "ipu_param": param, **torch.optim.Optimizer.state_dict(self)}

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """It reaches the device with the next compilation or `setOptimizer`. Raises: RuntimeError if it is torch's."""
        if not ("ipu_state" in state_dict and "ipu_param" in state_dict):
            raise RuntimeError("Only IPU optimizer states can be loaded onto the IPU.")
        torch.optim.Optimizer.load_state_dict(self, state_dict)
        self.ipu_state, self.read_device = state_dict["ipu_state"], None

    @abc.abstractmethod
    def _update(self, state: State, weight: torch.Tensor, gradient: torch.Tensor, group: Group) -> None:
        """One step of one tensor, in place.

        Args:
            state: of this tensor; empty at first.
        """


def _average(state: State, name: str, value: torch.Tensor, beta: float) -> torch.Tensor:
    """The running average, with this value in it."""
    return state.setdefault(name, torch.zeros_like(value)).mul_(beta).add_(value, alpha=1 - beta)


def _adam_direction(
    state: State, gradient: torch.Tensor, betas: Tuple[float, float], eps: float, bias_correction: bool
) -> torch.Tensor:
    """Source: Kingma & Ba 2015, algorithm 1."""
    first = _average(state, "exp_avg", gradient, betas[0])
    second = _average(state, "exp_avg_sq", gradient * gradient, betas[1])
    step = state.setdefault("step", torch.zeros(())).add_(1).item()
    if not bias_correction:
        return first / (second.sqrt() + eps)
    root = (second / (1 - betas[1] ** step)).sqrt()
    return first / (1 - betas[0] ** step) / (root + eps)


class AdamW(Optimizer, torch.optim.AdamW):
    """Weight decay apart from the gradient; the bias correction can be left out."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: Tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        bias_correction: bool = True,
        **kwargs: Any,
    ) -> None:
        self.bias_correction = bias_correction
        Optimizer.__init__(self, params, _adam_defaults(lr, betas, eps, weight_decay, amsgrad), **kwargs)

    def _update(self, state: State, weight: torch.Tensor, gradient: torch.Tensor, group: Group) -> None:
        direction = _adam_direction(state, gradient, group["betas"], group["eps"], self.bias_correction)
        weight.sub_(direction + group["weight_decay"] * weight, alpha=group["lr"])


class Adam(Optimizer, torch.optim.Adam):
    """Weight decay as a part of the gradient."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: Tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        **kwargs: Any,
    ) -> None:
        Optimizer.__init__(self, params, _adam_defaults(lr, betas, eps, weight_decay, amsgrad), **kwargs)

    def _update(self, state: State, weight: torch.Tensor, gradient: torch.Tensor, group: Group) -> None:
        gradient = gradient + group["weight_decay"] * weight
        weight.sub_(_adam_direction(state, gradient, group["betas"], group["eps"], True), alpha=group["lr"])


def _adam_defaults(
    lr: float, betas: Tuple[float, float], eps: float, weight_decay: float, amsgrad: bool
) -> Dict[str, Any]:
    """Raises: ValueError for amsgrad, as PopTorch does."""
    if amsgrad:
        raise ValueError("Only non-amsgrad Adam/AdamW optimizers are supported.")
    values = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": False}
    # torch's own classes fill these in where they read a state
    return {**values, "foreach": None, "maximize": False, "capturable": False, "differentiable": False, "fused": None}


class LAMB(Optimizer):
    """Adam's direction, as long as the tensor's own norm. Source: You et al. 2020, algorithm 2."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: Tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        bias_correction: bool = True,
        max_weight_norm: Optional[float] = None,
        **kwargs: Any,
    ) -> None:
        self.bias_correction = bias_correction
        norm = math.inf if max_weight_norm is None else max_weight_norm
        values = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "max_weight_norm": norm}
        Optimizer.__init__(self, params, values, **kwargs)

    def _update(self, state: State, weight: torch.Tensor, gradient: torch.Tensor, group: Group) -> None:
        direction = _adam_direction(state, gradient, group["betas"], group["eps"], self.bias_correction)
        direction = direction + group["weight_decay"] * weight
        length, wanted = direction.norm().item(), min(weight.norm().item(), group["max_weight_norm"])
        ratio = wanted / length if wanted and length else 1.0
        weight.sub_(direction, alpha=group["lr"] * ratio)


class SGD(Optimizer, torch.optim.SGD):
    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        values = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "dampening": 0.0, "nesterov": False}
        values.update(maximize=False, foreach=None, differentiable=False)  # type: ignore[call-overload]
        Optimizer.__init__(self, params, values, **kwargs)

    def _update(self, state: State, weight: torch.Tensor, gradient: torch.Tensor, group: Group) -> None:
        gradient = gradient + group["weight_decay"] * weight
        velocity = state.setdefault("velocity", torch.zeros_like(weight)).mul_(group["momentum"]).add_(gradient)
        weight.sub_(velocity, alpha=group["lr"])


class RMSprop(Optimizer, torch.optim.RMSprop):
    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        values = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": 0.0}
        values.update(centered=False, maximize=False, foreach=None, differentiable=False)  # type: ignore[call-overload]
        Optimizer.__init__(self, params, values, **kwargs)

    def _update(self, state: State, weight: torch.Tensor, gradient: torch.Tensor, group: Group) -> None:
        gradient = gradient + group["weight_decay"] * weight
        square = _average(state, "square_avg", gradient * gradient, group["alpha"])
        weight.sub_(gradient / (square.sqrt() + group["eps"]), alpha=group["lr"])
