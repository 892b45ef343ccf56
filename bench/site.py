"""Where one measurement happens: a namespace of its own in a cluster, and the other neighbours.

The cluster is the sandbox in a process of its own, or the one PYVATTI_TEST_KUBECONFIG names;
Seqera, storage and backend are the sandbox's, in the process of the load generator.
"""

import asyncio
import contextlib
import json
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import orjson
import yaml

from bench.processes import child, line_of, variables
from pyvatti.models import Installation
from pyvatti.sandbox.world import DRIVER_ACCOUNT, World
from pyvatti.settings import Settings
from tests.kube_access import Access, read_kubeconfig

Body = dict[str, Any]
T = TypeVar("T")

MERGE = "application/merge-patch+json"
AT_ONCE = 32  # requests under way while a stage is set
FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


def real_kubeconfig() -> Path | None:
    """Give the kubeconfig of the cluster to measure on, None for the sandbox."""
    name = variables().get("PYVATTI_TEST_KUBECONFIG")
    return Path(name).absolute() if name else None


class Refused(Exception):
    """The API server did not do what a measurement needs."""


@dataclass(frozen=True, slots=True)
class Site:
    """One namespace and everything a service needs to work in it."""

    folder: Path
    access: Access
    session: aiohttp.ClientSession
    world: World
    installation: Installation  # of the service that is measured

    @property
    def namespace(self) -> str:
        """The namespace of everything that is measured."""
        return self.installation.namespace

    def environment(self, **changes: str) -> dict[str, str]:
        """Give the service's environment variables."""
        kubeconfig = str(self.folder / "kubeconfig")
        return self.world.environment(self.folder) | {"KUBECONFIG": kubeconfig} | changes

    def settings(self, **changes: str) -> Settings:
        """Give the settings the service would read from its environment."""
        environment = self.environment(**changes)
        return Settings.model_validate({name.lower(): text for name, text in environment.items()})

    def path(self, api: str, plural: str, name: str = "", sub: str = "") -> str:
        """Give the path of a collection or object; `api` is `v1` or `batch/v1`."""
        root = f"/apis/{api}" if "/" in api else f"/api/{api}"
        tail = "".join(f"/{part}" for part in (name, sub) if part)
        return f"{root}/namespaces/{self.namespace}/{plural}{tail}"

    async def send(
        self, method: str, path: str, body: Any, media: str = "application/json"
    ) -> Body:
        """Make one request as the load generator, whose agent is not the service's."""
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {"Content-Type": media}
        async with self.session.request(method, path, data=data, headers=headers) as answer:
            content = await answer.read()
            if answer.status >= 300:
                raise Refused(f"{method} {path}: {answer.status} {content[:300]!r}")
            given: Body = orjson.loads(content)
            return given

    async def get(self, path: str) -> Body:
        """Read an object or a list."""
        return await self.send("GET", path, b"")


async def each(items: Iterable[T], work: Callable[[T], Awaitable[object]], at_once: int) -> None:
    """Do the work for all items, so many at a time."""
    rest = iter(items)

    async def worker() -> None:
        for item in rest:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())


@asynccontextmanager
async def open_site(*, controllers: bool = False) -> AsyncIterator[Site]:
    """Start or find the cluster, make a namespace in it, start the neighbours; undo all of it."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyvatti-bench-")))
        source = real_kubeconfig()
        config = (
            _absolute(source)
            if source
            else await stack.enter_async_context(_sandbox(folder, controllers=controllers))
        )
        kubeconfig = folder / "kubeconfig"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(config)
        access = read_kubeconfig(kubeconfig)
        namespace = f"pyvatti-bench-{uuid.uuid4().hex[:8]}"
        world = World(namespace=namespace, rate_limit=False, has_cluster=False)
        await stack.enter_async_context(world)
        connector = aiohttp.TCPConnector(ssl=access.ssl or True, limit=200)
        session = aiohttp.ClientSession(access.url, headers=access.headers, connector=connector)
        await stack.enter_async_context(session)
        nowhere = Installation(namespace=namespace, namespace_uid="", instance="pyvatti")
        uid = await _make_namespace(Site(folder, access, session, world, nowhere))
        site = Site(folder, access, session, world, replace(nowhere, namespace_uid=uid))
        stack.push_async_callback(_remove_namespace, site, is_real=source is not None)
        yield site


@asynccontextmanager
async def _sandbox(folder: Path, *, controllers: bool) -> AsyncIterator[str]:
    log = folder / "cluster.log"
    options = ["--controllers"] if controllers else []
    async with child("-m", "bench.cluster", *options, log=log) as process:
        kubeconfig: str = json.loads(await line_of(process, log))
        yield kubeconfig


def _absolute(path: Path) -> str:
    """Read a kubeconfig with the named context as its current one and absolute file names."""
    config = yaml.safe_load(path.read_text())
    context = variables().get("PYVATTI_TEST_CONTEXT")
    config["current-context"] = context or config["current-context"]
    for entry in (*config["clusters"], *config["users"]):
        part = entry.get("cluster") or entry.get("user") or {}
        part |= {name: str(path.parent / part[name]) for name in FILES if part.get(name)}
    return yaml.safe_dump(config)


async def api_server() -> str:
    """Name the cluster of the figures."""
    source = real_kubeconfig()
    if source is None:
        return "the sandbox's API server, a process of its own"
    async with open_site() as site:
        told = await site.get("/version")
    return f"Kubernetes {told['gitVersion']}"


async def _make_namespace(site: Site) -> str:
    """Make the namespace and the drivers' account in it; gives its uid."""
    name = site.namespace
    made = await site.send("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    account = {"metadata": {"name": DRIVER_ACCOUNT}}
    await site.send("POST", site.path("v1", "serviceaccounts"), account)
    uid: str = made["metadata"]["uid"]
    return uid


async def _remove_namespace(site: Site, *, is_real: bool) -> None:
    """Let go of every Job, which the service's finalizer holds, and delete the namespace."""
    if not is_real:
        return  # the process ends
    collections = (site.path("batch/v1", "jobs"), site.path("v1", "pods"))
    held = [
        f"{path}/{item['metadata']['name']}"
        for path in collections
        for item in (await site.get(path))["items"]
        if item["metadata"].get("finalizers")
    ]

    async def let_go(path: str) -> None:
        with contextlib.suppress(Refused):  # it is gone
            await site.send("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)

    await each(held, let_go, AT_ONCE)
    await site.send("DELETE", f"/api/v1/namespaces/{site.namespace}", b"")
