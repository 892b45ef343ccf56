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

from pyvatti.api.connections import BoundedProtocol, ConnectionLimits, listen, make_config
from pyvatti.api.middleware import Crowd
from pyvatti.errors import ConfigurationError

SHORT = ConnectionLimits(patience=0.4, idle=0.4, reading=0.4, head=8192)
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
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


@pytest.mark.parametrize(
    ("begin", "part"),
    [
        pytest.param(HEAD, b"X: y\r\n", id="very many fields"),
        pytest.param(HEAD + b"X: ", b"y" * 1000, id="one long value"),
        pytest.param(HEAD, b"y" * 1000, id="one long name"),
        pytest.param(b"GET /", b"y" * 1000, id="a long address"),
        pytest.param(CHUNKED + b"0\r\n", b"X: y\r\n", id="very many trailer fields"),
        pytest.param(CHUNKED + b"0\r\nX: ", b"y" * 1000, id="a long trailer field"),
        pytest.param(CHUNKED + b"1;", b"y" * 1000, id="a long chunk extension"),
        pytest.param(b"", b"\r\n" * 500, id="nothing but empty lines"),
    ],
)
@pytest.mark.parametrize("path", [b"/early", b"/"], ids=["answered", "not answered"])
async def test_what_comes_before_or_after_a_body_has_an_end(begin: bytes, part: bytes, path: bytes):
    limits = ConnectionLimits(head=8192, fields=50)
    async with serving(limits) as url, socket_to(url) as (reader, writer):
        writer.write(begin.replace(b"/ ", path + b" "))
        said = await _sent_without_end(reader, writer, part)

    assert b"Request head too large." in said


