"""A cluster without HTTP for the tests of Job controller and kubelet; remembers every change."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from patience import PATIENCE

from pyvatti.sandbox.kube.collector import Collector
from pyvatti.sandbox.kube.jobcontroller import JobController
from pyvatti.sandbox.kube.kubelet import Kubelet, ShellRuntime
from pyvatti.sandbox.kube.logs import PodLogs
from pyvatti.sandbox.kube.resources import EVENTS, JOBS, PODS, SERVICEACCOUNTS, Resource
from pyvatti.sandbox.kube.store import Store, clone

NAMESPACE = "demo"
FINALIZER = "example.org/hold"
SPEED = 40.0

Body = dict[str, Any]


def container(name: str, script: str, **more: Any) -> Body:
    return {
        "name": name,
        "image": "busybox:1.37",
        "command": ["sh", "-c", script],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **more,
    }


def job(
    script: str = "exit 0",
    *,
    name: str = "intp1",
    init: str | None = None,
    fault: str = "",
    labels: dict[str, str] | None = None,
    finalizers: tuple[str, ...] = (),
    main: Body | None = None,
    pod: Body | None = None,
    grace: int = 30,
    **spec: Any,
) -> Body:
    containers = [container("main", script, **(main or {}))]
    return {
        "metadata": {"name": name, "labels": labels or {}, "finalizers": list(finalizers)},
        "spec": {
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            **spec,
            "template": {
                "metadata": {"annotations": {"sandbox.local/fault": fault} if fault else {}},
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": grace,
                    "containers": containers,
                    **({"initContainers": [container("init", init)]} if init else {}),
                    **(pod or {}),
                },
            },
        },
    }


def conditions(body: Body) -> list[tuple[str, str, str]]:
    found = body.get("status", {}).get("conditions", [])
    return [(item["type"], item["status"], item.get("reason", "")) for item in found]


def state(pod: Body, name: str = "main") -> str:
    """`waiting:reason`, `running` or `terminated:code:reason`; empty before the first status."""
    status = pod.get("status", {})
    for item in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        if item["name"] == name:
            ((kind, detail),) = item["state"].items()
            parts = [kind, str(detail.get("exitCode", "")), detail.get("reason", "")]
            return ":".join(part for part in parts if part)
    return ""


def message(pod: Body, name: str = "main") -> str:
    status = pod["status"]
    for item in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        if item["name"] == name:
            (detail,) = item["state"].values()
            return str(detail.get("message", ""))
    raise AssertionError(name)


class Bench:
    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.store = Store(NAMESPACE)
        self.logs = PodLogs()
        self.kubelet: Kubelet
        self.changes: list[tuple[float, str, Resource, Body]] = []
        self._changed = asyncio.Event()
        self.store.subscribe(self._keep)
        if self.store.find(SERVICEACCOUNTS, NAMESPACE, "default") is None:
            self.store.create(SERVICEACCOUNTS, NAMESPACE, {"metadata": {"name": "default"}})

    def _keep(self, change: str, resource: Resource, new: Body, _old: Body | None) -> None:
        now = asyncio.get_running_loop().time()
        self.changes.append((now, change, resource, clone(new)))
        self._changed.set()

    async def until(self, holds: Callable[[], Any]) -> Any:
        """Wait until a condition on the store holds; gives its value."""
        async with asyncio.timeout(PATIENCE):
            while not (value := holds()):
                self._changed.clear()
                await self._changed.wait()
        return value

    def create(self, body: Body) -> Body:
        return self.store.create(JOBS, NAMESPACE, body)

    def job(self, name: str = "intp1") -> Body | None:
        return self.store.find(JOBS, NAMESPACE, name)

    def pods(self) -> list[Body]:
        return self.store.list(PODS, NAMESPACE)

    def pod(self) -> Body | None:
        found = self.pods()
        return found[0] if found else None

    def last_pod(self) -> Body:
        return [body for _, _, resource, body in self.changes if resource is PODS][-1]

    def has(self, kind: str, value: str = "True", name: str = "intp1") -> bool:
        body = self.job(name)
        return body is not None and (kind, value) in [item[:2] for item in conditions(body)]

    def is_in(self, wanted: str, name: str = "main") -> bool:
        pod = self.pod()
        return pod is not None and state(pod, name) == wanted

    async def finished(self, name: str = "intp1") -> Body:
        await self.until(lambda: self.has("Complete", name=name) or self.has("Failed", name=name))
        body = self.job(name)
        assert body is not None
        return body

    async def running(self) -> Body:
        await self.until(lambda: self.is_in("running"))
        pod = self.pod()
        assert pod is not None
        return pod

    def events(self, reason: str = "") -> list[Body]:
        found = self.store.list(EVENTS, NAMESPACE)
        return [item for item in found if reason in ("", item["reason"])]

    def history(self, resource: Resource, read: Callable[[Body], Any]) -> list[Any]:
        """What `read` gave over all changes of a resource, repeats left out."""
        found: list[Any] = []
        for _, change, kind, body in self.changes:
            if kind is not resource:
                continue
            value = "gone" if change == "DELETED" else read(body)
            if not found or found[-1] != value:
                found.append(value)
        return found

    def first(self, resource: Resource, holds: Callable[[Body], bool]) -> float:
        """When something first held, in documented seconds since the bench was made."""
        return next(
            moment for moment, _, kind, body in self.changes if kind is resource and holds(body)
        ) * (self.speed)

    def suspend(self, value: bool, name: str = "intp1") -> None:  # noqa: FBT001 - a field's value
        self.store.mutate(JOBS, NAMESPACE, name, lambda body: body["spec"].update(suspend=value))


@asynccontextmanager
async def bench(
    speed: float = SPEED, *, qps: float | None = None, kubelet: bool = True
) -> AsyncIterator[Bench]:
    world = Bench(speed)
    async with (
        AsyncExitStack() as stack,
        asyncio.TaskGroup() as group,
        JobController(world.store, speed=speed, qps=qps),
    ):
        if kubelet:
            runtime = ShellRuntime(speed=speed)
            world.kubelet = await stack.enter_async_context(
                Kubelet(world.store, world.logs, runtime, speed=speed)
            )
        collector = group.create_task(Collector(world.store, delay=0.0).run())
        yield world
        collector.cancel()
