"""How much memory a real `pyvatti serve` takes while callers without a token try to fill it."""

import asyncio
import contextlib
import json
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from api_calls import GATED, socket_to
from cli_calls import running
from patience import PATIENCE
from stage import FAST

from pyvatti.sandbox.world import World

MIB = 2**20
MOST = 240  # MiB, of the 512 that the chart allows
CROWD = 800
HEAD = b"GET /jobs HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /launch HTTP/1.1\r\nHost: localhost\r\n"
TRAILERS = POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
GREEDY = {
    "heads of one long field": HEAD + b"x: " + b"y" * 63_000,
    "heads of many short fields": HEAD + b"x: y\r\n" * 10_000,
    "trailers": TRAILERS + b"x: " + b"y" * 63_000,
    "bodies": POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 200_000,
    "requests at once": (HEAD + b"\r\n") * 2000,
    "answers that nobody reads": b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 30,
}


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[int, str]]:
    """Run the service as a process of its own that wants a token; gives its id and address."""
    async with World() as world:
        environment = world.environment(folder) | FAST | GATED | {"PORT": "0"}
        async with running("serve", **environment) as process, asyncio.TaskGroup() as group:
            port = 0
            while not port:
                line: dict[str, Any] = json.loads(await process.stderr.readline())
                port = line["port"] if line["event"] == "listening" else 0
            reading = group.create_task(process.stderr.read())  # a full pipe would stop it
            yield process.pid, f"http://127.0.0.1:{port}"
            process.kill()
            await reading


def memory(pid: int, what: str = "VmHWM") -> int:
    """Give the memory of a process in MiB, by default the most it ever had."""
    lines = dict(line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines[what].split()[0]) // 1024


def allow_many_files() -> int:
    """Allow as many open files as the crowd needs; give how large it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(CROWD + 500, hard)), hard))
    return min(CROWD, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500)


async def push(writer: asyncio.StreamWriter, part: bytes, most: int) -> int:
    """Send a part again and again until the other side closes; give how many bytes went."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < most:
            writer.write(part)
            await writer.drain()
            sent += len(part)
    return sent


async def test_no_caller_without_a_token_fills_the_memory(tmp_path: Path):
    crowd = allow_many_files()
    async with (
        served(tmp_path) as (pid, url),
        httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client,
    ):
        assert (await client.get("/healthz")).status_code == 200
        print(f"\nat rest: {memory(pid, 'VmRSS')} MiB")  # noqa: T201

        async with socket_to(url) as (_, writer):
            writer.write(TRAILERS)
            sent = await push(writer, b"a:b\r\n" * 13_000, 400 * MIB)
            assert (await client.get("/healthz")).status_code == 200
        print(f"trailers without end, cut off after {sent // 1024} KiB: {memory(pid)} MiB")  # noqa: T201
        assert sent < 100 * MIB

        for name, data in GREEDY.items():
            async with AsyncExitStack() as stack:
                writers = []
                for number in range(crowd):
                    _, writer = await stack.enter_async_context(socket_to(url))
                    writer.write(data)
                    writers.append(writer)
                    if number % 100 == 0:
                        assert (await client.get("/healthz")).status_code == 200
                assert (await client.get("/healthz")).status_code == 200
                print(f"{crowd} connections, {name}: {memory(pid)} MiB")  # noqa: T201
                for writer in writers:
                    writer.transport.abort()
        assert memory(pid) < MOST