async def _sent_without_end(reader: Any, writer: Any, part: bytes) -> bytes:
    """Send a part again and again until the server closes; give what it says."""
    async with asyncio.TaskGroup() as group:
        sender = group.create_task(trickle(writer, part * (20_000 // len(part))))
        said = await closed(reader)
        sender.cancel()
    return said


async def test_as_many_fields_as_allowed_are_answered_and_trailers_are_no_headers():
    seen: list[Any] = []

    async def look(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)
        seen.append(scope["headers"])

    async with (
        serving(ConnectionLimits(fields=50), look) as url,
        socket_to(url) as (reader, writer),
    ):
        for trailers, status in ((48, 200), (49, 400)):
            trailer = b"Authorization: y\r\n" * trailers
            writer.write(CHUNKED + b"1\r\nx\r\n0\r\n" + trailer + b"\r\n")
            assert (await read_answer(reader))[0] == status

    assert [name for name, _ in seen[0]] == [b"host", b"transfer-encoding"]


@pytest.mark.parametrize("offer", [b"h2c", b"websocket", b"TLS/1.0", b"foo/2"])
@pytest.mark.parametrize(
    "framed",
    [
        pytest.param(b"Content-Length: 5\r\n\r\nhello", id="a length"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", id="chunks"
        ),
        pytest.param(b"\r\n", id="no body"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000], ids=["byte by byte", "in bits", "at once"])
async def test_the_body_of_a_request_that_offers_another_protocol_is_read(offer, framed, size):
    """So ask the HttpClient of Java, Spring's RestClient and `curl --http2` over plain HTTP."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\n"
    sent = (head % offer + b"HTTP2-Settings: AAMAAABk\r\n" + framed) * 2 + HEAD + b"\r\n"
    async with serving(ConnectionLimits()) as url, socket_to(url) as (reader, writer):
        for begin in range(0, len(sent), size):
            writer.write(sent[begin : begin + size])
            if size == 7:
                await asyncio.sleep(0.002)  # the request is under way before its body comes
        answers = [await read_answer(reader) for _ in range(3)]

    length = b"5" if framed != b"\r\n" else b"0"
    assert [(status, body) for status, _, body in answers] == [(200, length)] * 2 + [(200, b"0")]


async def test_a_broken_body_after_an_offer_of_another_protocol_is_refused():
    sent = CHUNKED.replace(b"Host", b"Connection: Upgrade\r\nUpgrade: h2c\r\nHost") + b"zz\r\n"
    async with serving(ConnectionLimits()) as url, socket_to(url) as (reader, writer):
        writer.write(sent)

        assert (await closed(reader)).startswith(b"HTTP/1.1 400 ")


async def test_a_crooked_framing_after_an_offer_of_another_protocol_is_refused(caplog):
    offer = HEAD.replace(b"GET", b"POST") + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    async with serving(ConnectionLimits()) as url, socket_to(url) as (reader, writer):
        writer.write(offer + b"Transfer-Encoding: gzip\r\n\r\nhello")

        assert (await closed(reader)).startswith(b"HTTP/1.1 400 ")

    assert caplog.records == []


async def test_more_requests_at_once_than_may_wait_are_cut_off():
    async with serving(ConnectionLimits(waiting=5)) as url, socket_to(url) as (reader, writer):
        writer.write((HEAD + b"\r\n") * 5000)

        assert (await closed(reader)).count(b"HTTP/1.1 200") < 10


HOLDING = [
    pytest.param(HEAD + b"X: " + b"y" * 30_000, id="heads"),
    pytest.param(HEAD + b"X: y\r\n" * 150, id="many small fields"),
    pytest.param(CHUNKED + b"0\r\nX: " + b"y" * 30_000, id="trailers"),
    pytest.param(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n" + b"y" * 30_000, id="bodies"
    ),
    pytest.param(HEAD + b"X: " + b"y" * 30_000 + b"\r\n\r\n", id="heads that were answered"),
    pytest.param(
        b"GET /early HTTP/1.1\r\nHost: x\r\n\r\n" + HEAD + b"X: " + b"y" * 30_000,
        id="a head behind a request",
    ),
    pytest.param((HEAD + b"\r\n") * 30, id="requests that wait"),
]


@pytest.mark.parametrize("sent", HOLDING)
async def test_what_all_connections_hold_has_one_budget(sent: bytes):
    limits = ConnectionLimits(memory=300_000)
    async with serving(limits) as url, AsyncExitStack() as stack:
        small = await stack.enter_async_context(socket_to(url))
        small[1].write(HEAD)
        greedy = [await stack.enter_async_context(socket_to(url)) for _ in range(40)]
        for _, writer in greedy:
            writer.write(sent)
        async with asyncio.timeout(PATIENCE):
            while not any(
                writer.transport.is_closing() or reader.at_eof() or reader.exception()
                for reader, writer in greedy
            ):
                await asyncio.sleep(0.01)

        small[1].write(b"\r\n")
        assert (await read_answer(small[0]))[0] == 200


async def test_answers_that_nobody_reads_are_in_the_budget():
    size = 16 * 1024 * 1024

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(255, -1, -1):
            body = b"." * (size // 256)
            await send({"type": "http.response.body", "body": body, "more_body": number > 0})

    limits = ConnectionLimits(memory=300_000)
    async with serving(limits, answer) as url, AsyncExitStack() as stack:
        greedy = [await stack.enter_async_context(socket_to(url)) for _ in range(20)]
        for _, writer in greedy:
            writer.write(HEAD + b"\r\n")
        said = [len(await closed_or(size, reader)) for reader, _ in greedy]

    assert sum(length < size for length in said) >= 10


async def closed_or(size: int, reader: asyncio.StreamReader) -> bytes:
    """Wait until the server closes, or has said so much."""
    said = bytearray()
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionError):
            while len(said) < size and (part := await reader.read(65_536)):
                said += part
    return bytes(said)


async def test_a_connection_is_kept_for_longer_than_a_head_is_waited_for():
    limits = ConnectionLimits(patience=0.3, idle=PATIENCE)
    async with serving(limits) as url, socket_to(url) as (reader, writer):
        for _ in range(2):
            writer.write(HEAD + b"\r\n")
            assert (await read_answer(reader))[0] == 200
            await asyncio.sleep(0.8)

        writer.write(HEAD)
        assert await closed(reader) == b""


@pytest.mark.parametrize("late", [b"hello", b"hello\r\n"])
async def test_a_connection_is_kept_although_its_body_came_after_the_answer(late: bytes):
    limits = ConnectionLimits(patience=0.3, idle=1.0)
    async with serving(limits) as url, socket_to(url) as (reader, writer):
        for _ in range(2):
            writer.write(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
            assert (await read_answer(reader))[0] == 200
            writer.write(late)
            await asyncio.sleep(0.6)  # longer than a head is waited for

        assert await closed(reader) == b""  # but not for ever


async def test_a_head_that_began_behind_a_request_is_not_waited_for_longer_than_others():
    limits = ConnectionLimits(patience=0.3, idle=10 * PATIENCE)
    async with serving(limits) as url, socket_to(url) as (reader, writer):
        writer.write(HEAD + b"\r\n" + HEAD)
        assert (await read_answer(reader))[0] == 200

        assert await closed(reader) == b""


async def test_an_idle_connection_is_closed_in_the_end():
    async with serving(ConnectionLimits(idle=0.3)) as url, socket_to(url) as (reader, writer):
        writer.write(HEAD + b"\r\n")
        assert (await read_answer(reader))[0] == 200

        assert await closed(reader) == b""


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


async def test_connections_that_come_at_once_do_not_pass_the_limit():
    async with serving(ConnectionLimits(connections=5)) as url, AsyncExitStack() as stack:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        # before the server takes the first one
        crowd = [stack.enter_context(socket.create_connection(address)) for _ in range(50)]
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            assert (await client.get(url)).status_code == 200

        assert sum(map(_is_open, crowd)) <= 5


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@pytest.fixture(name="accepted")
def note_accepted(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.Transport]:
    """Note the server's end of each connection."""
    transports: list[asyncio.Transport] = []
    connection_made = BoundedProtocol.connection_made

    def note(protocol: BoundedProtocol, transport: asyncio.Transport) -> None:
        transports.append(transport)
        connection_made(protocol, transport)

    monkeypatch.setattr(BoundedProtocol, "connection_made", note)
    return transports


async def test_last_answers_that_nobody_reads_keep_nobody_out(accepted):
    async with serving(ConnectionLimits(connections=3), page) as url, AsyncExitStack() as stack:
        for _ in range(3):
            await _leave_unread(url, stack, accepted)
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            assert (await client.get(url)).status_code == 200


async def test_a_last_answer_that_nobody_reads_is_not_kept_for_ever(accepted):
    async with serving(SHORT, page) as url, AsyncExitStack() as stack:
        await _leave_unread(url, stack, accepted)

        async with asyncio.timeout(PATIENCE):
            while accepted[0].get_write_buffer_size():
                await asyncio.sleep(0.02)


async def page(_scope: Any, _receive: Any, send: Any) -> None:
    """Answer with 4 KiB: a few of them may wait for their reader."""
    headers = [(b"content-length", b"4096")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"." * 4096})


async def _leave_unread(url: str, stack: AsyncExitStack, accepted: list[asyncio.Transport]) -> None:
    """Ask until the kernel takes no more, and then for the last time."""
    caller = stack.enter_context(socket.socket())
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    before = len(accepted)
    caller.connect(("127.0.0.1", int(url.rpartition(":")[2])))
    async with asyncio.timeout(PATIENCE):
        while len(accepted) == before or not accepted[-1].get_write_buffer_size():
            caller.sendall(HEAD + b"\r\n")
            await asyncio.sleep(0.005)
        caller.sendall(HEAD + b"Connection: close\r\n\r\n")
        while not accepted[-1].is_closing():
            await asyncio.sleep(0.005)


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
            b"POST /launch HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (bearer, len(text))
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
