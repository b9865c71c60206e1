"""`python -m dev.ipu_operator_standin --ipus 4 --port 18200`: plays Graphcore's IPU Operator and its V-IPU proxy.

KUBECONFIG says on which cluster; the CRD is ipujobs.yaml beside this file, or Graphcore's own.
"""

from __future__ import annotations

import argparse
import asyncio

from aiohttp import web

from dev.ipu_operator_standin.controller import Controller
from xray_operator.cluster.client import Cluster


def main() -> None:
    parser = argparse.ArgumentParser(prog="ipu_operator_standin", description=__doc__)
    parser.add_argument("--ipus", type=int, required=True, help="size of the allocation")
    parser.add_argument("--host", default="127.0.0.1", help="address of the V-IPU proxy")
    parser.add_argument("--port", type=int, required=True, help="port of the V-IPU proxy")
    parser.add_argument("--namespace", help="look at this one only")
    options = parser.parse_args()
    asyncio.run(run(options))


async def run(options: argparse.Namespace) -> None:
    controller = Controller(await Cluster.connect(30), options.ipus, options.namespace)
    await serve(controller, options.host, options.port)
    await controller.run()


async def serve(controller: Controller, host: str, port: int) -> None:
    """The V-IPU proxy, as far as its answers are published."""

    async def query(request: web.Request) -> web.Response:
        size, free = int((await request.json())["size"]), await controller.free_ipus()
        # of an impossible size the real one was seen to say that it is available, with no partitions
        return web.json_response({"available": True, "numOfPartitions": free // size, "message": ""})

    async def stats(_: web.Request) -> web.Response:
        free = await controller.free_ipus()
        return web.json_response({"total": {"used": controller.ipus - free, "available": free}})

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    application = web.Application()
    application.add_routes([web.post("/query", query), web.get("/stats", stats), web.get("/health", health)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()


if __name__ == "__main__":
    main()
