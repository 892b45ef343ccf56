"""What becomes of a request that breaks: answered 500, said once, without the error's words."""

import asyncio
import logging
from typing import Any

import httpx
import pytest
import uvicorn
from builders import settings
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from patience import PATIENCE
from structlog.testing import capture_logs

from pyvatti.api import make_api
from pyvatti.api.connections import make_config

SAID = "no jane.doe@hospital.example here"


async def half() -> Any:
    yield b"begun"
    raise LookupError(SAID)


def broken() -> FastAPI:
    """Make the application with two routes that break, one of them in the midst of its answer."""
    app = make_api(settings(), lambda _app: asyncio.timeout(None))  # type: ignore[arg-type]

    @app.get("/broken")
    async def at_once() -> None:
        raise LookupError(SAID)

    @app.get("/broken-later")
    async def later() -> StreamingResponse:
        return StreamingResponse(half())

    return app


async def test_a_broken_request_is_said_once_without_the_errors_words(
    caplog: pytest.LogCaptureFixture,
):
    server = uvicorn.Server(make_config(broken(), host="127.0.0.1", port=0, lifespan="off"))
    logging.getLogger("uvicorn").propagate = True
    with capture_logs() as lines:
        task = asyncio.create_task(server.serve())
        async with asyncio.timeout(PATIENCE):
            while not server.started:
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                answer = await client.get("/broken")
                head = await client.head("/broken")
                with pytest.raises(httpx.RemoteProtocolError):
                    await client.get("/broken-later")
            server.should_exit = True
            await task

    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert (head.status_code, head.content) == (500, b"")
    told = [line for line in lines if line["event"] == "request broke"]
    assert [line["kind"] for line in told] == ["LookupError"] * 3
    assert "jane" not in str(lines)
    assert "jane" not in caplog.text
    assert not any(record.exc_info for record in caplog.records)
    answered = [line["status"] for line in lines if line["event"] == "request answered"]
    assert answered[:2] == [500, 500]
