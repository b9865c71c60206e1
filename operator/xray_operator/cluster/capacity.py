"""Asks the V-IPU proxy of Graphcore's IPU Operator how many partitions of a size are free.

POST /query {"size": 4} -> {"available": true, "numOfPartitions": 2, "message": ""}. For a size that is impossible it was
seen to answer `available: true` with 0 partitions, so only their number counts.
Source: https://docs.graphcore.ai/projects/kubernetes-user-guide/en/latest/usage-statistics.html
"""

from __future__ import annotations

from typing import Final

import aiohttp

from xray_operator.cluster.progress import MOST_BYTES, read_bounded
from xray_operator.core.observed import Capacity
from xray_operator.core.reports import FreePartitions, read_report

ANSWER_SECONDS: Final = 5.0
"""The proxy asks the V-IPU controller first; the worker that asks does nothing else meanwhile."""


async def fetch_capacity(
    session: aiohttp.ClientSession, url: str, size: int, timeout_seconds: float = ANSWER_SECONDS
) -> Capacity:
    """How many partitions of so many IPUs are free; whatever goes wrong is told, never raised."""
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    try:
        async with session.post(
            f"{url}/query", json={"size": size}, timeout=timeout, allow_redirects=False
        ) as response:
            if response.status != 200:
                return Capacity(trouble=f"answers with status {response.status}")
            told = read_report(FreePartitions, await read_bounded(response))
    except TimeoutError:
        return Capacity(trouble=f"does not answer within {timeout_seconds:g} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Capacity(trouble=f"can't be asked ({type(error).__name__})")
    return (
        Capacity(told.num_of_partitions) if told else Capacity(trouble=f"answers nonsense, or over {MOST_BYTES} bytes")
    )
