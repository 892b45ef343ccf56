"""Loopback cables between one replica and its neighbours: they say whose call it was, and fail.

Bytes only; what they carry is not looked at.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Self

CHUNK = 2**16


class Health(StrEnum):
    """How a cable is."""

    WHOLE = "whole"
    FROZEN = "frozen"  # nothing passes now; what was sent arrives after the thaw
    CUT = "cut"  # connections are reset and refused


class Cable:
    """`async with Cable(owner, port, owners)`: `port` is where the owner connects to.

    `owners` collects for every connection that a neighbour sees (its port) whose it is. `delay`
    seconds are waited before each piece is passed on.
    """

    def __init__(self, owner: str, target: int, owners: dict[int, str]) -> None:
        self.port = 0
        self.delay = 0.0
        self._owner, self._target, self._owners = owner, target, owners
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
        self._owners[far_writer.get_extra_info("sockname")[1]] = self._owner
        mine = {writer, far_writer}
        self._writers |= mine
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, far_writer))
                group.create_task(self._pass(far_reader, writer))
        finally:
            self._writers -= mine
            for end in mine:
                end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(CHUNK):
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
