"""The work queue of a level-triggered controller: one timer a key, first in, first out.

No knowledge of what the work is.
"""

import asyncio
import math
from collections.abc import Callable
from typing import TypeAlias

import structlog

log = structlog.get_logger(__name__)

JobKey: TypeAlias = tuple[str, str]
BATCH = 50  # keys worked on before other tasks get their turn
BURST = 1.5  # client-go allows 30 writes at once for 20 a second


class WorkQueue:
    """Calls `work` with each key when it is due; the earliest of several due times counts.

    speed divides delays; qps limits the writes that `spend` reports.
    """

    def __init__(self, work: Callable[[JobKey], None], *, speed: float, qps: float | None) -> None:
        self._work = work
        self._speed = speed
        self._rate = None if qps is None else qps * speed
        self._tokens = self._limit = 0.0 if qps is None else qps * BURST
        self._filled = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timers: dict[JobKey, asyncio.TimerHandle] = {}
        self._ready: dict[JobKey, None] = {}
        self._drain: asyncio.Handle | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to work in this event loop."""
        self._loop = loop
        self._filled = loop.time()

    def close(self) -> None:
        """Forget everything."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._ready.clear()
        if self._drain is not None:
            self._drain.cancel()
        self._loop = None

    def time(self) -> float:
        """Give the loop's time (real seconds)."""
        return 0.0 if self._loop is None else self._loop.time()

    def add(self, key: JobKey, delay: float | None) -> None:
        """Work on a key after scaled seconds; None and infinity are never."""
        if self._loop is None or delay is None or math.isinf(delay) or key in self._ready:
            return
        when = self._loop.time() + max(delay, 0) / self._speed
        old = self._timers.get(key)
        if old is not None and old.when() <= when:
            return
        if old is not None:
            old.cancel()
        self._timers[key] = self._loop.call_at(when, self._due, key)

    def drop(self, key: JobKey) -> None:
        """Forget a key."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._ready.pop(key, None)

    def spend(self) -> None:
        """Note one write."""
        self._tokens -= 1

    def _due(self, key: JobKey) -> None:
        self._timers.pop(key, None)
        self._ready[key] = None
        if self._drain is None and self._loop is not None:
            self._drain = self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._drain = None
        for _ in range(BATCH):
            if not self._ready or self._loop is None:
                return
            if (wait := self._throttled()) > 0:
                self._drain = self._loop.call_later(wait, self._run)
                return
            key = next(iter(self._ready))
            del self._ready[key]
            try:
                self._work(key)
            except Exception:  # one Job's defect must not stop the others
                log.exception("sync failed", job=key)
        if self._ready and self._loop is not None:
            self._drain = self._loop.call_soon(self._run)

    def _throttled(self) -> float:
        """Give the real seconds until the next write is allowed."""
        if self._rate is None:
            return 0.0
        now = self.time()
        self._tokens = min(self._tokens + (now - self._filled) * self._rate, self._limit)
        self._filled = now
        return max(1 - self._tokens, 0) / self._rate
