"""Whether a partition is free for a run whose flavor says whom to ask. Called by reconcile; nothing here asks.

What the proxy calls free may be spoken for: by an IPUJob of ours that was made and has no partition yet. Those are listed
before the proxy is asked, so that one that gets its partition in between counts twice, and never not at all; and the
workers make IPUJobs one at a time. IPUJobs of other people, or of another operator, may still come first: then the run's
waits at Graphcore's operator, with its IPUJob made.
"""

from __future__ import annotations

from dataclasses import dataclass

from xray_operator import names
from xray_operator.core.observed import Capacity
from xray_operator.core.plan import Snapshot


@dataclass(frozen=True)
class Wait:
    """Why nothing is claimed yet."""

    reason: str
    message: str


def find_wait(snapshot: Snapshot, capacity: Capacity | None) -> Wait | None:
    """Why a run may not claim its accelerators now; None if it may.

    What isn't known is no leave: an IPUJob that can't have its partition hangs, and its controller doesn't say why.
    """
    if snapshot.vipu_proxy_url is None:
        return None
    if capacity is None or capacity.partitions is None:
        trouble = capacity.trouble if capacity else "was not asked"
        told = f"V-IPU proxy {snapshot.vipu_proxy_url} {trouble}; nothing is claimed until it tells what is free"
        return Wait(names.CAPACITY_UNKNOWN, told)
    if capacity.partitions <= capacity.promised:
        ipus = names.counted(snapshot.accelerators, "IPU")
        left = f"{capacity.partitions}, for runs whose IPUJobs were made before" if capacity.partitions else "none"
        told = f"waits for a partition of {ipus}: V-IPU proxy {snapshot.vipu_proxy_url} has {left}"
        return Wait(names.NO_PARTITION_FREE, told)
    return None
