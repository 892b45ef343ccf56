"""What every request passes on its way to the routes, as plain ASGI.

Nothing here knows a job; who may call is `access`.
"""

import re
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyvatti.api.problems import RETRY_AFTER, problem
from pyvatti.guard import kind_of, where
from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)

MOST_REQUESTS = 500
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
ABOUT_JOB = re.compile(r"/jobs/(intp[0-9]{1,11})(?:/|$)", re.IGNORECASE)
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class Journal:
    """Measures every request and logs it; whatever is logged meanwhile names route and job.

    What went well is logged at level debug: the lifecycle's own lines tell of its effects.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; only the route's template is told, never a path or query as sent."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status, began = 0, time.perf_counter()

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method = scope["method"] if scope["method"] in METHODS else "other"
        about = ABOUT_JOB.match(scope["path"])
        known = {"job": about[1].lower()} if about else {}
        with structlog.contextvars.bound_contextvars(**known):
            try:
                await self._app(scope, receive, send_on)
            finally:
                route = getattr(scope.get("route"), "path", "none")
                client = (scope.get("client") or ("",))[0]
                _note(method, route, status, time.perf_counter() - began, client)
                structlog.contextvars.unbind_contextvars("job")  # of a launch: bound by its route


def _note(method: str, route: str, status: int, seconds: float, client: str) -> None:
    answer = str(status or "none")  # none: the caller went away first
    metrics.requests.labels(method, route, answer).observe(seconds)
    level = log.debug if 0 < status < 400 or route in PROBES else log.info
    level(
        "request answered",
        method=method,
        route=route,
        status=status,
        seconds=round(seconds, 3),
        client=client,
    )


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


class Breakage:
    """Answers 500 where an error nobody expected ended a request, and says kind and place.

    The error stops here: passed on, Starlette hands it to uvicorn, which logs its words, and they
    may quote what somebody else wrote. An answer that had begun is cut off.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        has_begun = False

        async def send_on(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception as error:  # noqa: BLE001 - that is its purpose
            log.error("request broke", kind=kind_of(error), where=where(error))  # noqa: TRY400
            if not has_begun:
                answer = problem(500, "an unexpected error; the service's log has the details")
                await answer(scope, receive, send)


class Heads:
    """Answers HEAD as GET without the body; a stream ends before it begins."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, as GET if it is HEAD."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                # a complete answer reads as a disconnect, which is what stops a stream
                await send({"type": "http.response.body"})

        inner = {**scope, "method": "GET"}
        await self._app(inner, receive, send_head)
        scope["route"] = inner.get("route")
