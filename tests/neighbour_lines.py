"""What lies between the service and its neighbours and can fail: TCP lines, names, the clock.

Knows no protocol: what an answer says is the stand-ins' business.
"""

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from pyvatti.lifecycle.clock import utc_now

T = TypeVar("T")

PIECE = 65536  # bytes read at a time
DRIP = 512  # bytes sent at a time on a slow line


class Line:
    """`async with Line(port) as line`: whatever is said to `line.port` of `host` reaches `port`.

    `harmed` counts the connections that met a fault.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.port, self.host = 0, host
        self.harmed = 0
        self._target = port
        self._state: Literal["good", "silent", "slow"] = "good"
        self._pause = 0.0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._dead: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.refuse()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def refuse(self) -> None:
        """Refuse every new connection and break the open ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Break the open connections."""
        self.harmed += len(self._open)
        for writer in tuple(self._open):
            writer.transport.abort()

    def silence(self) -> None:
        """Take everything and pass nothing on; connections that saw this stay dead for ever."""
        self._state = "silent"
        self._dead |= self._open
        self.harmed += len(self._open)

    def slow(self, pause: float) -> None:
        """Pass answers on in small pieces with a pause in seconds before each."""
        self._state, self._pause = "slow", pause
        self.harmed += len(self._open)

    async def mend(self) -> None:
        """Be a good line again."""
        self._state = "good"
        if self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            await self._carry(reader, writer)
        finally:
            self._forget(writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        if self._state != "good":
            self.harmed += 1
        if self._state == "silent":
            self._dead.add(writer)
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            self._open.add(back)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(reader, back, writer, drip=False))
                    group.create_task(self._pump(there, writer, writer, drip=True))
            except* OSError:
                pass
            finally:
                self._forget(back)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        line: asyncio.StreamWriter,
        *,
        drip: bool,
    ) -> None:
        while piece := await source.read(PIECE):
            if line in self._dead:
                continue
            step = DRIP if drip and self._state == "slow" else len(piece)
            for start in range(0, len(piece), step):
                if step < len(piece) or (drip and self._state == "slow"):
                    await asyncio.sleep(self._pause)
                target.write(piece[start : start + step])
                await target.drain()
        if target is not line or line not in self._dead:
            target.close()

    def _forget(self, writer: asyncio.StreamWriter) -> None:
        self._open.discard(writer)
        self._dead.discard(writer)
        writer.transport.abort()


class Wall:
    """A wall clock that can leap."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def __call__(self) -> datetime:
        """Give the time, in UTC."""
        return utc_now() + self.offset


class NamesLoop(asyncio.SelectorEventLoop):
    """An event loop that knows the names under `.test`, as long as they are not `unknown`."""

    def __init__(self) -> None:
        super().__init__()
        self.unknown: set[str] = set()
        self.failed = 0

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Resolve a name."""
        host = host.decode() if isinstance(host, bytes) else host
        if host in self.unknown:
            self.failed += 1
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        place = "127.0.0.1" if str(host).endswith(".test") else host
        return await super().getaddrinfo(place, port, **options)


def run(story: Coroutine[Any, Any, T]) -> T:
    """Run a story in a loop whose name service can fail."""
    with asyncio.Runner(loop_factory=NamesLoop) as runner:
        return runner.run(story)
