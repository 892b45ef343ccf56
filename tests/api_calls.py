"""What the tests of the API share: raw requests on a socket, the shape of a problem."""

import asyncio
import contextlib
import json
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from patience import KEPT, PATIENCE
from stage import FAST

from pyvatti.demo import serve_in_loop
from pyvatti.sandbox.world import World
from pyvatti.settings import Settings

TOKENS = "right-token-of-the-backend,right-token-of-an-operator"
GATED = {"API_AUTH": "token", "API_TOKENS": TOKENS}
AS_JSON = {"Content-Type": "application/json"}
BEARER = {"Authorization": "Bearer right-token-of-the-backend"}


def problem_of(answer: httpx.Response, status: int) -> Any:
    """Insist on a problem document of a status; give its detail."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem.keys() == {"type", "title", "status", "detail"}
    assert (problem["type"], problem["status"]) == ("about:blank", status)
    assert problem["title"]
    assert problem["detail"]
    return problem["detail"]


def fields_of(answer: httpx.Response) -> list[str]:
    """Give the places that a 422 complains about."""
    return [".".join(map(str, item["loc"])) for item in problem_of(answer, 422)]


@asynccontextmanager
async def socket_to(url: str):
    """Open a bare connection to a server."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    """Read one answer with a Content-Length: status, headers, decoded JSON or bytes."""
    async with asyncio.timeout(PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    is_json = "json" in headers.get("content-type", "")
    return int(head[0].split()[1]), headers, json.loads(body) if is_json else body


@asynccontextmanager
async def replica(world: World, **changes: str):
    """Run one more service on a world, without waiting until it is ready; gives a client."""
    with tempfile.TemporaryDirectory() as folder:
        environment = world.environment(Path(folder)) | FAST | changes
        settings = Settings.model_validate(
            {name.lower(): value for name, value in environment.items()}
        )
        async with (
            serve_in_loop(settings) as url,
            httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=KEPT) as client,
        ):
            yield client


async def until_status(client: httpx.AsyncClient, path: str, status: int) -> httpx.Response:
    """Wait until a route answers with a status."""
    answer = await client.get(path)
    try:
        async with asyncio.timeout(PATIENCE):
            while answer.status_code != status:
                await asyncio.sleep(0.02)
                answer = await client.get(path)
    except TimeoutError:
        raise AssertionError(f"{path} never answers {status}: {answer.text}") from None
    return answer
