"""A stand-in for Graphcore's PopTorch on machines without IPUs: the same programs run, and the CPU computes.

It has the names that optimum-graphcore takes to train and evaluate a Vision Transformer, with the meaning that PopTorch's
documentation gives them; any other name raises AttributeError. What it refuses, PopTorch refuses
as well, or the message says that it is not emulated.

It does not tell how fast an IPU or its compiler is, what fits into its memory, which operators it has, or how it rounds:
floats are computed in 32 bits, and weights of half precision are rounded to the nearest number after each step.

Environment:
    POPTORCH_EMULATED_IPUS: how many IPUs there are; 4 if left out.
    POPTORCH_EMULATED_COMPILE_SECONDS: how long it takes to compile what is not in the cache; 0 if left out.
    POPTORCH_EMULATED_FAILURE: what goes wrong, see `_hardware.py`.
    POPTORCH_IPU_MODEL: with 1 there is no hardware, as with PopTorch.
    POPTORCH_CACHE_DIR: the folder of compiled executables, as with PopTorch.
"""

import logging as _logging

from poptorch import optim
from poptorch._blocks import BeginBlock, recomputationCheckpoint, removeBlocks
from poptorch._data import DataLoader
from poptorch._errors import Error, RecoverableError, UnrecoverableError
from poptorch._hardware import ipuHardwareVersion
from poptorch._poplar_executor import PoplarExecutor, inferenceModel, trainingModel
from poptorch.enums import AutoStage, DataLoaderMode, MatMulSerializationMode, OutputMode, ReductionType
from poptorch.options import Options, PipelinedExecution, ShardedExecution, TensorLocationSettings

__version__ = "3.3.0+emulated"
__all__ = [
    "AutoStage",
    "BeginBlock",
    "DataLoader",
    "DataLoaderMode",
    "Error",
    "MatMulSerializationMode",
    "Options",
    "OutputMode",
    "PipelinedExecution",
    "PoplarExecutor",
    "RecoverableError",
    "ReductionType",
    "ShardedExecution",
    "TensorLocationSettings",
    "UnrecoverableError",
    "inferenceModel",
    "ipuHardwareVersion",
    "optim",
    "recomputationCheckpoint",
    "removeBlocks",
    "setLogLevel",
    "trainingModel",
]


def setLogLevel(level: str) -> None:
    """Args: level: TRACE, DEBUG, INFO, WARN, ERR or OFF.

    Raises: ValueError.
    """
    levels = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "ERR": 40, "OFF": 60}
    if level not in levels:
        raise ValueError(f"Unknown log level: {level}; expected one of {', '.join(levels)}")
    _logging.getLogger("poptorch").setLevel(levels[level])
