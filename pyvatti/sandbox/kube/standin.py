"""The stand-in cluster as one thing to start: API server, garbage collector, namespace controller.

The Job controller and the kubelet are started beside it by whoever wants pods to run.
"""

import asyncio
import base64
import ssl
from collections import deque
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Self

import trustme
import yaml
from aiohttp import web

from pyvatti.sandbox.faults import FaultRules
from pyvatti.sandbox.kube import quota
from pyvatti.sandbox.kube.access import ADMIN, Access
from pyvatti.sandbox.kube.collector import Collector
from pyvatti.sandbox.kube.logs import PodLogs
from pyvatti.sandbox.kube.namespaces import NamespaceController
from pyvatti.sandbox.kube.resources import PODS, RESOURCEQUOTAS, Resource
from pyvatti.sandbox.kube.server import ApiServer, RequestRecord
from pyvatti.sandbox.kube.store import Store
from pyvatti.sandbox.kube.watching import WatchStream

HOST = "127.0.0.1"
TOKEN = "stand-in-token"


class KubeStandIn:
    """A Kubernetes API server on a loopback port, with TLS and bearer tokens.

    `tokens` maps further tokens to user names; with `enforce_rbac` such a user may do only what a
    Role and RoleBinding grant, `token` (user "admin") everything. `bookmark_seconds` is the
    interval of bookmarks, `speed` divides the controllers' delays. A namespace goes by
    `ordered_deletion`, pods first, or (before Kubernetes 1.33) everything at once.
    """

    def __init__(
        self,
        *,
        namespace: str = "intervene-dev",
        port: int = 0,
        tokens: Mapping[str, str] | None = None,
        enforce_rbac: bool = False,
        bookmark_seconds: float = 60.0,
        speed: float = 1.0,
    ) -> None:
        self.ordered_deletion = True  # set before the start
        self.namespace = namespace
        self.token = TOKEN
        self.logs = PodLogs()
        self.store = Store("default", "kube-system", namespace)
        self._access = Access(self.store, {TOKEN: ADMIN, **(tokens or {})}, enforce=enforce_rbac)
        self._server = ApiServer(
            self.store, self._access, self.logs, bookmark_seconds=bookmark_seconds
        )
        self._authority = trustme.CA()
        self._port = port
        self._speed = speed
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """Where it listens, without a trailing slash."""
        return f"https://{HOST}:{self._port}"

    @property
    def ca_pem(self) -> bytes:
        """The certificate authority that vouches for it."""
        return self._authority.cert_pem.bytes()

    @property
    def faults(self) -> FaultRules:
        """The faults to be injected."""
        return self._server.faults

    @property
    def requests(self) -> "deque[RequestRecord]":
        """The last requests, oldest first."""
        return self._server.requests

    @property
    def streams(self) -> "set[WatchStream]":
        """The watches that are open."""
        return self._server.streams

    @property
    def used(self) -> dict[str, set[tuple[str, str]]]:
        """Per user every (verb, resource) let through; `jobs.batch`, `pods/log`."""
        return self._access.used

    def ssl_context(self) -> ssl.SSLContext:
        """Give a client's TLS context that trusts the stand-in."""
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        return context

    def kubeconfig(self, token: str | None = None) -> str:
        """Give a kubeconfig as YAML, with everything embedded."""
        cluster = {
            "server": self.url,
            "certificate-authority-data": base64.b64encode(self.ca_pem).decode(),
        }
        context = {"cluster": "stand-in", "user": "stand-in", "namespace": self.namespace}
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "stand-in",
            "clusters": [{"name": "stand-in", "cluster": cluster}],
            "users": [{"name": "stand-in", "user": {"token": token or self.token}}],
            "contexts": [{"name": "stand-in", "context": context}],
        }
        return yaml.safe_dump(config, sort_keys=False)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start_controllers(stack)
            await self._listen(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._stack.aclose()

    async def _start_controllers(self, stack: AsyncExitStack) -> None:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        collector = Collector(self.store, delay=0.02 / self._speed)
        namespaces = NamespaceController(
            self.store, delay=0.1 / self._speed, ordered=self.ordered_deletion
        )
        for work in (collector.run(), namespaces.run()):
            stack.callback(group.create_task(work).cancel)
        stack.callback(self.store.subscribe(self._observe))

    async def _listen(self, stack: AsyncExitStack) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._authority.issue_cert(HOST, "localhost").configure_cert(context)
        runner = web.AppRunner(
            self._server.application(),
            access_log=None,
            shutdown_timeout=0.05,
            handler_cancellation=True,
        )
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        site = web.TCPSite(runner, HOST, self._port, ssl_context=context)
        await site.start()
        self._port = runner.addresses[0][1]

    def _observe(
        self, type_: str, resource: Resource, new: dict[str, Any], _old: dict[str, Any] | None
    ) -> None:
        if resource is PODS and type_ == "DELETED":
            self.logs.forget(new["metadata"]["uid"])
        if resource is not RESOURCEQUOTAS or type_ == "ADDED":
            quota.refresh(self.store, new["metadata"].get("namespace", ""))
