"""Cloud Storage misbehaves: every fault at every call, and what the door makes of it."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from patience import PATIENCE
from storage_builders import (
    OWNER,
    UID,
    WORK,
    create_work,
    joined,
    open_door,
    refusal,
    until,
)

from pyvatti.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    PyvattiError,
    RateLimited,
    Rejected,
    TransientError,
    Unavailable,
)
from pyvatti.sandbox.faults import Kind
from pyvatti.storage import Patience
from pyvatti.storage.calls import mapped

# A good answer may be late for it too: insist
QUICK = Patience(read=0.5, call=1, pauses=(0.01, 0.01), settle=0)
SOON = Patience(pauses=(0.01, 0.01), settle=0)
T = TypeVar("T")
BUCKET = rf"/storage/v1/b/{WORK}\?"
FAULTS = [
    pytest.param("status", {"status": 500, "body": refusal(500)}, Unavailable, id="500"),
    pytest.param("status", {"status": 503, "body": refusal(503)}, Unavailable, id="503"),
    pytest.param("status", {"status": 429, "body": refusal(429)}, Unavailable, id="429"),
    pytest.param("status", {"status": 408, "body": refusal(408)}, Unavailable, id="408"),
    pytest.param("status", {"status": 401, "body": refusal(401)}, Denied, id="401"),
    pytest.param("status", {"status": 404, "body": "<html>no"}, Unavailable, id="404 of a gateway"),
    pytest.param("status", {"status": 200, "body": "[1]"}, Unavailable, id="200 with a list"),
    pytest.param("status", {"status": 200, "body": ""}, Unavailable, id="200 with nothing"),
    pytest.param("html", {}, Unavailable, id="HTML 502"),
    pytest.param("hang", {}, Unavailable, id="silence"),
    pytest.param("reset", {}, Unavailable, id="connection reset"),
    pytest.param("reset_body", {}, Unavailable, id="cut in the body"),
    pytest.param("truncate", {}, Unavailable, id="half a JSON body"),
    pytest.param("after", {}, Unavailable, id="answer lost"),
]


def _patience(kind: Kind) -> Patience:
    """Wait as in operation for a server that answers."""
    return QUICK if kind == "hang" else SOON


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Call until it works: on a busy machine a good answer may be late too."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(Unavailable):
                return await call()


@pytest.mark.parametrize(("kind", "details", "expected"), FAULTS)
async def test_failed_create_is_made_good_by_the_next(
    kind: Kind, details: dict[str, Any], expected: type[TransientError]
):
    async with joined(patience=_patience(kind)) as (door, service):
        service.faults.add("POST", r"/storage/v1/b\?", kind, count=1, **details)

        with pytest.raises(expected) as caught:
            await create_work(door)
        await insist(partial(create_work, door))

        assert isinstance(caught.value, TransientError)
        assert service.buckets[WORK].labels["job-uid"] == UID


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("GET", BUCKET, id="at the look"),
        pytest.param("GET", rf"/b/{WORK}/o\?", id="at the list"),
        pytest.param("POST", "/batch/", id="at a batch"),
        pytest.param("DELETE", BUCKET, id="at the bucket"),
    ],
)
@pytest.mark.parametrize(("kind", "details", "expected"), FAULTS)
async def test_failing_deletion_is_an_error_until_it_is_done(
    method: str, path: str, kind: Kind, details: dict[str, Any], expected: type[TransientError]
):
    async with joined(patience=_patience(kind)) as (door, service):
        await insist(partial(create_work, door))
        for number in range(150):
            service.put_object(WORK, f"data/{number}", b"acgt")
        service.faults.add(method, path, kind, **details)

        delete = partial(door.delete_bucket, WORK, owner=OWNER)
        try:
            removal = await delete()
        except expected:
            service.faults.clear()
            removal = await insist(delete)

        assert service.leftovers() == []
        assert (removal.objects, removal.bytes) == (150, 600)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("GET", BUCKET, id="at the look"),
        pytest.param("GET", rf"/b/{WORK}/o\?", id="at the list"),
        pytest.param("POST", "/batch/", id="at a batch"),
    ],
)
@pytest.mark.parametrize("kind", ["reset", "after", "html", "slow"])
async def test_short_fault_of_a_repeatable_call_is_not_felt(method: str, path: str, kind: Kind):
    async with joined() as (door, service):
        await create_work(door)
        for number in range(150):
            service.put_object(WORK, f"data/{number}", b"acgt")
        service.faults.add(method, path, kind, count=1, seconds=0.1)

        removal = await door.delete_bucket(WORK, owner=OWNER)

        assert (removal.objects, removal.bytes) == (150, 600)
        assert service.leftovers() == []


async def test_lost_answer_of_the_bucket_delete_is_looked_up():
    async with joined() as (door, service):
        await create_work(door)
        service.faults.add("DELETE", BUCKET, "after", count=1)

        removal = await door.delete_bucket(WORK, owner=OWNER)

        assert removal.proven_absent_at is not None
        assert service.leftovers() == []


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"status": 503}, id="503 before the change"),
        pytest.param({"status": 503, "after": True}, id="503 after the change"),
        pytest.param({"status": 429}, id="429"),
        pytest.param({"status": 404}, id="a 404 that does not say notFound"),
        pytest.param({"status": 200}, id="a 200 that is no deletion"),
    ],
)
async def test_failing_part_of_a_batch_is_tried_again(fault: dict[str, Any]):
    async with joined() as (door, service):
        await create_work(door)
        for number in range(150):
            service.put_object(WORK, f"data/{number}", b"acgt")
        service.fail_parts(**fault, name="7", count=20)

        removal = await door.delete_bucket(WORK, owner=OWNER)

        assert removal.objects == 150
        assert service.leftovers() == []


async def test_parts_that_keep_failing_end_in_an_error_and_are_done_later():
    async with joined() as (door, service):
        await create_work(door)
        for number in range(150):
            service.put_object(WORK, f"data/{number}", b"acgt")
        service.fail_parts(503, name="149", count=3)

        with pytest.raises(Unavailable, match=f"bucket {WORK}: object not deleted: 503"):
            await door.delete_bucket(WORK, owner=OWNER)
        left = list(service.buckets[WORK].objects)
        removal = await door.delete_bucket(WORK, owner=OWNER)

        assert left == ["data/149"]
        assert removal.objects == 150
        assert service.leftovers() == []


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        pytest.param("7", 7, id="seconds"),
        pytest.param("in an hour", 300, id="a date, within the bound"),
        pytest.param("soon", None, id="nonsense"),
    ],
)
async def test_wait_asked_for_by_the_server_is_passed_on(header: str, seconds: float | None):
    if header == "in an hour":
        header = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    async with joined() as (door, service):
        service.faults.add(
            "POST",
            r"/storage/v1/b\?",
            "status",
            status=429,
            body=refusal(429),
            headers={"Retry-After": header},
        )

        with pytest.raises(Unavailable) as caught:
            await create_work(door)

        assert caught.value.retry_after == seconds
        assert service.counters["buckets.insert"] == 0
        assert len(service.requests) == 1


async def test_refused_connection_is_unavailable():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with open_door(url) as door:
            with pytest.raises(Unavailable, match=r"Connection refused$") as caught:
                await create_work(door)

        assert "/storage/" not in str(caught.value)


async def test_answer_that_comes_byte_by_byte_is_given_up():
    async with joined(patience=Patience(read=5, call=0.5)) as (door, service):
        service.drip = 0.02

        begun = time.monotonic()
        with pytest.raises(Unavailable, match="in time"):
            await create_work(door)
        took = time.monotonic() - begun
        service.drip = 0.0
        await insist(partial(create_work, door))

        assert took < 5
        assert service.buckets[WORK].labels["job-uid"] == UID


async def test_client_asks_nothing_behind_our_back():
    async with joined() as (door, service):
        for number in range(10):
            assert not await door.has_object(
                f"missing-{number}", "results/", "report.html", owner=OWNER
            )
        await create_work(door)
        await door.empty_bucket(WORK, owner=OWNER)
        await door.delete_bucket(WORK, owner=OWNER)
        await door.list_buckets("intervene-dev-")

        assert dict(service.counters) == {
            # each look for a result, after the create, before each step, after the deletion, ours
            "buckets.list": 10 + 1 + 2 + 1 + 1,
            "buckets.insert": 1,
            "objects.list": 2,
            "buckets.delete": 1,
            "buckets.get": 1,  # that it is gone
        }


async def test_event_loop_goes_on_while_the_server_is_silent():
    async with joined(patience=Patience(read=0.5)) as (door, service):
        service.faults.add("POST", r"/storage/v1/b\?", "hang")
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        async with asyncio.TaskGroup() as group:
            ticker = group.create_task(tick())
            with pytest.raises(Unavailable):
                await create_work(door)
            ticker.cancel()

        assert ticks > 5


async def test_cancelled_call_returns_at_once():
    async with joined(patience=Patience(read=30)) as (door, service):
        rule = service.faults.add("POST", r"/storage/v1/b\?", "hang")

        async with asyncio.TaskGroup() as group:
            creation = group.create_task(create_work(door))
            await until(lambda: rule.hits > 0)
            begun = time.monotonic()
            creation.cancel()
        took = time.monotonic() - begun

        assert creation.cancelled()
        assert took < 10


def answered(status: int) -> auth.TransportError:
    return auth.TransportError("no token", SimpleNamespace(status=status))


def caused(cause: auth.TransportError) -> auth.RefreshError:
    """Give what google.auth makes of a metadata server that gives no token."""
    error = auth.RefreshError(cause)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        pytest.param(api.Unauthorized("x"), Denied, id="401"),
        pytest.param(api.Forbidden("x"), Denied, id="403"),
        pytest.param(api.BadRequest("x"), Rejected, id="400"),
        pytest.param(api.NotFound("x"), Rejected, id="404 where none is expected"),
        pytest.param(api.Conflict("x"), AlreadyExists, id="409"),
        pytest.param(api.PreconditionFailed("x"), Conflict, id="412"),
        pytest.param(api.TooManyRequests("x"), RateLimited, id="429"),
        pytest.param(api.ServiceUnavailable("x"), Unavailable, id="503"),
        pytest.param(api.RetryError("x", None), Unavailable, id="retries used up"),
        pytest.param(requests.ReadTimeout("x"), Unavailable, id="read timeout"),
        pytest.param(requests.exceptions.ChunkedEncodingError("x"), Unavailable, id="cut body"),
        pytest.param(auth.DefaultCredentialsError("x"), Denied, id="no credentials"),
        pytest.param(auth.RefreshError("x"), Denied, id="token not renewed"),
        pytest.param(auth.RefreshError("x", retryable=True), Unavailable, id="renewal failed"),
        pytest.param(auth.TransportError("x"), Unavailable, id="token server not reached"),
        pytest.param(caused(auth.TransportError("x")), Unavailable, id="metadata server away"),
        pytest.param(caused(answered(503)), Unavailable, id="metadata server fails"),
        pytest.param(caused(answered(429)), Unavailable, id="metadata server is busy"),
        pytest.param(caused(answered(404)), Denied, id="no service account"),
        pytest.param(caused(answered(403)), Denied, id="service account not allowed"),
        pytest.param(TimeoutError(), Unavailable, id="time limit"),
        pytest.param(ValueError("x"), Unavailable, id="answer not understood"),
    ],
)
def test_foreign_error_becomes_ours(foreign: Exception, ours: type[PyvattiError]):
    with pytest.raises(ours) as caught, mapped("create bucket x"):
        raise foreign

    assert type(caught.value) is ours
    assert caught.value.__cause__ is foreign
    assert str(caught.value).startswith("create bucket x")
    assert len(str(caught.value)) <= 256
