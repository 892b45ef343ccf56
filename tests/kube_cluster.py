"""The cluster that tests talk to over plain HTTP: the sandbox's, or a real one if one is named.

A real one is named by (first match wins) PYVATTI_TEST_KUBECONFIG (with PYVATTI_TEST_CONTEXT, else
its current context), USE_EXISTING_CLUSTER=true with KUBECONFIG, or KUBEBUILDER_ASSETS, the folder
of the etcd and kube-apiserver binaries. Everything happens in a generated namespace.
"""

import asyncio
import io
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import orjson
from kube_access import Access, read_kubeconfig
from kube_binaries import run_binaries

from pyvatti.sandbox.kube import KubeStandIn
from pyvatti.sandbox.kube.jobcontroller import JobController
from pyvatti.sandbox.kube.kubelet import Kubelet

Body = dict[str, Any]

SPEED = 20.0  # of the sandbox's controllers and containers
PATIENCE = 180.0  # seconds a test waits for what a cluster does in its own time: pulls, retries
EVERYTHING = frozenset({"job-controller", "gc", "kubelet", "compaction"})
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


def environment() -> Mapping[str, str]:
    """Give the environment that names the cluster."""
    return os.environ


@contextmanager
def real_access() -> Iterator[Access | None]:
    """Give the real cluster the environment names, None for the sandbox."""
    variables = environment()
    context = variables.get("PYVATTI_TEST_CONTEXT", "")
    if variables.get("PYVATTI_TEST_KUBECONFIG"):
        yield read_kubeconfig(Path(variables["PYVATTI_TEST_KUBECONFIG"]), context)
    elif variables.get("USE_EXISTING_CLUSTER", "").lower() == "true":
        yield read_kubeconfig(Path(variables["KUBECONFIG"]), context)
    elif variables.get("KUBEBUILDER_ASSETS") or variables.get("TEST_ASSET_KUBE_APISERVER"):
        with run_binaries(variables) as access:
            yield access
    else:
        yield None


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. `body` is the JSON object, or the text where it is none."""

    status: int
    body: Any
    headers: Mapping[str, str]
    warnings: list[str]


@dataclass(slots=True)
class Cluster:
    """A client of one namespace of one cluster. Paths are given by `path`."""

    session: aiohttp.ClientSession
    access: Access
    namespace: str
    image: str
    capabilities: frozenset[str]
    finalized: list[str] = field(default_factory=list)
    spaces: list[str] = field(default_factory=list)

    def path(self, api: str, plural: str, name: str = "", sub: str = "", ns: str = "") -> str:
        """Give the path of a collection or object; `api` is `v1` or `batch/v1`."""
        root = f"/apis/{api}" if "/" in api else f"/api/{api}"
        tail = "".join(f"/{part}" for part in (name, sub) if part)
        return f"{root}/namespaces/{ns or self.namespace}/{plural}{tail}"

    def jobs(self, name: str = "", sub: str = "") -> str:
        return self.path("batch/v1", "jobs", name, sub)

    def core(self, plural: str, name: str = "", sub: str = "") -> str:
        return self.path("v1", plural, name, sub)

    def leases(self, name: str = "") -> str:
        return self.path("coordination.k8s.io/v1", "leases", name)

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        media: str = "application/json",
        headers: Mapping[str, str] | None = None,
        **query: Any,
    ) -> Answer:
        """Make one request; `body` is sent as JSON unless it is bytes."""
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        data = None if body is None else io.BytesIO(raw)  # aiohttp warns of large plain bytes
        sent = {"Content-Type": media, **(headers or {})}
        params = {name.rstrip("_"): str(value) for name, value in query.items()}
        async with self.session.request(
            method, path, data=data, headers=sent, params=params
        ) as answer:
            content = await answer.read()
            is_json = answer.content_type.endswith("json")
            return Answer(
                answer.status,
                orjson.loads(content) if is_json else content.decode(),
                answer.headers,
                answer.headers.getall("Warning", []),
            )

    async def get(self, path: str, **query: Any) -> Answer:
        return await self.request("GET", path, **query)

    async def post(self, path: str, body: Body, **query: Any) -> Answer:
        return await self.request("POST", path, body, **query)

    async def made(self, path: str, body: Body, **query: Any) -> Body:
        """Create an object that must be accepted."""
        answer = await self.post(path, body, **query)
        assert answer.status == 201, answer.body
        made: Body = answer.body
        if made["metadata"].get("finalizers"):
            self.finalized.append(f"{path}/{made['metadata']['name']}")
        return made

    async def space(self, labels: Mapping[str, str] | None = None) -> str:
        """Make a further namespace in which pods may be created; it goes with the test."""
        name = f"pyvatti-test-{uuid.uuid4().hex[:8]}"
        self.spaces.append(name)
        metadata = {"name": name, "labels": dict(labels or {})}
        await self.made("/api/v1/namespaces", {"metadata": metadata})
        account = self.path("v1", "serviceaccounts", "default", ns=name)
        await self.until(account, lambda body: body is not None)
        return name

    async def whoami(self) -> str:
        """Name the user these tests are: where controllers have no accounts, theirs too."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        name: str = (await self.made(path, review))["status"]["userInfo"]["username"]
        return name

    async def status_for_stranger(self, path: str, token: str) -> int:
        """Give the status a caller meets who has this token and no certificate."""
        headers = {"Authorization": f"Bearer {token}"}
        connector = aiohttp.TCPConnector(ssl=self.access.bare_ssl or True)
        async with (
            aiohttp.ClientSession(self.access.url, connector=connector) as session,
            session.get(path, headers=headers) as answer,
        ):
            return answer.status

    async def put(self, path: str, body: Body, **query: Any) -> Answer:
        return await self.request("PUT", path, body, **query)

    async def patch(self, path: str, body: Any, media: str = MERGE, **query: Any) -> Answer:
        return await self.request("PATCH", path, body, media=media, **query)

    async def apply(self, path: str, body: Body, manager: str, **query: Any) -> Answer:
        return await self.patch(path, body, APPLY, fieldManager=manager, **query)

    async def delete(self, path: str, body: Body | None = None, **query: Any) -> Answer:
        return await self.request("DELETE", path, body, **query)

    @asynccontextmanager
    async def watch(self, path: str, **query: Any) -> AsyncIterator["Watch"]:
        """Open a watch."""
        params = {"watch": "true", "timeoutSeconds": str(round(PATIENCE))}
        params |= {name.rstrip("_"): str(value) for name, value in query.items()}
        async with self.session.get(path, params=params) as answer:
            try:
                yield Watch(answer)
            finally:
                _abandon(answer)

    async def until(
        self, path: str, wanted: Callable[[Body | None], Any], seconds: float = PATIENCE
    ) -> Body:
        """Wait until an object (None once it is absent) is as wanted; gives its last state."""
        collection, _, name = path.rpartition("/")
        async with asyncio.timeout(seconds):
            while True:
                answer = await self.get(collection, fieldSelector=f"metadata.name={name}")
                items = answer.body["items"]
                last = items[0] if items else None
                if wanted(last):
                    return last or {}
                async with self.watch(
                    collection,
                    fieldSelector=f"metadata.name={name}",
                    resourceVersion=answer.body["metadata"]["resourceVersion"],
                ) as watch:
                    async for event in watch:
                        last = None if event["type"] == "DELETED" else event["object"]
                        if event["type"] != "ERROR" and wanted(last):
                            return last or {}

    async def until_gone(self, path: str, seconds: float = PATIENCE) -> None:
        await self.until(path, lambda body: body is None, seconds)

    async def until_any(
        self, path: str, wanted: Callable[[Body], Any], seconds: float = PATIENCE, **query: Any
    ) -> Body:
        """Wait until some object of a collection is as wanted; gives it."""
        async with asyncio.timeout(seconds):
            while True:  # a server ends a watch when it likes
                async with self.watch(path, **query) as watch:
                    assert watch.status == 200, path
                    async for event in watch:
                        if event["type"] in ("ADDED", "MODIFIED") and wanted(event["object"]):
                            found: Body = event["object"]
                            return found

    async def clean(self) -> None:
        """Let go what a test left held, stop what it left running, delete the namespaces it made.

        A failed story leaves a Job whose finalizer nobody serves any more: it would hold its
        namespace for ever.
        """
        for path in self.finalized:
            await self.patch(path, {"metadata": {"finalizers": None}})
        for namespace in (self.namespace, *self.spaces):
            jobs = self.path("batch/v1", "jobs", ns=namespace)
            for item in (await self.get(jobs)).body["items"]:
                if item["metadata"].get("finalizers"):
                    path = f"{jobs}/{item['metadata']['name']}"
                    await self.patch(path, {"metadata": {"finalizers": None}})
            await self.delete(jobs, propagationPolicy="Background")
        for namespace in self.spaces:
            await self.delete(f"/api/v1/namespaces/{namespace}")


