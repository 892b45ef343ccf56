"""A scripted API server on a real socket: each operation answers from its own list of steps."""

import asyncio
import json
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from aiohttp import web
from patience import PATIENCE

from pyvatti.kube.client import JOBS, KubeClient
from pyvatti.kube.credentials import Credentials
from pyvatti.kube.transport import Limits

Step = Callable[[web.Request], Awaitable[web.StreamResponse]]
NAMESPACE = "demo"
QUICK = Limits(attempts=3, backoff=0.01, backoff_cap=0.05)  # asks again soon


@dataclass(frozen=True)
class Seen:
    """A request as it arrived; `at` is loop time in seconds."""

    operation: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    at: float

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")


class Scripted:
    """`steps["LIST"]` and the like are used up in order; the last one is repeated."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, **steps: list[Step]) -> None:
        self.steps: dict[str, list[Step]] = defaultdict(list, steps)
        self.requests: list[Seen] = []
        self.open = 0  # requests being answered
        self.url = ""
        self._tls = tls

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # A step that hangs ends when the client hangs up.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        port = self._runner.addresses[0][1]
        self.url = f"https://localhost:{port}" if self._tls else f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def seen(self, operation: str) -> list[Seen]:
        return [request for request in self.requests if request.operation == operation]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        operation = _operation(request)
        self.requests.append(
            Seen(
                operation,
                request.method,
                request.path,
                dict(request.query),
                dict(request.headers),
                json.loads(body) if body else None,
                asyncio.get_running_loop().time(),
            )
        )
        self.open += 1
        try:
            return await self._next(operation)(request)
        finally:
            self.open -= 1

    def _next(self, operation: str) -> Step:
        steps = self.steps[operation]
        if not steps:
            raise AssertionError(f"no step for {operation}")
        return steps.pop(0) if len(steps) > 1 else steps[0]


def _operation(request: web.Request) -> str:
    if request.method != "GET":
        return request.method
    if request.path.endswith("/log"):
        return "LOG"
    if request.query.get("watch"):
        return "WATCH"
    plural = {"jobs", "pods", "secrets", "events", "configmaps"}
    return "LIST" if request.path.rpartition("/")[2] in plural else "GET"


# Steps


def answer(body: Any, status: int = 200, **headers: str) -> Step:
    async def step(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return step


def text(body: str, status: int = 200, content_type: str = "text/html", **headers: str) -> Step:
    async def step(_: web.Request) -> web.StreamResponse:
        return web.Response(text=body, status=status, content_type=content_type, headers=headers)

    return step


def failure(code: int, reason: str, message: str = "no", headers: Any = None, **more: Any) -> Step:
    async def step(_: web.Request) -> web.StreamResponse:
        return web.json_response(
            status(code, reason, message, **more), status=code, headers=headers
        )

    return step


def hang() -> Step:
    async def step(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    return step


def reset() -> Step:
    async def step(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return step


def cut(body: bytes) -> Step:
    """Announce twice the bytes that are sent, then hang up."""

    async def step(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(2 * len(body))})
        await response.prepare(request)
        await response.write(body)
        assert request.transport is not None
        request.transport.close()
        return response

    return step


def stream(*chunks: bytes | float, then: str = "end") -> Step:
    """Send chunks (a number waits that many seconds), then `end`, `hang` or `reset`."""

    async def step(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for chunk in chunks:
            if isinstance(chunk, bytes):
                await response.write(chunk)
            else:
                await asyncio.sleep(chunk)
        if then == "hang":
            await asyncio.Event().wait()
        if then == "reset":
            await asyncio.sleep(0.02)  # let what was written leave first
            assert request.transport is not None
            request.transport.abort()
        return response

    return step


HTML = text("<html><h1>502 Bad Gateway</h1></html>", 502)


# Values


def job(name: str, version: int | str, uid: str = "", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata | more.pop("metadata", {}),
    } | more


def listing(*objects: dict[str, Any], version: int | str, continue_: str = "") -> dict[str, Any]:
    bare = [{k: v for k, v in obj.items() if k not in ("apiVersion", "kind")} for obj in objects]
    metadata = {"resourceVersion": str(version)} | ({"continue": continue_} if continue_ else {})
    return {"apiVersion": "batch/v1", "kind": "JobList", "metadata": metadata, "items": bare}


def status(code: int, reason: str, message: str = "no", **details: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
        "details": details,
    }


def missing(name: str = "x") -> Step:
    return failure(404, "NotFound", f'jobs.batch "{name}" not found', name=name, kind="jobs")


def event(type_: str, obj: dict[str, Any]) -> bytes:
    return json.dumps({"type": type_, "object": obj}).encode() + b"\n"


def bookmark(version: int | str) -> bytes:
    return event("BOOKMARK", {"kind": "Job", "metadata": {"resourceVersion": str(version)}})


# Clients


def kubeconfig(url: str, folder: Path, user: Any = None, **cluster: Any) -> str:
    """Write a kubeconfig and give its path."""
    path = folder / f"kubeconfig-{len(list(folder.iterdir()))}"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": url} | cluster}],
        "users": [{"name": "it", "user": user or {"token": "t0"}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


@asynccontextmanager
async def client_for(
    url: str, folder: Path, *, limits: Limits = QUICK, user: Any = None, **cluster: Any
) -> AsyncIterator[KubeClient]:
    path = kubeconfig(url, folder, user, **cluster)
    client = await KubeClient.open(Credentials(path), NAMESPACE, limits)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def scripted(
    folder: Path, *, limits: Limits = QUICK, user: Any = None, **steps: list[Step]
) -> AsyncIterator[tuple[Scripted, KubeClient]]:
    """Give a scripted server and a client of it."""
    async with (
        Scripted(**steps) as server,
        client_for(server.url, folder, limits=limits, user=user) as client,
    ):
        yield server, client


async def read_watch(client: KubeClient, **more: Any) -> Any:
    watch = client.watch(JOBS, selector="", resource_version="1", **more)
    async with aclosing(watch) as events:
        return [one async for one in events]


async def read_log(client: KubeClient, **more: Any) -> Any:
    chunks = client.pod_log("p", "main", **({"follow": True} | more))
    return b"".join([chunk async for chunk in chunks])


@asynccontextmanager
async def running(work: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """Run a coroutine beside the body and cancel it afterwards."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        try:
            yield task
        finally:
            task.cancel()


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds, with a deadline."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)
