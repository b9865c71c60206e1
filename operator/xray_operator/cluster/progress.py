"""Asks a pod for the progress of the container that runs. An answer that is late, long or strange is no answer."""

from __future__ import annotations

import logging
from typing import Final

import aiohttp

from xray_operator import names
from xray_operator.core.reports import Progress, read_report

logger = logging.getLogger(__name__)

MOST_BYTES: Final = 65536
"""A hundred times what a trainer says."""


async def fetch_progress(
    session: aiohttp.ClientSession, ip: str, port: int, timeout_seconds: float, run_until: str = ""
) -> Progress | None:
    """What the pod tells, or None: never a reason to act.

    Args:
        run_until: what the pod is told on the occasion (names.RUN_UNTIL); "" if nothing.
    """
    host = f"[{ip}]" if ":" in ip else ip
    url = f"http://{host}:{port}/progress"
    headers = {names.RUN_UNTIL: run_until} if run_until else {}
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    try:
        async with session.get(url, timeout=timeout, allow_redirects=False, headers=headers) as response:
            return read_report(Progress, await read_bounded(response)) if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        logger.debug("no progress from %s: %r", url, error)
        return None


async def read_bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body, or nothing if it is longer than anybody should be."""
    body = b""
    async for chunk in response.content.iter_chunked(MOST_BYTES):
        body += chunk
        if len(body) > MOST_BYTES:
            return b""
    return body
