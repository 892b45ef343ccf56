"""PURE: what a job waits for, as anybody asking is told; and when a person must help."""

from dataclasses import replace
from datetime import datetime

from pyvatti.errors import NamespaceTerminating, PermanentError
from pyvatti.models import State, Waiting
from pyvatti.policy.evicting import evictor, told_eviction
from pyvatti.policy.observed import Observed
from pyvatti.policy.podwords import silence, waits_on
from pyvatti.settings import Settings

ADMISSION = "admission"
DENIED = "PolicyDenied"
"""Reason of the Event by which every replica knows what a policy of the cluster says."""


def waiting_for(seen: Observed, kueue_queue: str = "") -> Waiting | None:
    """Say what keeps a job from its next step, or None when nothing does."""
    job = seen.job
    if seen.progress.denial is not None:
        return seen.progress.denial
    if job.state.is_terminal:
        return _after_end(seen)
    if job.state is State.REQUESTED:
        return _before_release(seen, kueue_queue)
    if seen.is_held:
        return _held(seen, kueue_queue)
    if job.attempt.number > 1 and not (seen.pod is not None and seen.pod.main_running):
        return _again(seen)
    if job.state is State.CREATED:
        return _before_run(seen)
    return _silence(seen)


def _before_release(seen: Observed, kueue_queue: str) -> Waiting:
    if seen.events and seen.events[-1].reason == DENIED:  # nothing was done since
        last = seen.events[-1]
        return Waiting(on=ADMISSION, message=last.note, since=last.at)
    if not seen.has_slot:
        return Waiting(on="slot", message="all slots are taken; the oldest job is next")
    if seen.job.queue_name:
        message = _with_words(f"queue {kueue_queue} has not admitted it yet", seen)
        return Waiting(on="Kueue", message=message)
    return Waiting(on="buckets", message="its buckets wait for their turn or are being made")


def denied(before: Waiting | None, words: str, now: datetime) -> Waiting:
    """Say that a policy of the cluster denies the next step, and since when it has."""
    return Waiting(on=ADMISSION, message=words, since=before.since if before else now)


def denial_stays(denial: Waiting, now: datetime, settings: Settings) -> bool:
    """Tell whether a denial has lasted so long that a person must act."""
    return denial.since is not None and now >= denial.since + settings.denial_grace


def _with_words(sentence: str, seen: Observed) -> str:
    words = seen.queue.pending if seen.queue is not None else ""
    return f"{sentence}: {words}" if words else sentence


def _held(seen: Observed, kueue_queue: str) -> Waiting:
    """Say since when and why a job that had begun waits for its slot again."""
    told = told_eviction(seen) if seen.job.attempt.waits else f"evicted by {evictor(seen)}"
    since = seen.job.attempt.evicted_at if seen.job.attempt.waits else None
    if not seen.job.queue_name:
        return Waiting(on="resumption", message=f"{told}; nobody resumed it yet", since=since)
    message = _with_words(f"{told}; queue {kueue_queue} has not admitted it again", seen)
    return Waiting(on="Kueue", message=message, since=since)


def _again(seen: Observed) -> Waiting | None:
    """Say what another attempt waits for, and why it is another one."""
    waiting = _before_run(seen)
    if waiting is None:
        return None
    told = f"attempt {seen.job.attempt.number}, {told_eviction(seen)}"
    return replace(waiting, message=f"{waiting.message} ({told})")


def _before_run(seen: Observed) -> Waiting | None:
    if (silent := _silence(seen)) is not None:
        return silent
    pod, of = seen.pod, seen.job
    since = of.attempt.resumed_at or of.transitions.get(State.CREATED)
    if (waits := waits_on(pod, seen.events)) is not None:
        return Waiting(on=waits[0], message=waits[1], since=since)
    if pod is None:
        return Waiting(on="pod", message="the cluster has not made its pod yet", since=since)
    if pod.init_running:
        return Waiting(on="transfer", message="data is being transferred", since=pod.created_at)
    if pod.main_running:
        return Waiting(on="run", message="Seqera does not know the run yet", since=since)
    said = "a container is being started"
    if pod.init_end is None and pod.others_running:  # added ones: the transfer comes after them
        said = f"its own containers start after {', '.join(pod.others_running)}"
    return Waiting(on="container", message=said, since=pod.created_at)


def _silence(seen: Observed) -> Waiting | None:
    """Say of a job whose driver was not seen to end that its node does not answer."""
    since = next((pod.silent_since for pod in seen.pods if pod.is_live), None)
    if since is None:
        return None
    return Waiting(on="silent node", message=silence(since), since=since)


def _after_end(seen: Observed) -> Waiting | None:
    if (silent := _silence(seen)) is not None:
        return silent
    for pod in (pod for pod in seen.pods if pod.is_live):
        due = f"; it is to end by {pod.due_at.isoformat()}" if pod.due_at else ""
        return Waiting(on="pods", message=f"its pod has not ended yet{due}")
    for item in seen.progress.stuck:
        return Waiting(on="clean-up stuck", message=f"{item.resource}: {item.reason}")
    for pod in seen.pods:
        if pod.deleting and pod.finalizers:
            held = ", ".join(pod.finalizers)
            return Waiting(on="pod finalizer", message=f"pod {pod.name} has ended, held by {held}")
    if seen.job.pending:
        return Waiting(on="backend", message="the backend has not taken the last event yet")
    return Waiting(on="clean-up", message="its resources are being removed")


FAILURES_BEFORE_STUCK = 10  # of one step in a row: about 4 minutes


def is_stuck(error: Exception, failures: int) -> bool:
    """Tell whether a failing step of a clean-up needs a person: it cannot succeed by itself.

    `failures` counts those in a row, this one included.
    """
    if isinstance(error, NamespaceTerminating):
        return False
    return isinstance(error, PermanentError) or failures >= FAILURES_BEFORE_STUCK
