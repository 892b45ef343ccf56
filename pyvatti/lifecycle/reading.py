"""What anybody asking is told about jobs: live ones from the cache, finished ones from records.

Reads only. Memory holds one page of records, whatever the history.
"""

import base64
import heapq
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime

from pyvatti import labels
from pyvatti.errors import InvalidRequest, JobNotFound, PyvattiError
from pyvatti.jobs import id_names, names_for, read_time, why_record_not_ours
from pyvatti.lifecycle import records
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.restarting import ask_kueue
from pyvatti.models import (
    ClusterEvent,
    Event,
    Job,
    Notice,
    Remainder,
    Removal,
    State,
    Verdict,
    Waiting,
    lost_events,
)
from pyvatti.policy import Observed, Progress, admit, most_released, proof, waiting_for
from pyvatti.policy.deciding import NO_POD_PATIENCE

PAGE_SECONDS = 1.8  # a caller waits at most 2 s; a page of records takes a fraction of that


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLine:
    """One job in a list. `accepted_at` in UTC; `lost` are events the backend never took."""

    id: str
    state: State
    accepted_at: datetime
    live: bool
    lost: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """Jobs, newest first; `continue_` asks for the next page and is None on the last."""

    jobs: list[JobLine]
    continue_: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """Everything about one job.

    `unreadable` says why the content of its record could not be read (one of a newer pyvatti, or
    edited): then the rest is what the record's labels say.
    """

    id: str
    state: State
    live: bool
    run_name: str
    accepted_at: datetime
    transitions: dict[State, datetime]
    waiting: Waiting | None
    verdict: Verdict | None
    deliveries: tuple[Notice, ...]
    results_bucket: str | None
    removed: tuple[Removal, ...]
    removed_at: datetime | None
    remaining: tuple[Remainder, ...] = ()
    unreadable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionReport:
    """What a job made and what became of it.

    `complete` is true once a read, made after the deletion, has shown of everything the job may
    have made that it is gone. `remaining` names what is not, and why; one with `made` false is
    somebody else's thing under a name the job never had.
    `kept` names what survives on purpose: the results of a success, until their lifecycle rule
    deletes them, and the record.
    """

    id: str
    complete: bool
    removed: tuple[Removal, ...]
    removed_at: datetime | None
    remaining: tuple[Remainder, ...]
    kept: tuple[str, ...]


class Reader:
    """Answers questions about jobs from any replica."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    async def show(self, job_id: str) -> JobView:
        """Give everything about one job. Raises JobNotFound."""
        self._doors.cache.require_synced()
        names = id_names(job_id, self._doors.settings.namespace)
        job = self._doors.cache.job(names.base)
        if job is not None and job.withdrawn:
            job = None
        if job is not None and not _is_let_go(job):
            return await self._live(job)
        found = await records.look(self._doors.kube, names, self._doors.installation)
        if found is None and job is not None:
            return await self._live(job)
        if found is None:
            raise JobNotFound(f"{names.job_id} is not known")
        return _finished(found, self._doors.settings.namespace)

    async def deletion(self, job_id: str) -> DeletionReport:
        """Give the deletion report of a job; of a live one it is not complete. JobNotFound."""
        view = await self.show(job_id)
        kept = [f"bucket/{view.results_bucket}"] if view.results_bucket else []
        names = id_names(view.id, self._doors.settings.namespace)
        return DeletionReport(
            id=view.id,
            complete=not (view.live or proof.holds_data(view.remaining)),
            removed=view.removed,
            removed_at=view.removed_at,
            remaining=view.remaining,
            kept=() if view.live else (*kept, f"configmap/{names.record}"),
        )

    async def _live(self, job: Job) -> JobView:
        seen = self._observed(job)
        events = await self._events(seen)
        queue = await ask_kueue(self._doors, job) if _is_queued(seen) else None
        seen = replace(seen, events=events, queue=queue)
        waiting = waiting_for(seen, self._doors.settings.kueue_queue)
        made = job.state is not State.REQUESTED
        return JobView(
            id=job.names.job_id,
            state=job.state,
            live=True,
            run_name=job.names.run_name,
            accepted_at=job.accepted_at,
            transitions={State.REQUESTED: job.accepted_at} | job.transitions,
            waiting=waiting,
            verdict=job.verdict,
            deliveries=self._doors.attempts.outbox(job),
            results_bucket=job.names.results_bucket if made else None,
            removed=self._doors.cache.removals(job.uid),
            removed_at=None,
            remaining=self._remaining(job),
        )

    def _remaining(self, job: Job) -> tuple[Remainder, ...]:
        remains = self._doors.remains
        return (*remains.remaining(job.uid), *remains.stuck(job.uid))

    def _observed(self, job: Job) -> Observed:
        cache, remains = self._doors.cache, self._doors.remains
        admitted = admit(cache.jobs(), most_released(self._doors.settings))
        return Observed(
            job=job,
            pods=cache.pods(job.uid),
            vanished=cache.vanished(job.uid),
            has_slot=job.names.base in admitted,
            progress=Progress(stuck=remains.stuck(job.uid), denial=remains.denial(job.uid)),
        )

    async def _events(self, seen: Observed) -> tuple[ClusterEvent, ...]:
        """Read the Events of a job that does not get going: they say why, to every replica."""
        job = seen.job
        since = job.attempt.resumed_at or job.transitions.get(job.state, job.accepted_at)
        is_again = job.attempt.resumed_at is not None and job.state is State.DEPLOYED
        is_new = job.state is State.REQUESTED and seen.has_slot
        is_starting = job.state is State.CREATED or is_new or is_again
        if not is_starting or seen.is_held or seen.progress.denial is not None:
            return ()
        if self._doors.clock() < since + NO_POD_PATIENCE:
            return ()
        uids = [job.uid, *(pod.uid for pod in seen.pods)]
        try:
            found = [await self._doors.kube.events_about(uid) for uid in uids]
        except PyvattiError:
            return ()  # the job is shown without them
        return tuple(event for part in found for event in part)

    async def list_jobs(
        self, state: State | None, limit: int, token: str | None, *, only_lost: bool = False
    ) -> JobPage:
        """Give live and finished jobs, newest first. Raises InvalidRequest for a bad token."""
        self._doors.cache.require_synced()
        before = _read_token(token)
        newest: list[tuple[tuple[str, str], JobLine]] = []
        async for line in self._lines(state):
            key = (line.accepted_at.isoformat(), line.id)
            if (before is not None and key >= before) or (only_lost and not line.lost):
                continue
            heapq.heappush(newest, (key, line))
            if len(newest) > limit + 1:
                heapq.heappop(newest)
        newest.sort(reverse=True, key=lambda item: item[0])
        page, more = newest[:limit], len(newest) > limit
        return JobPage(
            jobs=[line for _, line in page], continue_=_write_token(page[-1][0]) if more else None
        )

    async def _lines(self, state: State | None) -> AsyncIterator[JobLine]:
        live = set()
        for job in self._doors.cache.jobs():
            if _is_let_go(job):
                continue
            live.add(job.names.job_id)
            if not job.withdrawn and state in (None, job.state):
                yield JobLine(
                    id=job.names.job_id,
                    state=job.state,
                    accepted_at=job.accepted_at,
                    live=True,
                    lost=tuple(notice.event for notice in lost_events(job.outbox)),
                )
        if state is not None and not state.is_terminal:
            return
        extra = {labels.STATE: state.value} if state is not None else None
        instance = self._doors.settings.instance
        kube = self._doors.kube
        async for raw in records.every(kube, instance, extra=extra, patience=PAGE_SECONDS):
            if why_record_not_ours(raw, self._doors.installation):
                continue  # said by the sweeper
            line = _record_line(raw["metadata"])
            if line is not None and line.id not in live:
                yield line


def _is_let_go(job: Job) -> bool:
    """Tell whether nothing follows of a Job: it stands while its pod's node does not answer."""
    gone = labels.FINALIZER not in job.finalizers and job.deleting_since is not None
    return gone and job.state.is_terminal


