"""An HTTP server on a free loopback port with a request log and faults: the base of stand-ins.

No route and no behaviour of any of them.
"""

import socket
import time
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple, Self

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from pyvatti.sandbox.faults import FaultRules, fault_middleware

LOG_LIMIT = 10_000


class LoggedRequest(NamedTuple):
    """One request as it was answered; status 0 where the connection was cut. `time` is Unix."""

    time: float
    method: str
    path: str
    status: int
    user_agent: str


class Loopback:
    """`async with` starts and stops the server; `url` has no final slash."""

    def __init__(self, *, port: int = 0) -> None:
        self._port = port
        self._runner: web.AppRunner | None = None
        self.url = ""
        self.faults = FaultRules()
        self.requests: deque[LoggedRequest] = deque(maxlen=LOG_LIMIT)

    def routes(self) -> Iterable[web.RouteDef]:
        """Give the routes; to be replaced."""
        return ()

    def middlewares(self) -> list[Middleware]:
        """Give what runs between the faults and the routes."""
        return []

    async def __aenter__(self) -> Self:
        app = web.Application(
            middlewares=[self._log, fault_middleware(self.faults), *self.middlewares()],
            client_max_size=64 * 2**20,
        )
        app.router.add_routes(self.routes())
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        listener = socket.create_server(("127.0.0.1", self._port))
        await web.SockSite(self._runner, listener).start()
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _log(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        status = 0
        try:
            answer = await handler(request)
            status = answer.status
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            cut = request.transport is None or request.transport.is_closing()
            agent = request.headers.get("User-Agent", "")
            self.requests.append(
                LoggedRequest(
                    time.time(), request.method, request.raw_path, 0 if cut else status, agent
                )
            )
        return answer
