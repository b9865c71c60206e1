"""The findings of ChestX-ray14 and how label cells name them."""

from __future__ import annotations

from typing import FrozenSet, List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

NIH_FINDINGS: Tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
"""The 14 findings in alphabetical order. Source: Wang et al., CVPR 2017, and the NIH labels file."""

NO_FINDING = "No Finding"
"""What NIH writes where none of the 14 is present. It is no finding, but a run may ask for it as if it were one: it then
has an output, and no place in a mean over findings."""

OTHER_SPELLINGS = {"Infiltration": "Infiltrate"}
"""ChestX-ray14's own second spelling, that of its file of boxes."""

SEPARATOR = "|"
"""Between the findings of one cell of the NIH labels file."""


def parse_findings(cell: str, separator: str) -> FrozenSet[str]:
    """Findings named in one cell of the label column, for example `Effusion|Mass`.

    Returns: the names; `No Finding` alone for a healthy image, and never beside others.
    """
    names = (name.strip() for name in cell.split(separator))
    return frozenset(name for name in names if name and name != NO_FINDING) or frozenset({NO_FINDING})


def has_finding(present: FrozenSet[str], finding: str) -> bool:
    """Whether an image with the findings `present` has this one."""
    return finding in present or OTHER_SPELLINGS.get(finding) in present


def findings_proper(findings: Sequence[str]) -> List[int]:
    """Indices of those that aren't `No Finding`; of that, if there is no other."""
    return [index for index, name in enumerate(findings) if name != NO_FINDING] or [0]


def multi_hot(present: FrozenSet[str], findings: Sequence[str]) -> NDArray[np.int8]:
    """(len(findings),) int8, 1 where the finding is present, see has_finding."""
    return np.array([has_finding(present, finding) for finding in findings], dtype=np.int8)
