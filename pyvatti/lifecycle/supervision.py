"""Watches the long-lived parts of the service: if one ends by itself, the whole is seen to end.

Nothing about jobs. Work on one object at a time is kept going (`persevere`): there an error costs
that object alone, so that a poisoned one never becomes a crash loop.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog

from pyvatti.guard import Guard, kind_of, where

log = structlog.get_logger(__name__)

FIRST_PAUSE = 1.0  # seconds before work on an object that broke begins anew
LONGEST_PAUSE = 60.0  # seconds


class PartEnded(Exception):
    """A part that must not end returned as if all were done."""


class Supervisor:
    """Runs the parts of one service; `failure` names the first that ended by itself, else empty.

    Such an end stops all parts at once, so that another replica takes over, and is told to
    `on_failure`; whoever runs the service ends it then.
    """

    def __init__(self) -> None:
        self.failure = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners: list[Callable[[], None]] = []
        self._stopping = False

    def on_failure(self, tell: Callable[[], None]) -> None:
        """Call `tell` when the service is to be ended: a part ended by itself, or all is done."""
        self._listeners.append(tell)

    def end(self) -> None:
        """Ask whoever runs the service to end it: nothing is left to do, and nothing failed."""
        for tell in self._listeners:
            tell()

    @asynccontextmanager
    async def running(self, parts: Mapping[str, Coroutine[Any, Any, Any]]) -> AsyncIterator[None]:
        """Run named parts beside the block; at its end they are cancelled and waited for."""
        async with asyncio.TaskGroup() as group:
            self._tasks = [
                group.create_task(self._run(part, work), name=part) for part, work in parts.items()
            ]
            try:
                yield
            finally:
                log.info("stopping")
                self._stopping = True
                self._cancel()
                await asyncio.wait(self._tasks)

    async def watch(self, part: str, work: Awaitable[Any]) -> None:
        """Run a part inside another one; that it ends by itself is noted and raised on."""
        try:
            await work
            raise PartEnded(part)  # noqa: TRY301 - noted below as any other end
        except BaseException as error:
            if not _is_asked_for(error):
                self._note_end(part, error)
            raise

    async def _run(self, part: str, work: Awaitable[Any]) -> None:
        """Run a part and raise nothing: what waits beside the parts is not to be cancelled."""
        try:
            await self.watch(part, work)
        except Exception:  # noqa: BLE001 - it is noted
            return

    def _note_end(self, part: str, error: BaseException) -> None:
        if self.failure or self._stopping:
            return
        self.failure = part
        log.critical(
            "a part ended, so the service ends", part=part, kind=kind_of(error), where=where(error)
        )
        self._cancel()
        for tell in self._listeners:
            tell()

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


async def persevere(guard: Guard, name: str, live: Callable[[], Awaitable[None]]) -> None:
    """Do the work on the object of this name to its end; where it breaks, begin it anew, slowly."""
    pause = FIRST_PAUSE
    while True:
        try:
            return await live()
        except BaseException as error:
            if _is_asked_for(error) or not isinstance(error, Exception | asyncio.CancelledError):
                raise
            guard.note(name, error)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def _is_asked_for(error: BaseException) -> bool:
    """Tell whether somebody cancelled this task; else a CancelledError is a fault like any."""
    task = asyncio.current_task()
    cancelled = isinstance(error, asyncio.CancelledError)
    return cancelled and task is not None and task.cancelling() > 0
