"""Watches, logs and the connections they hold."""

from pathlib import Path

import pytest
from kube_scripted import (
    HTML,
    NAMESPACE,
    Step,
    answer,
    bookmark,
    cut,
    event,
    eventually,
    failure,
    hang,
    job,
    missing,
    read_log,
    read_watch,
    running,
    scripted,
    status,
    stream,
    text,
)

from pyvatti.errors import (
    NotFound,
    PyvattiError,
    Rejected,
    Unavailable,
)
from pyvatti.kube import JOBS, Limits
from pyvatti.kube.answers import Expired, Idle, Malformed

# Connections


async def test_cancelled_call_hangs_up(tmp_path: Path):
    async with scripted(tmp_path, GET=[hang()]) as (server, client):
        async with running(client.get(JOBS, "a")):
            await eventually(lambda: server.open == 1)

        await eventually(lambda: server.open == 0)


async def test_full_pool_is_unavailable_instead_of_waiting_for_ever(tmp_path: Path):
    limits = Limits(pool=1, connect=0.2, attempts=1)
    async with scripted(
        tmp_path, limits=limits, WATCH=[stream(then="hang")], GET=[answer(job("a", 1))]
    ) as (server, client):
        async with running(read_watch(client)):
            await eventually(lambda: server.open == 1)
            with pytest.raises(Unavailable):
                await client.get(JOBS, "a")

        assert await client.get(JOBS, "a") == job("a", 1)


async def test_every_ended_answer_gives_its_connection_back(tmp_path: Path):
    limits = Limits(pool=1, attempts=1)
    steps = {
        "GET": [HTML, missing(), cut(b"{"), text("{"), answer(job("a", 1))],
        "WATCH": [failure(410, "Expired"), stream(b"not json\n", then="hang")],
        "LOG": [missing()],
    }
    async with scripted(tmp_path, limits=limits, **steps) as (_server, client):
        for _ in range(4):
            with pytest.raises(PyvattiError):
                assert await client.get(JOBS, "a") is not None or _absent()
        for _ in range(2):
            with pytest.raises(PyvattiError):
                await read_watch(client)
        with pytest.raises(PyvattiError):
            await read_log(client)

        assert await client.get(JOBS, "a") == job("a", 1)


def _absent():
    raise NotFound("absent")


# Watch


@pytest.mark.parametrize("size", [1, 3, 64], ids="chunks of {} bytes".format)
async def test_lines_and_characters_cut_between_chunks_are_joined(tmp_path: Path, size: int):
    objects = [job("a", 1, note="Käse \u20ac \U0001f9ec"), job("b", 2, note="x" * 100)]
    body = b"\n".join(
        event("ADDED", one).decode().encode().strip().replace(b"\\u20ac", "€".encode())
        for one in objects
    )
    body += b"\n\n"
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    async with scripted(tmp_path, WATCH=[stream(*chunks)]) as (_server, client):
        events = await read_watch(client)

    assert [one["object"] for one in events] == objects


async def test_line_of_five_megabytes_is_read(tmp_path: Path):
    big = job("a", 1, note="x" * 5 * 2**20)
    async with scripted(tmp_path, WATCH=[stream(event("ADDED", big))]) as (_server, client):
        (one,) = await read_watch(client)

    assert len(one["object"]["note"]) == 5 * 2**20


async def test_endless_line_is_refused(tmp_path: Path):
    chunks = [b"x" * 2**20] * 40
    async with scripted(tmp_path, WATCH=[stream(*chunks, then="hang")]) as (_server, client):
        with pytest.raises(Malformed):
            await read_watch(client)


@pytest.mark.parametrize(
    ("step", "error"),
    [
        pytest.param(stream(event("ERROR", status(410, "Expired"))), Expired, id="ERROR event 410"),
        pytest.param(failure(410, "Expired"), Expired, id="HTTP 410"),
        pytest.param(stream(event("ERROR", status(500, ""))), Unavailable, id="ERROR event 500"),
        pytest.param(stream(event("ERROR", {})), Unavailable, id="ERROR event without code"),
        pytest.param(stream(b"<html>\n"), Malformed, id="HTML line"),
        pytest.param(stream(b'{"type": "ADDED"}\n'), Malformed, id="event without object"),
        pytest.param(stream(event("ADDED", job("a", 1))[:-9]), Unavailable, id="cut line"),
        pytest.param(stream(b'{"ty', then="reset"), Unavailable, id="reset inside a line"),
        pytest.param(stream(then="hang"), Idle, id="silence"),
        pytest.param(stream(bookmark(3), then="hang"), Idle, id="silence after a bookmark"),
        pytest.param(hang(), Idle, id="no answer at all"),
        pytest.param(HTML, Unavailable, id="HTML 502"),
    ],
)
async def test_each_bad_end_of_a_watch_has_its_error(
    tmp_path: Path, step: Step, error: type[PyvattiError]
):
    async with scripted(tmp_path, WATCH=[step]) as (server, client):
        with pytest.raises(error):
            await read_watch(client, idle_seconds=0.2)

    assert len(server.requests) == 1


# Logs


async def test_log_is_streamed_while_the_container_lives(tmp_path: Path):
    async with scripted(tmp_path, LOG=[stream(b"one\n", 0.05, b"two\n")]) as (server, client):
        assert await read_log(client, tail_lines=0) == b"one\ntwo\n"

    assert server.requests[0].path == f"/api/v1/namespaces/{NAMESPACE}/pods/p/log"
    assert server.requests[0].query == {"container": "main", "follow": "true", "tailLines": "0"}


@pytest.mark.parametrize(
    ("step", "error"),
    [
        pytest.param(missing("p"), NotFound, id="no such pod"),
        pytest.param(failure(400, "BadRequest", "PodInitializing"), Rejected, id="not started"),
        pytest.param(stream(b"one", then="reset"), Unavailable, id="reset"),
        pytest.param(stream(b"one", then="hang"), Idle, id="silent for too long"),
    ],
)
async def test_log_that_fails_is_never_taken_for_the_log(
    tmp_path: Path, step: Step, error: type[PyvattiError]
):
    limits = Limits(log_idle=0.2)
    async with scripted(tmp_path, limits=limits, LOG=[step]) as (_server, client):
        with pytest.raises(error):
            await read_log(client)


async def test_logs_followed_at_a_time_are_bounded(tmp_path: Path):
    limits = Limits(log_follows=1)
    async with scripted(
        tmp_path, limits=limits, LOG=[stream(b"one", then="hang"), stream(b"two")]
    ) as (server, client):
        async with running(read_log(client)):
            await eventually(lambda: server.open == 1)
            with pytest.raises(Unavailable) as caught:
                await read_log(client)
            assert caught.value.retry_after is not None

        await eventually(lambda: server.open == 0)
        assert await read_log(client) == b"two"
