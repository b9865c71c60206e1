"""`python -m xray_operator --config FILE`: starts everything, and ends when anything ends."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from pathlib import Path
from typing import Never

import aiohttp
from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from xray_operator import __version__
from xray_operator.budget_metrics import BudgetMetrics
from xray_operator.cluster.client import Cluster
from xray_operator.config import OperatorConfig, load_config
from xray_operator.errors import ConfigError
from xray_operator.freshness import Freshness
from xray_operator.gather import Gatherer
from xray_operator.handlers import run_kopf
from xray_operator.index import Index
from xray_operator.metrics import Metrics
from xray_operator.work_queue import WorkQueue
from xray_operator.workers import Operator

CONFIG_VARIABLE = "XRAY_OPERATOR_CONFIG"
logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 after a signal, 1 when a watch, a worker or the resync died, 2 for a wrong file."""
    parser = argparse.ArgumentParser(prog="xray-operator", description=__doc__)
    default = os.environ.get(CONFIG_VARIABLE)
    parser.add_argument("--config", type=Path, default=default, help=f"YAML file; default ${CONFIG_VARIABLE}")
    parser.add_argument("--verbose", action="store_true", help="log every request that was refused")
    options = parser.parse_args(arguments)
    set_up_logging(verbose=options.verbose)
    try:
        asyncio.run(run(load_config(options.config) if options.config else OperatorConfig()))
    except ConfigError as error:
        logger.error("%s", error)
        return 2
    except ExceptionGroup as group:
        logger.error("the operator ends, because a part of it has ended", exc_info=group)
        return 1
    return 0


def set_up_logging(*, verbose: bool) -> None:
    """One line per thing that happened, without kopf's line per event of each pod."""
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format=form)
    for chatty in ("kopf.objects", "kopf.activities", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(logging.DEBUG if verbose else logging.WARNING)


async def run(config: OperatorConfig) -> None:
    """Run until a signal; raises what a part of the operator raised."""
    cluster = await Cluster.connect(config.request_timeout_seconds)
    async with aiohttp.ClientSession() as session:
        operator = build_operator(config, cluster, session)
        runner = await serve(operator)
        try:
            await run_parts(operator)
        finally:
            await runner.cleanup()
            await cluster.close()


def build_operator(config: OperatorConfig, cluster: Cluster, session: aiohttp.ClientSession) -> Operator:
    """Wire the parts together; nothing runs yet."""
    index, queue = Index(), WorkQueue()
    metrics = Metrics(__version__, index.all_jobs, lambda: len(queue))
    metrics.registry.register(BudgetMetrics(index.all_jobs, index.all_budgets))
    cluster.answered = metrics.request_answered
    return Operator(
        config=config,
        cluster=cluster,
        gatherer=Gatherer(index, cluster, session, config),
        index=index,
        metrics=metrics,
        queue=queue,
        freshness=Freshness(heard_at=time.monotonic()),
    )


async def run_parts(operator: Operator) -> None:
    """Workers, resync and watches live and die together."""
    async with asyncio.TaskGroup() as parts:
        # before the watches: kopf stops whatever tasks were started after it when it ends
        helpers = [parts.create_task(operator.work()) for _ in range(operator.config.workers)]
        helpers.append(parts.create_task(resync(operator)))
        await run_kopf(operator)
        for helper in helpers:
            helper.cancel()


async def resync(operator: Operator) -> Never:
    """Before the operator is connected, the start itself says what is missing."""
    await operator.connected.wait()
    await operator.resync()


async def serve(operator: Operator) -> web.AppRunner:
    """/metrics, /readyz and /healthz on both ports of the configuration."""

    async def metrics(_: web.Request) -> web.Response:
        body = generate_latest(operator.metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def ready(_: web.Request) -> web.Response:
        connected = operator.connected.is_set()
        return web.Response(status=200 if connected else 503, text="ok" if connected else "not connected yet")

    async def healthy(_: web.Request) -> web.Response:
        silent = operator.freshness.silent_seconds(time.monotonic())
        deaf = silent > operator.config.deaf_after_seconds
        return web.Response(status=500 if deaf else 200, text=f"{silent:.0f} s since the API server was heard")

    application = web.Application()
    for path, handler in (("/metrics", metrics), ("/readyz", ready), ("/healthz", healthy)):
        application.router.add_get(path, handler)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    for port in {operator.config.metrics_port, operator.config.health_port} - {0}:
        await web.TCPSite(runner, port=port).start()
    return runner


if __name__ == "__main__":
    sys.exit(main())
