"""The stand-in kubelet and scheduler: gives every pod of the store a worker.

A pod's life is in `kubelet_pod`. Nothing is polled: workers sleep on events and timers.
"""

import asyncio
from collections.abc import Collection
from contextlib import AsyncExitStack
from typing import Self

from pyvatti.sandbox.kube.kubelet_faults import (
    FAULT_ANNOTATION,
    Fault,
    FaultSelector,
    annotated_fault,
)
from pyvatti.sandbox.kube.kubelet_node import Node
from pyvatti.sandbox.kube.kubelet_pod import PodWorker
from pyvatti.sandbox.kube.kubelet_runtime import Runtime
from pyvatti.sandbox.kube.kubelet_shell import ShellRuntime
from pyvatti.sandbox.kube.logs import PodLogs
from pyvatti.sandbox.kube.resources import NODES, PODS, Resource
from pyvatti.sandbox.kube.store import Body, Store

__all__ = ["FAULT_ANNOTATION", "Fault", "Kubelet", "Runtime", "ShellRuntime"]

FAULT_AFTER = 1.0
FINAL = ("Succeeded", "Failed")


class Kubelet:
    """Runs the pods of a store on one node while the context is open.

    speed: divides all documented delays and grace periods. faults: which failure a pod suffers
    (default: the annotation `sandbox.local/fault`). fault_after: scaled seconds a container runs
    before a fault strikes it. images: what `imagePullPolicy: Never` finds.
    """

    def __init__(  # noqa: PLR0913 - one keyword per property of the node
        self,
        store: Store,
        logs: PodLogs,
        runtime: Runtime | None = None,
        *,
        speed: float = 1.0,
        faults: FaultSelector = annotated_fault,
        fault_after: float = FAULT_AFTER,
        images: Collection[str] = (),
    ) -> None:
        self._node = Node(
            store=store,
            logs=logs,
            runtime=runtime or ShellRuntime(speed=speed),
            faults=faults,
            speed=speed,
            fault_after=fault_after,
            images=images,
        )
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group = asyncio.TaskGroup()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._node.register()
        await self._stack.enter_async_context(self._group)
        self._stack.callback(self._cancel_all)
        self._stack.callback(self._node.store.subscribe(self._seen))
        for pod in self._node.store.list(PODS):
            self._begin(pod)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def strike(self, namespace: str, pod: str, fault: Fault) -> None:
        """Let a failure happen to a running pod now. Raises KeyError if it is not here."""
        for worker in self._workers.values():
            if (worker.namespace, worker.name) == (namespace, pod):
                worker.strike(fault)
                return
        raise KeyError(f"{namespace}/{pod}")

    def _seen(self, change: str, resource: Resource, new: Body, _old: Body | None) -> None:
        if resource is NODES:
            for worker in self._workers.values():
                worker.wake()
        if resource is not PODS:
            return
        uid = new["metadata"]["uid"]
        if change == "ADDED":
            self._begin(new)
        elif change == "DELETED":
            self._node.logs.forget(uid)
            if uid in self._workers:
                self._workers[uid].vanish()
        elif uid in self._workers:
            self._workers[uid].notice(new)

    def _begin(self, pod: Body) -> None:
        if pod.get("status", {}).get("phase") in FINAL:
            return
        worker = PodWorker(self._node, pod)
        self._workers[worker.uid] = worker
        task = self._group.create_task(worker.live(), name=f"pod {worker.name}")
        self._tasks[worker.uid] = task
        task.add_done_callback(lambda _task: self._ended(worker.uid))

    def _ended(self, uid: str) -> None:
        self._workers.pop(uid, None)
        self._tasks.pop(uid, None)

    def _cancel_all(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()
