"""Every call of the storage door has an end, whatever it waits for, and leaves others turns."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from patience import PATIENCE
from storage_builders import OWNER, WORK, build_settings, create_work, joined, open_door, until

from pyvatti.errors import Unavailable
from pyvatti.storage import Patience
from pyvatti.storage.calls import Calls
from pyvatti.storage.connection import Connection

SHORT = Patience(read=3600, call=0.2, pauses=(), settle=0)


async def test_calls_that_pile_up_are_refused_and_recover_by_themselves():
    """What hangs without a connection, as the look-up of a name does, is bounded by number."""
    calls = Calls(Connection(build_settings(storage_emulator_host="http://x"), SHORT), 8)
    there = threading.Event()

    async def attempt(number: int) -> str:
        try:
            await calls.run("look", lambda _client: there.wait(), bucket=str(number))
        except Unavailable as exc:
            return str(exc)
        return "done"

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(attempt(number)) for number in range(45)]
    finally:
        there.set()
    async with asyncio.timeout(PATIENCE):
        while await attempt(0) != "done":
            await asyncio.sleep(0.01)

    said = Counter(task.result() for task in tasks)
    assert said == {
        "look: no complete answer in time": 32,
        "look: too many calls hang": 45 - 32,
    }


async def never(_writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def one_header_after_the_other(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: yes\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def byte_by_byte(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("answer", [never, one_header_after_the_other, byte_by_byte])
async def test_a_call_that_is_given_up_ends_its_thread(
    answer: Callable[[asyncio.StreamWriter], Awaitable[None]],
):
    begun, ended = list[None](), list[None]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.append(None)
        try:
            async with asyncio.TaskGroup() as group:
                answering = group.create_task(answer(writer))
                await reader.read()  # until the client closes
                answering.cancel()
        except* ConnectionError:
            pass
        finally:
            ended.append(None)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, open_door(f"http://127.0.0.1:{port}", patience=SHORT) as door:
        said: Counter[str] = Counter()
        for _ in range(10):  # 40 in all, more than there may be threads

            async def attempt(name: str) -> None:
                with pytest.raises(Unavailable) as caught:
                    await door.list_buckets(name)
                said[str(caught.value)] += 1

            async with asyncio.TaskGroup() as group:
                for number in range(4):
                    group.create_task(attempt(f"bucket-{number}"))
        await until(lambda: len(ended) == len(begun))

    assert begun
    assert said == {"list buckets: no complete answer in time": 40}


async def test_a_bucket_whose_calls_hang_holds_up_no_other():
    patience = Patience(read=3600, call=3600, pauses=(), settle=0)
    async with joined(patience=patience) as (door, service):
        rule = service.faults.add("GET", "prefix=stuck", "hang")

        async with asyncio.TaskGroup() as group:
            stuck = [group.create_task(door.list_buckets("stuck")) for _ in range(12)]
            await until(lambda: rule.hits == 4)
            async with asyncio.timeout(PATIENCE):
                await create_work(door)
                await door.delete_bucket(WORK, owner=OWNER)
            for task in stuck:
                task.cancel()

        assert rule.hits == 4
        assert service.leftovers() == []
