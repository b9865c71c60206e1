"""The names of PopART that optimum-graphcore passes on as options; with `poptorch` beside it, a stand-in for IPUs."""

from enum import IntEnum


class AccumulateOuterFragmentSchedule(IntEnum):
    """How PopART orders the weight updates. Only the names matter here: the numbers go into options that nobody reads."""

    Scheduler = 0
    Serial = 1
    OverlapCycleOptimized = 2
    OverlapMemoryOptimized = 3


class SubgraphCopyingStrategy(IntEnum):
    OnEnterAndExit = 0
    JustInTime = 1