def _is_queued(seen: Observed) -> bool:
    """Tell whether a job waits for the queue it was handed to."""
    return seen.is_held or (seen.job.state is State.REQUESTED and seen.job.suspended)


def _record_line(metadata: dict[str, object]) -> JobLine | None:
    found = metadata.get("labels")
    marks = metadata.get("annotations") or {}
    if not isinstance(found, dict) or not isinstance(marks, dict):
        return None
    made = read_time(str(metadata.get("creationTimestamp")))
    accepted = read_time(marks.get(labels.ACCEPTED_AT)) or made
    state = found.get(labels.STATE)
    if accepted is None or state not in set(State) or labels.JOB_ID not in found:
        return None
    told = str(marks.get(labels.LOST_EVENTS) or "").split(",")
    return JobLine(
        id=str(found[labels.JOB_ID]).upper(),
        state=State(state),
        accepted_at=accepted,
        live=False,
        lost=tuple(event for event in Event if event.value in told),
    )


def _finished(found: records.Found, namespace: str) -> JobView:
    """Show a record; what it does not prove to be gone remains, whether it says so or not."""
    record, results = found.record, found.record.results_bucket
    names = names_for(record.job_id, namespace, record.uid)
    said = {item.resource: item for item in record.remaining}
    if found.unreadable:
        unread = Remainder(resource=f"configmap/{names.record}", reason=found.unreadable)
        said[unread.resource] = unread
        results = names.results_bucket if record.state is State.SUCCEEDED else None
    else:
        unseen = Remainder(resource="", reason="nobody has seen that it is gone")
        for resource in proof.unproven_of(record, names):
            said.setdefault(resource, replace(unseen, resource=resource))
    return JobView(
        id=record.job_id,
        state=record.state,
        live=False,
        run_name=record.run_name,
        accepted_at=record.accepted_at,
        transitions=record.transitions,
        waiting=None,
        verdict=record.verdict,
        deliveries=record.outbox,
        results_bucket=results,
        removed=record.removals,
        removed_at=record.removed_at,
        remaining=tuple(said.values()),
        unreadable=found.unreadable,
    )


def _write_token(key: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode("|".join(key).encode()).decode().rstrip("=")


def _read_token(token: str | None) -> tuple[str, str] | None:
    if not token:
        return None
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
        moment, job_id = text.split("|")
        datetime.fromisoformat(moment)
    except ValueError:
        raise InvalidRequest([("continue", "must be a token of an earlier answer")]) from None
    return moment, job_id
