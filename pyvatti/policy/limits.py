"""PURE: predicates that compare a job's stored times with its limits."""

from datetime import datetime, timedelta

from pyvatti.models import Job, Pod, State
from pyvatti.policy.observed import Observed
from pyvatti.policy.pods import NODE_LOST, infrastructure_cause
from pyvatti.policy.podwords import silent_since
from pyvatti.settings import Settings


def state_limit(job: Job, settings: Settings) -> tuple[datetime, timedelta] | None:
    """Give (since, allowed) of the current state; time in a queue is unlimited: None.

    Another attempt begins when its slot is given again, and so do its limits.
    """
    if job.attempt.waits:
        return None
    allowed = {
        State.CREATED: settings.timeout_seconds,
        State.DEPLOYED: settings.deployed_timeout_seconds,
    }.get(job.state)
    if allowed is None:
        return None
    entered = job.transitions.get(job.state, job.accepted_at)
    return max(entered, job.attempt.resumed_at or entered), allowed


def released_at(job: Job) -> datetime:
    """Give the moment before which no run of this attempt can have been submitted."""
    released = job.transitions.get(State.CREATED, job.accepted_at)
    return job.attempt.evicted_at or released


def in_haste(settings: Settings) -> Settings:
    """Give the settings for a namespace that goes: nothing and nobody is waited for."""
    graces = ("failed_grace", "complete_grace", "hang_grace", "accept_grace", "node_grace")
    return settings.model_copy(update=dict.fromkeys(graces, timedelta()))


def is_dead(seen: Observed) -> bool:
    """Tell whether the driver ended badly, by its own exit or by the cluster's hand.

    A Job whose driver ended well fails too where a container that somebody adds does.
    """
    pod = seen.pod
    end = pod.main_end if pod is not None else None
    if pod is not None and not pod.is_live and infrastructure_cause(pod) is not None:
        return True
    if end is None:
        return seen.job.ended == "Failed"
    return end.exit_code != 0 or end.reason == "OOMKilled"


def is_done(seen: Observed) -> bool:
    """Tell whether the driver ended well, as far as Kubernetes can know."""
    pod = seen.pod
    end = pod.main_end if pod is not None else None
    exited = end is not None and end.exit_code == 0
    return not is_dead(seen) and (exited or seen.job.ended == "Complete")


def grace_end(seen: Observed, settings: Settings) -> datetime | None:
    """Give the moment from which an ended driver is judged without Seqera's word."""
    if seen.ended_at is None:
        return None
    return seen.ended_at + (settings.failed_grace if is_dead(seen) else settings.complete_grace)


def last_look(seen: Observed, now: datetime, settings: Settings) -> datetime | None:
    """Give the moment since which Seqera must have been asked, answered or not, before a verdict.

    At once when an end or a deletion (of the namespace, too) is seen, and once more when the grace
    is over, or the patience with a silent node.
    """
    if (lost := lost_at(seen, now, settings)) is not None:
        return lost
    known = seen.end_known_at or seen.deletion_known_at
    if (going := seen.going_known_at) is not None:
        known = going if known is None else max(known, going)
    over = grace_end(seen, settings)
    if known is not None and over is not None and now >= over:
        return max(known, over)
    return known


def is_asked_since(seen: Observed, moment: datetime) -> bool:
    """Tell whether a Seqera pass ended, answered or not, after a moment."""
    return seen.asked_at is not None and seen.asked_at >= moment


def is_lost(pod: Pod, seen: Observed, now: datetime, settings: Settings) -> bool:
    """Tell whether nobody waits any more for the end of a pod: its node has been silent too long.

    That its node was found lost outlives this process.
    """
    if silent_since(pod, now) is None:
        return False
    verdict, known = seen.job.verdict, seen.progress.silent_seen_at
    found = verdict is not None and verdict.reason == NODE_LOST
    return found or (known is not None and now >= known + settings.node_grace)


def lost_at(seen: Observed, now: datetime, settings: Settings) -> datetime | None:
    """Give the moment from which the driver counts as lost with its node; None before it.

    One that was seen to end is judged by its end.
    """
    pod, known = seen.pod or seen.lingering, seen.progress.silent_seen_at
    if pod is None or known is None or seen.ended_at is not None:
        return None
    if seen.pod is None:  # of another attempt nobody waits before it begins
        known = max(known, seen.job.attempt.resumed_at or known)
    over = known + settings.node_grace
    return over if now >= over and is_lost(pod, seen, now, settings) else None
