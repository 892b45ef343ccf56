"""PURE: our values written back to a Job, as merge patches that fit only the version read."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from pyvatti import labels
from pyvatti.jobs.annotations import (
    dump_attempt,
    dump_outbox,
    dump_transitions,
    dump_verdict,
    dump_witness,
)
from pyvatti.jobs.bounds import MOST
from pyvatti.jobs.names import names_for
from pyvatti.models import Delivery, Event, Job, Manifest, Names, Notice, Pod, State, Verdict

EVENT_OF = {
    State.DEPLOYED: Event.DEPLOYED,
    State.SUCCEEDED: Event.SUCCEEDED,
    State.FAILED: Event.FAILED,
}


def add_notice(job: Job, verdict: Verdict, now: datetime) -> tuple[Notice, ...]:
    """Give the outbox with the event of a new state; a terminal event drops a pending `deployed`.

    An outbox that holds a terminal event never gets another one.
    """
    event = EVENT_OF.get(verdict.state)
    if event is None or any(notice.event is not Event.DEPLOYED for notice in job.outbox):
        return job.outbox
    kept = job.outbox
    if verdict.state.is_terminal:
        kept = tuple(
            replace(notice, delivery=Delivery.DROPPED, settled_at=now)
            if notice.delivery is Delivery.PENDING
            else notice
            for notice in kept or _lost_deployed(job)
        )
    notice = Notice(
        sequence=len(kept) + 1,
        event=event,
        at=now,
        trace_name=verdict.trace_name,
        trace_exit=verdict.trace_exit,
    )
    return (*kept, notice)


def _lost_deployed(job: Job) -> tuple[Notice, ...]:
    """Give the event of a running job whose outbox somebody broke: its number was told with it."""
    at = job.transitions.get(State.DEPLOYED)
    return (Notice(sequence=1, event=Event.DEPLOYED, at=at),) if at is not None else ()


def transition_patch(job: Job, verdict: Verdict, now: datetime, witness: Pod | None) -> Manifest:
    """Enter a state: label, time, verdict, witness and the event for the backend in one write."""
    annotations = name_marks(job.names) | {
        labels.TRANSITIONS: dump_transitions(_entered(job, verdict.state, now)),
        labels.VERDICT: dump_verdict(verdict),
        labels.OUTBOX: dump_outbox(add_notice(job, verdict, now)),
    }
    if witness is not None:
        annotations[labels.WITNESS] = dump_witness(witness)
    return _patch(job, annotations, labels={labels.STATE: verdict.state.value})


def release_patch(job: Job, now: datetime) -> Manifest:
    """Enter Created and let the Job controller start the pod, in one write."""
    return {**created_patch(job, now), "spec": {"suspend": False}}


def created_patch(job: Job, now: datetime) -> Manifest:
    """Enter Created for a Job that somebody else (Kueue) has released."""
    transitions = {labels.TRANSITIONS: dump_transitions(_entered(job, State.CREATED, now))}
    annotations = name_marks(job.names) | transitions
    return _patch(job, annotations, labels={labels.STATE: State.CREATED.value})


def queued_patch(job: Job) -> Manifest:
    """Note that the accept was seen complete, for a job that has to wait for its slot."""
    transitions = dump_transitions({State.REQUESTED: job.accepted_at})
    return _patch(job, name_marks(job.names) | {labels.TRANSITIONS: transitions})


def queue_patch(job: Job, queue: str) -> Manifest:
    """Hand a prepared Job to Kueue, which owns `suspend` from then on."""
    return _patch(job, {}, labels={labels.KUEUE_QUEUE: queue})


def witness_patch(job: Job, witness: Pod) -> Manifest:
    """Keep how the pod ended, for the pod may vanish before the job is judged."""
    return _patch(job, {labels.WITNESS: dump_witness(witness)})


def evicted_patch(
    job: Job, namespace: str, now: datetime, said: str, pods: Iterable[str]
) -> Manifest | None:
    """Begin another attempt: the slot was taken back, which killed `pods` (uids).

    Where that is written down already, only pods that were not known are added. None where there
    is nothing new.
    """
    before = job.attempt
    former = tuple(dict.fromkeys((*before.former, *pods)))[-MOST:]
    if before.waits:
        attempt = replace(before, former=former)
    else:
        attempt = replace(
            before,
            number=before.number + 1,
            evicted_at=now,
            said=said,
            resumed_at=None,
            former=former,
        )
    if attempt == before:
        return None
    names = names_for(job.names.base, namespace, job.uid, attempt.number)
    notes = {labels.ATTEMPT: dump_attempt(attempt), labels.WITNESS: None}
    return _patch(job, name_marks(names) | notes)


def resumed_patch(job: Job, now: datetime) -> Manifest | None:
    """Note that the slot was given again: from now on the attempt's clock runs."""
    if not job.attempt.waits:
        return None
    return _patch(job, {labels.ATTEMPT: dump_attempt(replace(job.attempt, resumed_at=now))})


