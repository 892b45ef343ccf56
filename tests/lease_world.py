"""A Lease API with faults on a real socket, and replicas that contend for the Lease."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from kube_scripted import (
    QUICK,
    Scripted,
    Step,
    answer,
    client_for,
    eventually,
    failure,
    missing,
    running,
    text,
)

from pyvatti.kube import Elector, KubeClient

DURATION, DEADLINE, PERIOD = 1.0, 0.6, 0.1  # for leaders that are to lose the Lease
LASTING = {"lease_duration": 3.0, "renew_deadline": 2.5}
"""For leaders that are to keep it, also while the machine is busy."""
TERMINATING = failure(403, "Forbidden", causes=[{"reason": "NamespaceTerminating"}])
HTML = text("<html>502</html>", 502)
MICROTIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class LeaseServer:
    """One Lease with the API server's rules; `faults[who]` answers instead of it.

    `namespace` answers about the Namespace; while it `is_going` nothing is created, but by `stale`.
    """

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.faults: dict[str, Step] = {}
        self.after: dict[str, Step] = {}  # applied, but the answer is this
        self.namespace: Step = missing("demo")
        self.is_going = False
        self.stale = False
        self.versions = 0
        self.holders: list[str] = []

    def go(self) -> None:
        """Delete the namespace, and the Lease with it."""
        kept = {"name": "demo", "uid": "u1", "resourceVersion": "7"}
        at = {"deletionTimestamp": "2026-11-28T09:00:00Z"}
        self.namespace = answer({"kind": "Namespace", "metadata": kept | at})
        self.is_going, self.lease = True, None

    def steps(self) -> dict[str, list[Step]]:
        return {
            "GET": [self._or_fault(self._get)],
            "POST": [self._or_fault(self._post)],
            "PUT": [self._or_fault(self._put)],
        }

    @property
    def spec(self) -> dict[str, Any]:
        return self.lease["spec"] if self.lease else {}

    def store(self, spec: dict[str, Any], uid: str = "lease-uid", **metadata: Any) -> None:
        self.versions += 1
        self.lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata
            | {"name": "it", "uid": uid, "resourceVersion": str(self.versions)},
            "spec": spec,
        }
        self.holders.append(spec.get("holderIdentity", ""))

    def _or_fault(self, good: Step) -> Step:
        async def step(request: web.Request) -> web.StreamResponse:
            who = request.headers["Authorization"].removeprefix("Bearer ")
            if fault := self.faults.get(who):
                return await fault(request)
            response = await good(request)
            if request.method != "GET" and (fault := self.after.get(who)):
                return await fault(request)
            return response

        return step

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if "/leases" not in request.path:
            return await self.namespace(request)
        step = answer(self.lease) if self.lease else missing("it")
        return await step(request)

    async def _post(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if self.is_going and not self.stale:
            return await TERMINATING(request)
        if self.lease is not None:
            return await failure(409, "AlreadyExists")(request)
        return await self._accept(request, body, 201)

    async def _put(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        metadata = body["metadata"]
        current = (self.lease or {}).get("metadata", {})
        keys = ("resourceVersion", "uid")
        if any(metadata.get(key) != current.get(key) for key in keys):
            return await failure(409, "Conflict")(request)
        return await self._accept(request, body, 200)

    async def _accept(self, request: web.Request, body: Any, code: int) -> web.StreamResponse:
        spec = body["spec"]
        times = [spec[key] for key in ("acquireTime", "renewTime")]
        whole = isinstance(spec["leaseDurationSeconds"], int) and spec["leaseDurationSeconds"] > 0
        if not whole or not all(MICROTIME.fullmatch(at) for at in times):
            return await failure(422, "Invalid")(request)
        metadata = body["metadata"]
        kept = {key: metadata[key] for key in ("labels",) if key in metadata}
        self.store(spec, metadata.get("uid", f"uid-{self.versions}"), **kept)
        return await answer(self.lease, code)(request)


@dataclass
class Replica:
    """An elector with work that says when it acts. `acting` is shared between replicas."""

    name: str
    elector: Elector
    acting: set[str]
    spans: list[tuple[float, float]] = field(default_factory=list)
    clashes: int = 0
    unwinding: float = 0.0

    async def lead(self) -> None:
        began = time.monotonic()
        self.clashes += bool(self.acting)
        self.acting.add(self.name)
        try:
            await asyncio.Event().wait()
        finally:
            if self.unwinding:
                await asyncio.sleep(self.unwinding)
            self.acting.discard(self.name)
            self.spans.append((began, time.monotonic()))


@dataclass
class Clock:
    """Monotonic seconds that pass only when they are told to."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class World:
    lease: LeaseServer
    server: Scripted
    folder: Path
    acting: set[str] = field(default_factory=set)

    @asynccontextmanager
    async def replica(
        self, name: str, *, runs: bool = True, **durations: float
    ) -> AsyncIterator[Replica]:
        user = {"token": name}
        async with client_for(self.server.url, self.folder, user=user, limits=QUICK) as client:
            one = Replica(name, elector(client, name, **durations), self.acting)
            if not runs:
                yield one
                return
            async with running(one.elector.run(one.lead)):
                yield one

    async def looks(self, who: str, count: int = 3) -> None:
        """Wait until a replica has read the Lease so many times more."""
        before = self._reads(who)
        await eventually(lambda: self._reads(who) >= before + count)

    def _reads(self, who: str) -> int:
        return sum(item.token == who and item.method == "GET" for item in self.server.requests)

    def writes(self, who: str) -> list[Any]:
        return [
            request.body
            for request in self.server.requests
            if request.token == who and request.method != "GET"
        ]


def elector(client: KubeClient, identity: str, **more: float) -> Elector:
    durations = {"lease_duration": DURATION, "renew_deadline": DEADLINE, "retry_period": PERIOD}
    seconds = {name: timedelta(seconds=value) for name, value in (durations | more).items()}
    return Elector(client, name="it", identity=identity, **seconds)


def held(by: str, seconds: int = 1, at: str = "2026-01-01T00:00:00.000000Z") -> dict[str, Any]:
    return {
        "holderIdentity": by,
        "leaseDurationSeconds": seconds,
        "acquireTime": at,
        "renewTime": at,
        "leaseTransitions": 4,
    }
