"""Hostile connections: silent ones, slow ones, endless ones, very many. On loopback only."""

import asyncio
import contextlib
import json
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from api_calls import BEARER, GATED, PATIENCE, problem_of, read_answer, socket_to
from stage import JOB, launch_body, stage

from pyvatti.api.connections import ConnectionLimits, listen, make_config
from pyvatti.api.middleware import Crowd
from pyvatti.errors import ConfigurationError

SHORT = ConnectionLimits(patience=0.4, reading=0.4, head=8192)
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
CROWD = 2000


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Read a whole body and answer with its length; /large answers with 64 MiB."""
    size, more = 0, True
    while more and scope["path"] != "/early":
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = str(size).encode()
    count = 1024 if scope["path"] == "/large" else 1
    body = b"." * 65_536 if scope["path"] == "/large" else body
    length = str(len(body) * count).encode()
    headers = [(b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(count):
        more = number < count - 1
        await send({"type": "http.response.body", "body": body, "more_body": more})


@asynccontextmanager
async def serving(limits: ConnectionLimits, app: Any = echo) -> AsyncIterator[str]:
    """Serve an application with the limits of the service."""
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(make_config(app, limits, lifespan="off"))
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            server.force_exit = True


async def closed(reader: asyncio.StreamReader) -> bytes:
    """Wait until the server closes; give what it said before."""
    said = b""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(65_536):
                said += part
    return said


async def trickle(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send again and again, a little at a time."""
    with contextlib.suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0.05)


async def test_a_connection_that_asks_nothing_is_closed():
    async with serving(SHORT) as url, socket_to(url) as (reader, _):
        assert await closed(reader) == b""


async def test_a_head_that_trickles_in_is_not_waited_for():
    async with serving(SHORT) as url, socket_to(url) as (reader, writer):
        writer.write(HEAD)
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(trickle(writer, b"X: y\r\n"))
            assert await closed(reader) == b""
            sender.cancel()


async def test_after_an_answer_the_next_head_may_not_trickle_either():
    async with serving(SHORT) as url, socket_to(url) as (reader, writer):
        writer.write(HEAD + b"\r\n")
        assert (await read_answer(reader))[0] == 200
        writer.write(HEAD)

        assert await closed(reader) == b""


async def test_a_body_that_goes_on_after_its_answer_is_not_listened_to_for_ever():
    async with serving(SHORT) as url, socket_to(url) as (reader, writer):
        writer.write(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
        assert (await read_answer(reader))[0] == 200
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(trickle(writer, b"x"))
            assert await closed(reader) == b""
            sender.cancel()


async def test_a_head_without_end_is_refused():
    async with serving(ConnectionLimits(head=8192)) as url, socket_to(url) as (reader, writer):
        writer.write(HEAD + b"X-Long: " + b"a" * 20_000)

        said = await closed(reader)

    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.endswith(b"Request head too large.")


async def test_a_large_body_is_not_taken_for_a_head():
    async with serving(ConnectionLimits(head=8192)) as url, httpx.AsyncClient() as client:
        answer = await client.post(url, content=b"x" * 1_000_000)

        assert answer.text == "1000000"


async def test_requests_one_after_the_other_keep_their_connection():
    async with serving(SHORT) as url, socket_to(url) as (reader, writer):
        for _ in range(5):
            writer.write(HEAD + b"\r\n")
            assert (await read_answer(reader))[0] == 200
            await asyncio.sleep(0.2)  # together longer than the server's patience


async def test_a_caller_that_does_not_read_its_answer_is_cut_off():
    async with serving(SHORT) as url, AsyncExitStack() as stack:
        reader, writer = await stack.enter_async_context(socket_to(url))
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(asyncio.IncompleteReadError):
            await asyncio.wait_for(_read_late(reader), PATIENCE)


async def _read_late(reader: asyncio.StreamReader) -> None:
    await asyncio.sleep(1)  # the test's own slowness: longer than the server's patience
    await reader.readexactly(64 * 1024 * 1024)


async def test_beyond_the_limit_the_connection_that_is_silent_for_longest_goes():
    limits = ConnectionLimits(connections=3)
    async with serving(limits) as url, AsyncExitStack() as stack:
        enter = stack.enter_async_context
        silent = [await enter(socket_to(url)) for _ in range(3)]
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            assert (await client.get(url)).status_code == 200

        assert await closed(silent[0][0]) == b""
        silent[2][1].write(HEAD + b"\r\n")
        assert (await read_answer(silent[2][0]))[0] == 200


async def test_beyond_the_requests_in_progress_all_but_probes_are_refused_at_once():
    release = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/jobs":
            await release.wait()
        await echo(scope, receive, send)

    async with serving(ConnectionLimits(), Crowd(slow, most=2)) as url:
        async with (
            httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client,
            asyncio.TaskGroup() as group,
        ):
            running = [group.create_task(client.get("/jobs")) for _ in range(2)]
            async with asyncio.timeout(PATIENCE):
                while (refused := await client.get("/version")).status_code == 200:
                    await asyncio.sleep(0.02)
            probes = [await client.get(path) for path in ("/healthz", "/readyz", "/metrics")]
            release.set()

        assert problem_of(refused, 503) == "too many requests"
        assert refused.headers["retry-after"]
        assert [probe.status_code for probe in probes] == [200] * 3
        assert [call.result().status_code for call in running] == [200] * 2


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}: Address"):
            listen("127.0.0.1", port)


@pytest.fixture(name="many_files")
def allow_many_files() -> int:
    """Allow as many open files as the machine does; give how many connections fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CROWD + 500
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    return min(CROWD, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500) // 2)


async def test_2000_connections_and_slow_callers_keep_nobody_out_and_are_got_rid_of(many_files):
    async with stage("slow", **GATED) as on, AsyncExitStack() as stack:
        enter = stack.enter_async_context
        silent = [await enter(socket_to(on.url)) for _ in range(many_files)]
        slow_heads = [await enter(socket_to(on.url)) for _ in range(20)]
        slow_body = await enter(socket_to(on.url))
        text = json.dumps(launch_body("INTP9")).encode()
        bearer = BEARER["Authorization"].encode()
        slow_body[1].write(
            b"POST /launch HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n"
            % (bearer, len(text))
        )
        async with asyncio.TaskGroup() as group:
            senders = [group.create_task(trickle(writer, b"X: y\r\n")) for _, writer in slow_heads]
            senders.append(group.create_task(trickle(slow_body[1], b" ")))

            for path in ("/healthz", "/readyz", "/metrics"):
                assert (await on.client.get(path)).status_code == 200
            launched = await on.client.post("/launch", json=launch_body(), headers=BEARER)
            assert launched.status_code == 201

            status, headers, problem = await read_answer(slow_body[0])
            assert (status, problem["status"]) == (408, 408)
            assert headers["connection"] == "close"
            for reader, _ in (*silent, *slow_heads, slow_body):
                assert await closed(reader) == b""
            for sender in senders:
                sender.cancel()

        assert (await on.client.get(f"/jobs/{JOB}", headers=BEARER)).status_code == 200
