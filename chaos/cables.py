"""Loopback cables between one replica and its neighbours: they say who called when, and fail.

Bytes only; what they carry is not looked at.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

CHUNK = 2**16


class Health(StrEnum):
    """How a cable is."""

    WHOLE = "whole"
    FROZEN = "frozen"  # nothing passes now; what was sent arrives after the thaw
    CUT = "cut"  # connections are reset and refused


@dataclass(slots=True)
class Line:
    """One connection of `owner`. `sent_at`: when it let go of its latest request (monotonic).

    A request begins with the first piece after a piece of an answer.
    """

    owner: str
    sent_at: float = 0.0
    is_answered: bool = True

    def sent(self) -> None:
        """Note a piece from the owner."""
        if self.is_answered:
            self.sent_at, self.is_answered = time.monotonic(), False

    def answered(self) -> None:
        """Note a piece for the owner."""
        self.is_answered = True


Lines = dict[int, Line]
"""Connections by the port that a neighbour sees."""


class Cable:
    """`async with Cable(owner, port, lines)`: `port` is where the owner connects to.

    `lines` collects every connection. `delay` seconds are waited before each piece is passed on.
    """

    def __init__(self, owner: str, target: int, lines: Lines) -> None:
        self.port = 0
        self.delay = 0.0
        self._owner, self._target, self._lines = owner, target, lines
        self._is_whole = asyncio.Event()
        self._is_whole.set()
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.delay = 0.0
        self.set(Health.CUT)
        while self._writers:  # noqa: ASYNC110 - moments, for everything was aborted
            await asyncio.sleep(0.01)

    def set(self, health: Health) -> None:
        """Change how it is from now on."""
        self._is_cut = health is Health.CUT
        if health is Health.FROZEN:
            self._is_whole.clear()
        else:
            self._is_whole.set()
        if self._is_cut:
            for writer in tuple(self._writers):
                writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        line = self._lines[far_writer.get_extra_info("sockname")[1]] = Line(self._owner)
        mine = {writer, far_writer}
        self._writers |= mine
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, far_writer, line.sent))
                group.create_task(self._pass(far_reader, writer, line.answered))
        finally:
            self._writers -= mine
            for end in mine:
                end.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[], None]
    ) -> None:
        with suppress(OSError):
            while piece := await reader.read(CHUNK):
                note()
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._is_whole.wait()
                writer.write(piece)
                await writer.drain()
            writer.write_eof() if writer.can_write_eof() else writer.close()


def port_of(url: str) -> int:
    """Give the port of a URL without a path."""
    return int(url.rpartition(":")[2])


def rewired(url: str, cable: Cable) -> str:
    """Give the URL of a neighbour at the owner's end of a cable."""
    return f"{url.rpartition(':')[0]}:{cable.port}"


Cables = Mapping[str, Cable]
