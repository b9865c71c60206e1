"""The article's own figures, for who wants to lay a run beside it. Not comparable with the others, nor with anybody's.

Its code turns the 15 outputs, `No Finding` among them, into shares of one by a softmax, although an image may have several
findings, and averages AUROC and loss over all 15.
"""

from __future__ import annotations

from typing import Any, Dict, Optional

import numpy as np
from numpy.typing import NDArray

from xray_trainer.evaluation.predictions import Predictions
from xray_trainer.evaluation.rounding import rounded
from xray_trainer.evaluation.table import Floats
from xray_trainer.findings import NIH_FINDINGS, NO_FINDING
from xray_trainer.metrics import auroc, bce_from_logits, macro

LABEL = (
    "the article's own metric: 15 outputs with No Finding, softmax over them, mean of all 15; "
    "not comparable with the other figures"
)


def article_figures(predictions: Predictions) -> Optional[Dict[str, Any]]:
    """None of a run that hasn't the article's 15 outputs."""
    if set(predictions.findings) != {*NIH_FINDINGS, NO_FINDING}:
        return None
    return {
        "auroc_macro_softmax_15": rounded(macro(auroc(softmax(predictions.logits), predictions.labels))),
        "loss_15": rounded(bce_from_logits(predictions.logits, predictions.labels)),
        "label": LABEL,
    }


def softmax(logits: NDArray[np.float32]) -> Floats:
    """Shares that add up to 1 over the outputs of each image."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
