"""Numbers as JSON has them: rounded, and null in place of what is no number."""

from __future__ import annotations

import math
from typing import List, Optional

from xray_trainer.evaluation.resampling import Interval

DECIMALS = 6


def rounded(value: Optional[float]) -> Optional[float]:
    """Python's own float, also of one of numpy's, which YAML doesn't know."""
    return round(float(value), DECIMALS) if value is not None and math.isfinite(value) else None


def rounded_interval(interval: Optional[Interval]) -> Optional[List[float]]:
    return None if interval is None else [round(bound, DECIMALS) for bound in interval]