def _abandon(answer: aiohttp.ClientResponse) -> None:
    """Cut an unfinished stream: a polite TLS goodbye may outlive the test's event loop."""
    if answer.connection is not None and answer.connection.transport is not None:
        answer.connection.transport.abort()


class Watch:
    """The events of an open watch."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.status = answer.status
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[Body]:
        async for line in self._answer.content:
            event: Body = orjson.loads(line)
            yield event

    async def next(self, count: int = 1) -> list[Body]:
        """Give the next events."""
        events: list[Body] = []
        async with asyncio.timeout(PATIENCE):
            while len(events) < count:
                line = await self._answer.content.readline()
                assert line, f"the watch ended after {events}"
                events.append(orjson.loads(line))
        return events


class Sandbox:
    """The stand-in cluster with everything that runs on it."""

    def __init__(self, **options: Any) -> None:
        self.kube = KubeStandIn(speed=SPEED, **options)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.kube)
            await stack.enter_async_context(JobController(self.kube.store, speed=SPEED))
            await stack.enter_async_context(Kubelet(self.kube.store, self.kube.logs, speed=SPEED))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._stack.aclose()


@asynccontextmanager
async def connect(access: Access, namespace: str, capabilities: frozenset[str]) -> Any:
    """Open a client of a cluster."""
    connector = aiohttp.TCPConnector(ssl=access.ssl or True)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=PATIENCE + 10)
    async with aiohttp.ClientSession(
        access.url,
        headers=access.headers,
        connector=connector,
        timeout=timeout,
        read_bufsize=1 << 22,
    ) as session:
        image = environment().get("PYVATTI_TEST_IMAGE", "busybox")
        yield Cluster(session, access, namespace, image, capabilities)
