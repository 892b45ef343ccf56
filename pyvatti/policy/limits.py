"""PURE: predicates that compare a job's stored times with its limits."""

from datetime import datetime, timedelta

from pyvatti.models import Job, Pod, State
from pyvatti.policy.observed import Observed
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
    """Give (since, allowed) of the current state; queue time is unlimited: None."""
    if job.state is State.CREATED:
        return job.transitions.get(State.CREATED, job.accepted_at), settings.timeout_seconds
    if job.state is State.DEPLOYED:
        since = job.transitions.get(State.DEPLOYED, job.accepted_at)
        return since, settings.deployed_timeout_seconds
    return None


def is_asked_since(seen: Observed, moment: datetime) -> bool:
    """Tell whether a Seqera pass ended, answered or not, after a moment."""
    return seen.asked_at is not None and seen.asked_at >= moment
