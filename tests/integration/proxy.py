"""A proxy before the API server that counts the writes which the server has carried out, and may act after one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from tests.integration.cluster_access import kube_config

HOP_HEADERS = {"host", "connection", "transfer-encoding", "content-length", "content-encoding", "authorization"}


@dataclass
class Proxy:
    """One operator's way to the API server."""

    server: str
    token: str
    session: aiohttp.ClientSession
    after_write: Callable[[int], bool] = lambda _: False
    """Called with the number of each write; True: the answer is never delivered."""
    silent: bool = False
    """Takes requests and never answers them."""
    writes: list[str] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.silent:
            await asyncio.Event().wait()
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_HEADERS}
        headers["Authorization"] = self.token
        body = await request.read() or None
        url = self.server + request.path_qs
        async with self.session.request(request.method, url, headers=headers, data=body) as answer:
            if request.method == "GET":
                return await _stream(request, answer)
            content = await answer.read()
            if answer.status < 300 and self._is_cut(f"{request.method} {request.path}"):
                raise ConnectionAbortedError
            return web.Response(status=answer.status, headers=_headers(answer), body=content)

    def _is_cut(self, write: str) -> bool:
        self.writes.append(write)
        return self.after_write(len(self.writes))


def _headers(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {k: v for k, v in answer.headers.items() if k.lower() not in HOP_HEADERS}


async def _stream(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_headers(answer))
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


@contextlib.asynccontextmanager
async def start_proxy(kubeconfig: str) -> AsyncIterator[Proxy]:
    """A proxy on a free port of this machine, with an administrator's rights."""
    configuration = Configuration()
    await kube_config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
    api = ApiClient(configuration)
    connector = aiohttp.TCPConnector(ssl=api.rest_client.ssl_context, limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        token = await configuration.get_api_key_with_prefix("BearerToken")
        proxy = Proxy(configuration.host, token, session)
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.url = site.name
        try:
            yield proxy
        finally:
            await runner.cleanup()
            await api.close()
