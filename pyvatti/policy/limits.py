"""PURE: predicates that compare a job's stored times with its limits."""

from datetime import datetime, timedelta

from pyvatti.models import Job, Pod, State
from pyvatti.policy.observed import Observed
from pyvatti.policy.pods import infrastructure_cause
from pyvatti.settings import Settings

IMAGE_ERRORS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)


def has_image_error(pod: Pod | None) -> bool:
    """Tell whether a container waits because its image cannot be had."""
    return pod is not None and pod.waiting is not None and pod.waiting[1] in IMAGE_ERRORS


def state_limit(job: Job, settings: Settings) -> tuple[datetime, timedelta] | None:
    """Give (since, allowed) of the current state; time in a queue is unlimited: None.

    Another attempt begins when its slot is given again, and so do its limits.
    """
    again = job.attempt.resumed_at
    if job.attempt.waits:
        return None
    if job.state is State.CREATED:
        since = job.transitions.get(State.CREATED, job.accepted_at)
        return again or since, settings.timeout_seconds
    if job.state is State.DEPLOYED:
        since = job.transitions.get(State.DEPLOYED, job.accepted_at)
        return again or since, settings.deployed_timeout_seconds
    return None


def released_at(job: Job) -> datetime:
    """Give the moment before which no run of this attempt can have been submitted."""
    released = job.transitions.get(State.CREATED, job.accepted_at)
    return job.attempt.evicted_at or released


def in_haste(settings: Settings) -> Settings:
    """Give the settings for a namespace that goes: nothing and nobody is waited for."""
    graces = ("failed_grace", "complete_grace", "hang_grace", "accept_grace")
    return settings.model_copy(update=dict.fromkeys(graces, timedelta()))


def is_dead(seen: Observed) -> bool:
    """Tell whether the driver ended badly, by its own exit or by the cluster's hand."""
    pod = seen.pod
    end = pod.main_end if pod is not None else None
    killed = end is not None and (end.exit_code != 0 or end.reason == "OOMKilled")
    disrupted = pod is not None and not pod.is_live and infrastructure_cause(pod) is not None
    return killed or disrupted or seen.job.ended == "Failed"


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
    is over.
    """
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
