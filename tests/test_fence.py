"""A leader's call is not sent once its Lease has run out, however far it had got before."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import chain, repeat
from pathlib import Path

import pytest
from kube_scripted import QUICK, Scripted, answer, client_for
from neighbour_settings import NOTIFY_TOKEN, settings_for
from storage_builders import OWNER, WORK, create_work, joined

from pyvatti import fence
from pyvatti.backend import Backend
from pyvatti.errors import Deposed
from pyvatti.kube.client import JOBS, SECRETS, KubeClient
from pyvatti.lifecycle.clock import utc_now
from pyvatti.models import Event, Notice
from pyvatti.sandbox.backend import BackendStandIn

NOTICE = Notice(sequence=1, event=Event.DEPLOYED, at=datetime(2026, 1, 1, tzinfo=UTC))
STORED = {"kind": "Secret", "metadata": {"name": "a", "uid": "u", "resourceVersion": "1"}}


def after(asked: int) -> Callable[[], bool]:
    """Allow so many looks at the fence: the process is stopped between two of them."""
    answers: Iterator[bool] = chain(repeat(True, asked), repeat(False))
    return lambda: next(answers)


@pytest.mark.parametrize("asked", [0, 1], ids=["before the call", "before its bytes are written"])
async def test_kubernetes_hears_nothing_of_a_write_begun_too_late(tmp_path: Path, asked: int):
    async with (
        Scripted(POST=[answer(STORED)]) as server,
        client_for(server.url, tmp_path, limits=QUICK) as client,
    ):
        with fence.fenced(after(asked)), pytest.raises(Deposed):
            await client.create(SECRETS, STORED)

        assert server.requests == []
        assert await client.create(SECRETS, STORED) == STORED  # others are free


async def test_a_call_that_waits_for_its_turn_is_not_sent_when_the_turn_comes_too_late(
    tmp_path: Path,
):
    async with (
        Scripted(GET=[answer(STORED)]) as server,
        client_for(server.url, tmp_path, limits=QUICK) as client,
    ):
        with fence.fenced(lambda: False):
            task = asyncio.create_task(_get(client))  # a task begun inside is bound as well
        with pytest.raises(Deposed):
            await task

        assert server.requests == []


async def _get(client: KubeClient) -> None:
    await client.get(JOBS, "a")


async def test_a_storage_thread_sends_nothing_when_it_runs_too_late():
    async with joined() as (door, service):
        await create_work(door)
        calls = len(service.requests)

        with fence.fenced(lambda: False), pytest.raises(Deposed):
            await door.delete_bucket(WORK, owner=OWNER)

        assert len(service.requests) == calls


@pytest.mark.parametrize("asked", [0, 1], ids=["before the headers", "before the body"])
async def test_the_backend_is_told_nothing_too_late(asked: int):
    async with BackendStandIn(token=NOTIFY_TOKEN) as world:
        backend = Backend(settings_for(notify_url=world.url), clock=utc_now)
        async with aclosing(_Closing(backend)) as closing:
            with fence.fenced(after(asked)), pytest.raises(Deposed):
                await closing.backend.tell("INTP1", "uid", NOTICE)

        assert world.received == []


class _Closing:
    def __init__(self, backend: Backend) -> None:
        self.backend, self.aclose = backend, backend.close
