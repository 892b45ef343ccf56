"""An error keeps its status and its Retry-After, whatever its body is and becomes on the way."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from kube_scripted import client_for
from neighbour_settings import settings_for

from pyvatti.backend import Backend
from pyvatti.errors import Denied, PyvattiError, TransientError, Unavailable
from pyvatti.kube import JOBS, Limits
from pyvatti.kube.answers import error_for
from pyvatti.lifecycle.clock import utc_now
from pyvatti.models import Event, Notice
from pyvatti.rest import Timeouts
from pyvatti.seqera import Seqera

BODIES = [
    pytest.param(b'{"error": "slow down"}', id="error is a string"),
    pytest.param(b'{"error": ["a", {"b": null}]}', id="error is a list"),
    pytest.param(b'{"message": {"text": "no"}, "details": "x"}', id="details are a string"),
    pytest.param(b'{"kind": "Status", "message": 5, "reason": [], "details": "x"}', id="Status"),
    pytest.param(b'"slow down"', id="a string"),
    pytest.param(b"null", id="null"),
    pytest.param(b"[" * 50_000, id="deep nesting"),
    pytest.param(b"<html>no</html>", id="page"),
    pytest.param(b"default backend", id="text"),
    pytest.param(b"\xff\xfe\x00", id="no text"),
    pytest.param(b"", id="empty"),
]
TYPE = "Content-Type: application/json"
ERROR = b'{"error": "slow down"}'
CHUNK = b"%x\r\n%b\r\n" % (len(ERROR), ERROR)
WAYS = [
    pytest.param(([TYPE, "Content-Length: 90000"], ERROR), id="cut"),
    pytest.param(([TYPE, "Transfer-Encoding: chunked"], CHUNK), id="cut between chunks"),
    pytest.param(([TYPE, "Content-Encoding: gzip"], ERROR), id="not the gzip it says"),
]


Answer = tuple[list[str], bytes]  # headers and body


@asynccontextmanager
async def answering(status: int, answer: Answer) -> AsyncIterator[str]:
    """Answer every request so; give the address."""
    headers, body = answer
    head = [f"HTTP/1.1 {status} Refused", "Retry-After: 7", *headers, "", ""]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write("\r\n".join(head).encode() + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def of_kubernetes(url: str, home: Path) -> TransientError:
    async with client_for(url, home, limits=Limits(attempts=1)) as client:
        with pytest.raises(TransientError) as caught:
            await client.create(JOBS, {})
    return caught.value


async def of_seqera(url: str) -> TransientError:
    door = Seqera(settings_for(tower_api_url=url))
    with pytest.raises(TransientError) as caught:
        await door.check()
    await door.close()
    return caught.value


async def of_the_backend(url: str) -> TransientError:
    door = Backend(settings_for(notify_url=url), clock=utc_now)
    told = Notice(sequence=1, event=Event.SUCCEEDED, at=datetime(2026, 1, 1, tzinfo=UTC))
    reply = await door.tell("INTP1", "uid", told)
    await door.close()
    return TransientError(reply.text, retry_after=reply.retry_after)


async def refused(status: int, answer: Answer, home: Path) -> list[TransientError]:
    """Give what each door makes of a refusal."""
    async with answering(status, answer) as url:
        doors = (of_kubernetes(url, home), of_seqera(url), of_the_backend(url))
        return await asyncio.gather(*doors)


@pytest.mark.parametrize("body", BODIES)
async def test_status_and_retry_after_stand_beside_any_body(body: bytes, tmp_path: Path):
    errors = await refused(429, ([TYPE, f"Content-Length: {len(body)}"], body), tmp_path)

    assert [error.retry_after for error in errors] == [7, 7, 7]
    assert ["429" in str(error) for error in errors] == [True, True, True]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [403, 429])
async def test_status_and_retry_after_stand_beside_a_body_that_cannot_be_read(
    way: Answer, status: int, tmp_path: Path
):
    errors = await refused(status, way, tmp_path)

    assert [error.retry_after for error in errors] == [7, 7, 7]
    assert [str(status) in str(error) for error in errors] == [True, True, True]
    assert [isinstance(error, Denied) for error in errors[:2]] == [status == 403] * 2


async def test_status_and_retry_after_stand_beside_a_body_that_never_ends():
    async def endless() -> AsyncIterator[bytes]:
        yield ERROR
        await asyncio.Event().wait()

    async def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, headers={"Retry-After": "7"}, content=endless())

    transport = httpx.MockTransport(answer)
    door = Seqera(settings_for(), transport=transport, timeouts=Timeouts(total=0.5))
    with pytest.raises(Unavailable, match="429") as caught:
        await door.check()
    await door.close()

    assert caught.value.retry_after == 7


@pytest.mark.parametrize("status", [401, 403, 404, 409, 410, 429, 500, 503])
@pytest.mark.parametrize("message", ["no", "exceeded quota: q"])
def test_every_refusal_of_the_kubernetes_api_that_may_end_keeps_its_pause(
    status: int, message: str
):
    for reason in ("AlreadyExists", "Conflict", "Forbidden", ""):
        said = {"kind": "Status", "message": message, "reason": reason}
        error: PyvattiError = error_for(
            status, {"retry-after": "7"}, json.dumps(said).encode(), target="POST /"
        )
        assert isinstance(error, TransientError)
        assert error.retry_after == 7
