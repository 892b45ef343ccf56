"""Calls of the Cloud Storage APIs as plain HTTP, for the tests of the stand-in.

No assertions.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx

from pyvatti.sandbox.storage import StorageStandIn


class Wire:
    """A stand-in and an HTTP client pointed at it."""

    def __init__(self, service: StorageStandIn, http: httpx.AsyncClient) -> None:
        self.service = service
        self.get, self.post, self.put = http.get, http.post, http.put
        self.patch, self.delete = http.patch, http.delete

    async def create(self, name: str, **body: Any) -> httpx.Response:
        return await self.post("/storage/v1/b?project=intervene", json={"name": name, **body})

    async def create_bare(self, name: str, **body: Any) -> httpx.Response:
        """Create a bucket that keeps nothing it deletes."""
        keep_nothing = {"retentionDurationSeconds": 0}
        return await self.create(name, softDeletePolicy=keep_nothing, **body)

    async def upload(self, bucket: str, name: str, data: bytes) -> httpx.Response:
        path = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, '')}"
        return await self.post(path, content=data)

    async def batch(self, lines: list[str]) -> httpx.Response:
        parts = "".join(
            f"--limit\r\nContent-Type: application/http\r\nContent-ID: <{number}>\r\n\r\n{line}\r\n"
            "Accept: application/json\r\n\r\n\r\n"
            for number, line in enumerate(lines)
        )
        return await self.post(
            "/batch/storage/v1",
            content=f"{parts}--limit--",
            headers={"Content-Type": 'multipart/mixed; boundary="limit"'},
        )

    @staticmethod
    def path(bucket: str, name: str, **query: str) -> str:
        """Spell the path of an object."""
        path = f"/storage/v1/b/{bucket}/o/{quote(name, '')}"
        return f"{path}?{'&'.join(f'{key}={value}' for key, value in query.items())}"


def reasons(answer: httpx.Response) -> tuple[int, str]:
    """Give status and reason of a refusal, read in the form of the JSON API."""
    error = answer.json()["error"]
    return error["code"], error["errors"][0]["reason"]


@asynccontextmanager
async def wired(**options: Any) -> AsyncIterator[Wire]:
    async with (
        StorageStandIn(**options) as service,
        httpx.AsyncClient(base_url=service.url) as http,
    ):
        yield Wire(service, http)
