"""How long tests wait, and a caller that asks again what was not answered in time.

On a busy machine everything is late, and nothing is wrong. What must happen is waited for with
one generous limit: it costs nothing while all is well.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx

PATIENCE = 120.0  # seconds for anything that must happen
LATE = "the cluster did not answer in time"  # what the API says rather than answer after 2 s
TICK = 0.004  # seconds
KEPT = httpx.Limits(keepalive_expiry=1.0)  # well before the server closes an idle connection


class Repeating(httpx.AsyncHTTPTransport):
    """Asks again while the API gives an answer up for its own limit, as its callers are told to.

    Every other answer is given as it is, another 503 too.
    """

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; its body must be at hand, not a stream."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while True:
            answer = await super().handle_async_request(request)
            if answer.status_code != 503:
                return answer
            await answer.aread()
            if LATE not in answer.text or loop.time() > until:
                return answer
            await asyncio.sleep(0.1)


@asynccontextmanager
async def stopwatch() -> AsyncIterator[Callable[[], float]]:
    """Give what tells the seconds since now in which the event loop was free for whoever waited.

    Those in which it was late do not count: then the machine was busy, or this process was.
    """
    began, late = time.monotonic(), 0.0

    async def tick() -> None:
        nonlocal late
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK)
            late += max(0.0, time.monotonic() - before - TICK)

    async with asyncio.TaskGroup() as group:
        ticking = group.create_task(tick())
        yield lambda: time.monotonic() - began - late
        ticking.cancel()


async def is_busy() -> bool:
    """Look for a moment whether the loop is so late that waiting takes three times as long."""
    began = time.monotonic()
    for _ in range(10):
        await asyncio.sleep(TICK)
    return time.monotonic() - began > 3 * 10 * TICK


def patient_client(url: str, limits: httpx.Limits = KEPT) -> httpx.AsyncClient:
    """Give a client of the service for tests that are not about how soon it answers."""
    transport = Repeating(limits=limits)
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE, transport=transport)
