"""A stand-in for Kueue: un-suspends the oldest Jobs of a queue, as many as it has room for.

No Workload objects, and it evicts only what it is told to; it owns `spec.suspend` of Jobs with its
label alone.
"""

import asyncio
from collections.abc import Mapping
from typing import Self

from pyvatti.sandbox.kube.jobcontroller_rules import is_finished
from pyvatti.sandbox.kube.kubelet_events import Recorder
from pyvatti.sandbox.kube.resources import JOBS, Resource
from pyvatti.sandbox.kube.store import Body, Store

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
ADMIT = 0.02


class KueueStandIn:
    """Admits the Jobs of each queue (name -> most Jobs at a time) while the context is open."""

    def __init__(self, store: Store, queues: Mapping[str, int], *, speed: float = 1.0) -> None:
        self._store = store
        self._queues = dict(queues)
        self._speed = speed
        self._events = Recorder(store, "batch/job-kueue-controller")
        self._arrivals: dict[str, int] = {}  # uid -> order in which its label was seen
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._end = self._store.subscribe(self._seen)
        for job in self._store.list(JOBS, match=_has_queue):
            self._seen("ADDED", JOBS, job, None)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._end()
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()

    def resize(self, queue: str, limit: int) -> None:
        """Give a queue another limit."""
        self._queues[queue] = limit
        self._plan()

    def evict(self, namespace: str, name: str, why: str = "The ClusterQueue is stopped") -> None:
        """Take a Job's slot back; it is admitted again when its queue has room."""
        job = self._store.mutate(JOBS, namespace, name, _suspend)
        if job is not None:
            self._events.record(job, "Normal", "Stopped", why)

    def _seen(self, change: str, resource: Resource, job: Body, _old: Body | None) -> None:
        if resource is not JOBS or not _queue(job):
            return
        uid = job["metadata"]["uid"]
        if change == "DELETED":
            self._arrivals.pop(uid, None)
        else:
            self._arrivals.setdefault(uid, len(self._arrivals))
        self._plan()

    def _plan(self) -> None:
        if self._loop is not None and self._timer is None:
            self._timer = self._loop.call_later(ADMIT / self._speed, self._admit)

    def _admit(self) -> None:
        self._timer = None
        waiting: dict[str, list[Body]] = {}
        running: dict[str, int] = {}
        for job in self._store.list(JOBS, match=_has_queue):
            if is_finished(job) or "deletionTimestamp" in job["metadata"]:
                continue
            if job["spec"].get("suspend") and not job.get("status", {}).get("active"):
                waiting.setdefault(_queue(job), []).append(job)
            else:
                running[_queue(job)] = running.get(_queue(job), 0) + 1
        for queue, jobs in waiting.items():
            room = self._queues.get(queue, 0) - running.get(queue, 0)
            jobs.sort(key=self._arrival)
            for job in jobs[: max(room, 0)]:
                self._release(job, queue)

    def _arrival(self, job: Body) -> tuple[str, int]:
        metadata = job["metadata"]
        return metadata["creationTimestamp"], self._arrivals.get(metadata["uid"], 0)

    def _release(self, job: Body, queue: str) -> None:
        metadata = job["metadata"]
        self._store.mutate(JOBS, metadata["namespace"], metadata["name"], _unsuspend)
        self._events.record(job, "Normal", "Started", f"Admitted by clusterQueue {queue}")


def _queue(job: Body) -> str:
    name: str = job["metadata"].get("labels", {}).get(QUEUE_LABEL, "")
    return name


def _has_queue(job: Body) -> bool:
    return bool(_queue(job))


def _unsuspend(job: Body) -> None:
    job["spec"]["suspend"] = False


def _suspend(job: Body) -> None:
    job["spec"]["suspend"] = True
