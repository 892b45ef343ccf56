"""Services as processes: started from a zygote, killed, stopped, paused, waited for.

Nothing of what a service does.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

import httpx

START_SECONDS = 60.0
ROOT = Path(__file__).resolve().parent.parent


class Service:
    """One process. `ended` is its exit code once it has one, negative for a signal."""

    def __init__(self, pid: int, url: str) -> None:
        self.pid, self.url = pid, url
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return not self.ended.done()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.alive:
            os.kill(self.pid, number)

    async def kill(self) -> None:
        """End it by SIGKILL and wait until it is gone."""
        self.send(signal.SIGKILL)
        await asyncio.wait([self.ended])

    async def ready(self) -> bool:
        """Wait until it says that it is ready; False if it ended before."""
        async with httpx.AsyncClient(base_url=self.url, timeout=10) as client:
            async with asyncio.timeout(START_SECONDS):
                while self.alive:
                    try:
                        if (await client.get("/readyz")).status_code == 200:
                            return True
                    except httpx.TransportError:
                        pass
                    await asyncio.sleep(0.03)
        return False


class Zygote(asyncio.SubprocessProtocol):
    """`async with Zygote() as zygote`: starts services until the end, then kills all of them."""

    def __init__(self) -> None:
        self._transport: asyncio.SubprocessTransport | None = None
        self._rest = b""
        self._services: dict[int, Service] = {}
        self._starting: list[tuple[asyncio.Future[Service], str]] = []
        self._early: dict[int, int] = {}  # ends told before their starts
        self._is_ready = asyncio.Event()
        self._gone = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        await loop.subprocess_exec(
            lambda: self,
            sys.executable,
            "-m",
            "chaos.zygote",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=None,
            cwd=ROOT,
            start_new_session=True,
        )
        async with asyncio.timeout(START_SECONDS):
            await self._is_ready.wait()
        if self._gone.is_set():
            raise RuntimeError("the service cannot be imported")
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._transport is not None:
            stdin: Any = self._transport.get_pipe_transport(0)
            stdin.close()  # it then ends its whole group
            await self._gone.wait()
            self._transport.close()

    async def start(self, env: Mapping[str, str], log: Path) -> Service:
        """Start a service; `env` is all of its environment and names its PORT."""
        ordered: asyncio.Future[Service] = asyncio.get_running_loop().create_future()
        self._starting.append((ordered, f"http://127.0.0.1:{env['PORT']}"))
        order = {"env": dict(env), "log": str(log)}
        pipe: Any = self._transport and self._transport.get_pipe_transport(0)
        pipe.write(json.dumps(order).encode() + b"\n")
        return await ordered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.SubprocessProtocol`."""
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, _fd: int, data: bytes) -> None:
        """See `asyncio.SubprocessProtocol`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._told(json.loads(line))

    def process_exited(self) -> None:
        """See `asyncio.SubprocessProtocol`."""
        for service in self._services.values():
            if service.alive:
                service.ended.set_result(-signal.SIGKILL)
        self._gone.set()
        self._is_ready.set()

    def _told(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self._is_ready.set()
        elif "code" not in message:
            self._started(message["pid"])
        elif (service := self._services.pop(message["pid"], None)) is not None:
            service.ended.set_result(message["code"])
        else:
            self._early[message["pid"]] = message["code"]

    def _started(self, pid: int) -> None:
        ordered, url = self._starting.pop(0)
        service = Service(pid, url)
        if pid in self._early:
            service.ended.set_result(self._early.pop(pid))
        else:
            self._services[pid] = service
        ordered.set_result(service)


def free_port() -> int:
    """Give a port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
