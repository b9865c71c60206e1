"""Enumerations of PopTorch's options."""

from enum import Enum, IntEnum


class OutputMode(IntEnum):
    """Which results of the iterations of one call come back."""

    Final = 0
    EveryN = 1
    All = 2
    Sum = 3
    Default = 4


class ReductionType(IntEnum):
    Sum = 0
    Mean = 1
    NoReduction = 2


class AutoStage(IntEnum):
    """AutoIncrement: another IPU than the block before begins a new stage, also one that had a stage already."""

    SameAsIpu = 0
    AutoIncrement = 1


class DataLoaderMode(Enum):
    """All modes give the same batches in the same order; here they are all loaded when they are asked for."""

    Sync = 0
    Async = 1
    AsyncRebatched = 2


class MatMulSerializationMode(Enum):
    """In default arguments of layers that a Vision Transformer doesn't have."""

    InputChannels = "input_channels"
    ReducingDim = "reducing_dim"
    OutputChannels = "output_channels"
    Disabled = "none"