def outbox_patch(job: Job, *changed: Notice) -> Manifest:
    """Write back how the delivery of some events stands; they are known by their sequence."""
    news = {notice.sequence: notice for notice in changed}
    outbox = tuple(news.get(notice.sequence, notice) for notice in job.outbox)
    return _patch(job, {labels.OUTBOX: dump_outbox(outbox)})


def withdrawal_patch(job: Job) -> Manifest:
    """Mark a Job whose accept failed: from now on nobody completes it."""
    return _patch(job, {labels.WITHDRAWN: labels.IN_DOUBT})


def decided_patch(job: Job) -> Manifest:
    """Make a withdrawal final and let go of the Job, so that its deletion is silent."""
    patch = _patch(job, {labels.WITHDRAWN: labels.DECIDED})
    patch["metadata"]["finalizers"] = _others(job)
    return patch


def restore_patch(job: Job) -> Manifest:
    """Take the mark of a withdrawal back: the accept was completed."""
    patch = _patch(job, {})
    patch["metadata"]["annotations"] = {labels.WITHDRAWN: None}
    if job.deleting_since is None:  # a dying object takes no new finalizer
        patch["metadata"]["finalizers"] = [*_others(job), labels.FINALIZER]
    return patch


def repair_patch(job: Job, identity: Mapping[str, str]) -> Manifest:
    """Put back what somebody edited: our finalizer, labels, the names that are derived.

    The Job was accepted, so the mark of a withdrawal is forged and goes.
    """
    marks = {**identity, labels.JOB_ID: job.names.base, labels.STATE: job.state.value}
    patch = _patch(job, name_marks(job.names) | {labels.WITHDRAWN: None}, labels=marks)
    patch["metadata"]["finalizers"] = [*_others(job), labels.FINALIZER]
    return patch


def identity_patch(job: Job, identity: Mapping[str, str]) -> Manifest:
    """Put back the labels by which we find the Job, which somebody edited away."""
    marks = {**identity, labels.JOB_ID: job.names.base, labels.STATE: job.state.value}
    return _patch(job, {}, labels=marks)


def name_marks(names: Names) -> dict[str, str]:
    """Give the annotations that name a job's run and buckets, for people."""
    return {
        labels.RUN_NAME: names.run_name,
        labels.WORK_BUCKET: names.work_bucket,
        labels.RESULTS_BUCKET: names.results_bucket,
    }


def finalizer_patch(job: Job) -> Manifest:
    """Let go of the Job: remove our finalizer, keep those of others."""
    return {"metadata": {"resourceVersion": job.resource_version, "finalizers": _others(job)}}


def _patch(job: Job, annotations: Mapping[str, str | None], **metadata: Any) -> Manifest:
    """Build a merge patch that only applies to the version of the Job that was read."""
    return {
        "metadata": {
            "resourceVersion": job.resource_version,
            "uid": job.uid,
            "annotations": dict(annotations),
            **metadata,
        }
    }


def _others(job: Job) -> list[str]:
    return [name for name in job.finalizers if name != labels.FINALIZER]


def _entered(job: Job, state: State, now: datetime) -> dict[State, datetime]:
    return {State.REQUESTED: job.accepted_at} | job.transitions | {state: now}
