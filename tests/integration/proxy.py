"""A proxy before the API server: it counts what is asked, and does to requests, answers and watches what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from tests.integration.cluster_access import kube_config

HOP_HEADERS = {"host", "connection", "transfer-encoding", "content-length", "content-encoding", "authorization"}
SILENCE: Final = 0
"""Instead of a status: the request is taken and never answered."""


@dataclass(frozen=True)
class Ending:
    """How a watch is ended: these last bytes, then a clean end of the answer or an aborted connection."""

    last: bytes
    abort: bool = False


def watch_error(code: int, reason: str, message: str) -> Ending:
    """The server's own way to say that a watch can't go on."""
    status = f'{{"kind":"Status","status":"Failure","reason":"{reason}","message":"{message}","code":{code}}}'
    return Ending(f'{{"type":"ERROR","object":{status}}}\n'.encode())


HALF_A_LINE: Final = b'{"type":"MODIFIED","object":{"apiVers'
ERROR_500: Final = watch_error(500, "InternalError", "etcdserver: request timed out")
ERROR_410: Final = watch_error(410, "Expired", "too old resource version")
ABORTED: Final = Ending(HALF_A_LINE, abort=True)
CUT: Final = Ending(HALF_A_LINE)


@dataclass
class Proxy:
    """One operator's way to the API server."""

    server: str
    token: str
    session: aiohttp.ClientSession
    runner: web.AppRunner
    after_write: Callable[[int], bool] = lambda _: False
    """Called with the number of each write that was carried out; True: the answer is never delivered."""
    refuse: Callable[[web.Request], int | None] = lambda _: None
    """A status to answer with instead of asking the server, or SILENCE."""
    withhold: Callable[[bytes], bool] = lambda _: False
    """Called with each line of each watch; True: it is never delivered."""
    silent: bool = False
    """Takes requests and never answers them."""
    lagging: bool = False
    """Answers lists as they were when they were first asked for, and watches not at all."""
    writes: list[str] = field(default_factory=list)
    """What the server has carried out."""
    asked: list[str] = field(default_factory=list)
    """Every request, with its query."""
    _port: int = 0
    _lists: dict[str, bytes] = field(default_factory=dict)
    _watches: set[asyncio.Future[Ending]] = field(default_factory=set)
    _caught_up: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def open(self) -> None:
        """Be there, at the same address each time."""
        await web.TCPSite(self.runner, "127.0.0.1", self._port).start()
        self._port = self.runner.addresses[0][1]

    async def close(self) -> None:
        """Be away: connections break, and new ones are refused."""
        for site in list(self.runner.sites):
            await site.stop()
        for connection in list(self.runner.server.connections if self.runner.server else ()):
            if connection.transport:
                connection.transport.abort()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path_qs}")
        status = SILENCE if self.silent else self.refuse(request)
        if status == SILENCE:
            await asyncio.Event().wait()
        if status is not None:
            return _refusal(status)
        if self.lagging and is_list(request):
            return web.Response(body=self._lists[request.path_qs], content_type="application/json")
        if self.lagging and is_watch(request):
            await self._caught_up.wait()
        return await self._ask(request)

    def end_watches(self, ending: Ending) -> None:
        """End every watch that is open now."""
        for watch in self._watches:
            if not watch.done():
                watch.set_result(ending)

    def catch_up(self) -> None:
        """Show how things are, and what has happened since."""
        self.lagging = False
        self._caught_up.set()

    async def _ask(self, request: web.Request) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_HEADERS}
        headers["Authorization"] = self.token
        body = await request.read() or None
        url = self.server + request.path_qs
        async with self.session.request(request.method, url, headers=headers, data=body) as answer:
            if is_watch(request) and answer.status == 200:
                return await self._watch(request, answer)
            content = await answer.read()
            if is_list(request):
                self._lists.setdefault(request.path_qs, content)
            if request.method != "GET" and answer.status < 300 and self._is_cut(f"{request.method} {request.path}"):
                raise ConnectionAbortedError
            return web.Response(status=answer.status, headers=_headers(answer), body=content)

    def _is_cut(self, write: str) -> bool:
        self.writes.append(write)
        return self.after_write(len(self.writes))

    async def _watch(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=_headers(answer))
        await response.prepare(request)
        ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._watches.add(ending)
        try:
            while line := await _next_line(answer, ending):
                if not self.withhold(line):
                    await response.write(line)
        finally:
            self._watches.discard(ending)
        if ending.done():
            await response.write(ending.result().last)
            if ending.result().abort and request.transport:
                request.transport.abort()
                return response
        await response.write_eof()
        return response


def is_watch(request: web.Request) -> bool:
    return request.query.get("watch") == "true"


def is_list(request: web.Request) -> bool:
    """A list from which a watch goes on; the operator's own lists, which only listen, are of one object."""
    return request.method == "GET" and request.query.get("limit", "1") != "1" and not is_watch(request)


def is_write(request: web.Request) -> bool:
    return request.method != "GET"


def _refusal(status: int) -> web.Response:
    reasons = {403: "Forbidden", 409: "Conflict", 422: "Invalid", 429: "TooManyRequests", 503: "ServiceUnavailable"}
    told = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": status}
    told |= {"reason": reasons.get(status, "InternalError"), "message": "the proxy refuses"}
    return web.json_response(told, status=status, headers={"Retry-After": "1"} if status == 429 else {})


def _headers(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {k: v for k, v in answer.headers.items() if k.lower() not in HOP_HEADERS}


async def _next_line(answer: aiohttp.ClientResponse, ending: asyncio.Future[Ending]) -> bytes:
    """Nothing when the answer or the watch is ended."""
    reading = asyncio.ensure_future(answer.content.readline())
    try:
        await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
        return reading.result() if reading.done() else b""
    finally:
        reading.cancel()


@contextlib.asynccontextmanager
async def start_proxy(kubeconfig: str) -> AsyncIterator[Proxy]:
    """A proxy on a free port of this machine, with an administrator's rights."""
    configuration = Configuration()
    await kube_config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
    api = ApiClient(configuration)
    connector = aiohttp.TCPConnector(ssl=api.rest_client.ssl_context, limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=2**24) as session:
        token = await configuration.get_api_key_with_prefix("BearerToken")
        application = web.Application(client_max_size=2**24)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        proxy = Proxy(configuration.host, token, session, runner)
        application.router.add_route("*", "/{path:.*}", proxy.handle)
        await runner.setup()
        await proxy.open()
        try:
            yield proxy
        finally:
            await runner.cleanup()
            await api.close()
