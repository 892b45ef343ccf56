"""What every request passes on its way to the routes, as plain ASGI.

Nothing here knows a job; who may call is `access`.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyvatti.api.problems import RETRY_AFTER, problem

MOST_REQUESTS = 500
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})


class Crowd:
    """Refuses what goes beyond `most` requests in progress, but never a probe."""

    def __init__(self, app: ASGIApp, most: int = MOST_REQUESTS) -> None:
        self._app, self._most = app, most
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 503 at once, or pass the request on."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            return await self._app(scope, receive, send)
        if self._running >= self._most:
            refusal = problem(503, "too many requests", {"Retry-After": str(RETRY_AFTER)})
            return await refusal(scope, receive, send)
        self._running += 1
        try:
            return await self._app(scope, receive, send)
        finally:
            self._running -= 1


class Heads:
    """Answers HEAD as GET without the body; a stream ends before it begins."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, as GET if it is HEAD."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self._app(scope, receive, send)

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                # a complete answer reads as a disconnect, which is what stops a stream
                await send({"type": "http.response.body"})

        return await self._app({**scope, "method": "GET"}, receive, send_head)
