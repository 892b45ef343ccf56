"""The stand-in Job controller: creates the pods of Jobs and writes their status.

What it decides is in `jobcontroller_rules`; pods run in the kubelet, owners are collected
elsewhere. Delays are those measured on Kubernetes 1.36, divided by `speed`.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Self

from pyvatti.sandbox.kube import jobcontroller_rules as rules
from pyvatti.sandbox.kube import jobcontroller_status as status
from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.jobcontroller_kueue import KueueStandIn
from pyvatti.sandbox.kube.jobcontroller_queue import JobKey, WorkQueue
from pyvatti.sandbox.kube.kubelet_events import Recorder
from pyvatti.sandbox.kube.kubelet_faults import Fault, FaultSelector, annotated_fault
from pyvatti.sandbox.kube.resources import JOBS, PODS, Resource
from pyvatti.sandbox.kube.store import Body, Store, timestamp

__all__ = ["JobController", "KueueStandIn"]

NEW_JOB, CHANGED_JOB = 0.01, 0.03
POD_ENDED, POD_DYING, POD_CHANGED, SETTLE = 0.8, 1.0, 0.2, 0.05
RETRY_CREATE, RETRY_CREATE_LIMIT = 1.0, 60.0
BACKOFF, BACKOFF_LIMIT = 10.0, 600.0
FAULT_DEADLINE = 2.0
EARLY = 0.8  # startTime is cut to seconds, so that a deadline may strike early
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"

_REFUSED = {
    Fault.QUOTA: "exceeded quota: sandbox, requested: pods=1, used: pods=1, limited: pods=1",
    Fault.POD_SECURITY: (
        'violates PodSecurity "restricted:latest": runAsNonRoot != true (pod must set'
        " securityContext.runAsNonRoot=true)"
    ),
    Fault.SERVICE_ACCOUNT_MISSING: (
        'error looking up service account sandbox/missing: serviceaccount "missing" not found'
    ),
}


class JobController:
    """Follows every Job of a store while the context is open.

    speed: divides all delays, deadlines and retentions. qps: writes a second, None for no limit
    (Kubernetes' default is 20, which a burst of suspended Jobs exhausts). faults: which failure
    a Job's pod suffers before it exists.
    """

    def __init__(
        self,
        store: Store,
        *,
        speed: float = 1.0,
        qps: float | None = None,
        faults: FaultSelector = annotated_fault,
    ) -> None:
        self._store = store
        self._speed = speed
        self._faults = faults
        self._events = Recorder(store, "job-controller")
        self._queue = WorkQueue(self._sync, speed=speed, qps=qps)
        self._pods: dict[str, dict[str, JobKey]] = {}  # Job uid -> pod uid -> pod key
        self._started: dict[str, float] = {}  # Job uid -> loop time of its startTime
        self._ended: dict[str, float] = {}  # Job uid -> loop time of its end
        self._retries: dict[str, tuple[float, int]] = {}  # Job uid -> not before, refusals
        self._unsubscribe: Callable[[], None] | None = None

    async def __aenter__(self) -> Self:
        self._queue.open(asyncio.get_running_loop())
        self._unsubscribe = self._store.subscribe(self._seen)
        for pod in self._store.list(PODS):
            self._pod_seen("ADDED", pod)
        for job in self._store.list(JOBS):
            self._queue.add(_key(job), NEW_JOB)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._queue.close()

    def _seen(self, change: str, resource: Resource, new: Body, old: Body | None) -> None:
        if resource is PODS:
            self._pod_seen(change, new)
        elif resource is JOBS:
            self._job_seen(change, new, old)

    def _job_seen(self, change: str, job: Body, old: Body | None) -> None:
        if change == "DELETED":
            for place in list(self._pods.pop(job["metadata"]["uid"], {}).values()):
                self._store.mutate(PODS, *place, _drop_tracking)
            for memory in (self._started, self._ended, self._retries):
                memory.pop(job["metadata"]["uid"], None)
            self._queue.drop(_key(job))
        elif old is None:
            self._queue.add(_key(job), NEW_JOB)
        elif job["spec"] != old["spec"] or _dying(job) != _dying(old):
            self._queue.add(_key(job), CHANGED_JOB)

    def _pod_seen(self, change: str, pod: Body) -> None:
        owner = rules.owner_uid(pod)
        metadata = pod["metadata"]
        known = self._pods.get(owner, {})
        if change == "DELETED":
            known.pop(metadata["uid"], None)
            if owner and not known:
                self._pods.pop(owner, None)
        elif self._owner(pod) is None:
            self._untrack(pod)
            return
        else:
            self._pods.setdefault(owner, known)[metadata["uid"]] = _key(pod)
        name = metadata.get("labels", {}).get("batch.kubernetes.io/job-name", "")
        self._queue.add((metadata["namespace"], name), _delay(change, pod))

    def _owner(self, pod: Body) -> Body | None:
        """Find the Job of a pod; None if it was stripped from the pod or is gone."""
        uid, metadata = rules.owner_uid(pod), pod["metadata"]
        name = metadata.get("labels", {}).get("batch.kubernetes.io/job-name", "")
        job = self._store.find(JOBS, metadata["namespace"], name) if uid else None
        return job if job is not None and job["metadata"]["uid"] == uid else None

    def _sync(self, key: JobKey) -> None:
        job = self._store.find(JOBS, *key)
        if job is None or not rules.is_ours(job):
            return
        owned = self._pods.get(job["metadata"]["uid"], {}).values()
        pods = [pod for place in owned if (pod := self._store.find(PODS, *place)) is not None]
        if rules.is_finished(job) or _dying(job):
            # Nothing is decided for a dying Job any more.
            self._let_go(pods)
            self._expire(job)
            return
        counts = rules.tally(job, pods)
        decided = next(filter(None, (rules.condition(job, kind) for kind in rules.DECIDED)), None)
        if decided:
            self._settle(job, counts, decided)
        elif not job["spec"].get("suspend"):
            self._advance(job, counts)
        elif verdict := rules.decide(job, counts, overdue=False):
            self._conclude(job, counts, verdict)  # a pod that ended counts before a suspension
        else:
            self._suspend(job, pods)

    def _advance(self, job: Body, counts: rules.Tally) -> None:
        """Start, count, replace or decide a Job that is neither suspended nor decided."""
        if not job["status"].get("startTime"):
            self._start(job)
        verdict = rules.decide(job, counts, overdue=self._left(job) <= 0)
        if verdict:
            self._conclude(job, counts, verdict)
            return
        self._write(job, partial(status.write_counts, counts=counts))
        if counts.uncounted:
            self._count(job, counts)
        self._create(job, counts)
        self._queue.add(_key(job), self._left(job))

    def _start(self, job: Body) -> None:
        now = self._store.now()
        begun = min(now.microsecond / 1e6, EARLY) / self._speed
        self._started[job["metadata"]["uid"]] = self._queue.time() - begun
        resumed = rules.condition(job, "Suspended") is not None
        self._write(job, partial(status.write_start, now=timestamp(now), resumed=resumed))
        if resumed:
            self._events.record(job, "Normal", "Resumed", "Job resumed")

    def _create(self, job: Body, counts: rules.Tally) -> None:
        uid = job["metadata"]["uid"]
        not_before, refusals = self._retries.get(uid, (0.0, 0))
        missing = rules.missing_pods(job, counts)
        left = (not_before - self._queue.time()) * self._speed
        if not missing or left > 0:
            self._queue.add(_key(job), left if missing else None)
            return
        for _ in range(missing):
            try:
                name = self._create_pod(job)
            except ApiError as error:
                delay = min(RETRY_CREATE * 2**refusals, RETRY_CREATE_LIMIT)
                self._retries[uid] = (self._queue.time() + delay / self._speed, refusals + 1)
                note = f"Error creating: {error.message}"
                self._events.record(job, "Warning", "FailedCreate", note)
                self._queue.add(_key(job), delay)
                return
            self._events.record(job, "Normal", "SuccessfulCreate", f"Created pod: {name}")
        self._retries.pop(uid, None)
        current = self._store.find(JOBS, *_key(job))
        if current:
            self._write(current, partial(status.write_active, number=len(counts.active) + missing))

    def _create_pod(self, job: Body) -> str:
        suffix = "".join(secrets.choice(ALPHABET) for _ in range(5))
        name = f"{job['metadata']['name'][:57]}-{suffix}"
        pod = rules.new_pod(job, name)
        fault = self._faults(pod)
        # Service accounts are looked up before the name is made: equal texts, one Event.
        prefix = pod["metadata"]["generateName"]
        try:
            if fault in _REFUSED:
                raise ApiError(403, f'pods "{name}" is forbidden: {_REFUSED[fault]}')  # noqa: TRY301
            self._store.create(PODS, job["metadata"]["namespace"], pod)
        except ApiError as error:
            if "service account" in error.message:
                error.message = error.message.replace(name, prefix)
            raise
        return name

    def _suspend(self, job: Body, pods: list[Body]) -> None:
        for pod in pods:
            if not rules.is_terminal(pod) and not rules.is_dying(pod):
                self._stop(job, pod)
            self._untrack(pod)  # what ends by suspension is never counted
        self._started.pop(job["metadata"]["uid"], None)
        if rules.condition(job, "Suspended") is None:
            self._write(job, partial(status.write_suspended, now=timestamp(self._store.now())))
            self._events.record(job, "Normal", "Suspended", "Job suspended")

    def _conclude(self, job: Body, counts: rules.Tally, verdict: rules.Verdict) -> None:
        self._write(
            job, partial(status.write_verdict, verdict=verdict, now=timestamp(self._store.now()))
        )
        for pod in counts.active:
            self._stop(job, pod)
        self._queue.add(_key(job), SETTLE)

    def _settle(self, job: Body, counts: rules.Tally, decided: Body) -> None:
        """Write counters, and the terminal condition once every pod is terminal."""
        for pod in counts.active:
            self._stop(job, pod)
        if counts.active or counts.terminating:
            self._write(job, partial(status.write_counts, counts=counts))
            return
        verdict = rules.terminal(decided)
        now = timestamp(self._store.now())
        self._write(job, partial(status.write_end, counts=counts, verdict=verdict, now=now))
        self._ended[job["metadata"]["uid"]] = self._queue.time()
        self._let_go(counts.uncounted)
        if verdict.kind == "Complete":
            self._events.record(job, "Normal", "Completed", "Job completed")
        else:
            self._events.record(job, "Warning", verdict.reason, verdict.message)
        self._queue.add(_key(job), 0)

    def _count(self, job: Body, counts: rules.Tally) -> None:
        """Note ended pods of a Job that goes on, and wait before they are replaced."""
        self._write(job, partial(status.write_totals, counts=counts))
        self._let_go(counts.uncounted)
        delay = min(BACKOFF * 2 ** max(counts.failed - 1, 0), BACKOFF_LIMIT)
        if any(pod["status"]["phase"] == "Failed" for pod in counts.uncounted):
            not_before = self._queue.time() + delay / self._speed
            self._retries[job["metadata"]["uid"]] = (not_before, 0)

    def _stop(self, job: Body, pod: Body) -> None:
        with suppress(ApiError):
            self._store.delete(PODS, *_key(pod), uid=pod["metadata"]["uid"])
        note = f"Deleted pod: {pod['metadata']['name']}"
        self._events.record(job, "Normal", "SuccessfulDelete", note)

    def _let_go(self, pods: Iterable[Body]) -> None:
        for pod in pods:
            if rules.is_terminal(pod):
                self._untrack(pod)

    def _untrack(self, pod: Body) -> None:
        self._store.mutate(PODS, *_key(pod), _drop_tracking)

    def _expire(self, job: Body) -> None:
        retention = job["spec"].get("ttlSecondsAfterFinished")
        if retention is None or _dying(job) or not rules.is_finished(job):
            return
        left = retention - self._age(job) * self._speed
        if left > 0:
            self._queue.add(_key(job), left)
            return
        with suppress(ApiError):
            self._store.delete(
                JOBS, *_key(job), uid=job["metadata"]["uid"], propagation="Foreground"
            )

    def _age(self, job: Body) -> float:
        """Give the real seconds since the Job's end, as exactly as is known."""
        uid = job["metadata"]["uid"]
        if uid not in self._ended:
            written = max(
                item["lastTransitionTime"]
                for item in job["status"]["conditions"]
                if item["type"] in rules.TERMINAL
            )
            age = (self._store.now() - datetime.fromisoformat(written)).total_seconds()
            self._ended[uid] = self._queue.time() - age
        return self._queue.time() - self._ended[uid]

    def _left(self, job: Body) -> float:
        """Give the scaled seconds until the Job's deadline."""
        limit = job["spec"].get("activeDeadlineSeconds", float("inf"))
        if self._faults(rules.new_pod(job, "")) is Fault.DEADLINE:
            limit = FAULT_DEADLINE
        started = self._started.get(job["metadata"]["uid"])
        if started is None and job["status"].get("startTime"):
            since = self._store.now() - datetime.fromisoformat(job["status"]["startTime"])
            started = self._queue.time() - since.total_seconds()
        elapsed = 0.0 if started is None else self._queue.time() - started
        return float(limit) - elapsed * self._speed

    def _write(self, job: Body, change: Callable[[Body], None]) -> None:
        before = job["metadata"]["resourceVersion"]
        after = self._store.mutate(JOBS, *_key(job), change)
        if after is not None and after["metadata"]["resourceVersion"] != before:
            self._queue.spend()


def _key(body: Body) -> JobKey:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _dying(job: Body) -> bool:
    return "deletionTimestamp" in job["metadata"]


def _delay(change: str, pod: Body) -> float:
    if change == "DELETED":
        return SETTLE
    if rules.is_terminal(pod):
        return POD_CHANGED if rules.is_dying(pod) else POD_ENDED
    return POD_DYING if rules.is_dying(pod) else POD_CHANGED


def _drop_tracking(pod: Body) -> None:
    left = [item for item in pod["metadata"].pop("finalizers", []) if item != rules.TRACKING]
    if left:
        pod["metadata"]["finalizers"] = left
