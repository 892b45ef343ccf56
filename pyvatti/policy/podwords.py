"""PURE: what a driver pod says, as evidence; what it waits for; whether its node still answers.

What follows from it is the decision table's (`judging`).
"""

from datetime import datetime, timedelta

from pyvatti.diagnosis import decisive
from pyvatti.models import ClusterEvent, ContainerEnd, Pod

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
OVERDUE = timedelta(seconds=60)
"""How much longer than its grace a deleted pod may live before its node counts as silent."""

_NO_POD = {
    "FailedCreate": "quota",
    "FailedMount": "secret",
    "FailedScheduling": "node",
}


def has_image_error(pod: Pod | None) -> bool:
    """Tell whether a container waits because its image cannot be had.

    One beside a calculation that has begun holds nothing up.
    """
    if pod is None or pod.waiting is None or pod.main_running or pod.main_end is not None:
        return False
    return pod.waiting[1] in IMAGE_ERRORS


def words_of(pod: Pod) -> str:
    """Give everything a pod and its containers say of their end, empty if they say nothing."""
    ends = (pod.init_end, pod.main_end, *pod.others)
    said = [_ended(end) for end in ends if end is not None]
    if why := ", ".join(word for word in (pod.reason, pod.disruption) if word):
        said.insert(0, f"pod {pod.phase}: {why}: {pod.message}".strip().rstrip(": "))
    elif pod.message:
        said.insert(0, f"pod {pod.phase}: {pod.message}".strip())
    if pod.waiting is not None:
        said.append(_waits(*pod.waiting))
    return "; ".join(said)


def _ended(end: ContainerEnd) -> str:
    text = f"container {end.name} ended with exit code {end.exit_code} ({end.reason or 'Error'})"
    return f"{text}: {decisive(end.message)}" if end.message else text


def _waits(container: str, reason: str, message: str) -> str:
    return f"{container}: {reason}: {message}".rstrip(": ")


def waits_on(pod: Pod | None, events: tuple[ClusterEvent, ...]) -> tuple[str, str] | None:
    """Say what keeps a released job from running: (what, sentence), or None."""
    if pod is not None and pod.unschedulable:
        return "node", pod.unschedulable
    if pod is not None and pod.waiting is not None:
        return _kind_of_wait(pod.waiting[1]), _waits(*pod.waiting)
    for event in reversed(events):
        if event.warning and event.reason in _NO_POD:
            return _classify(event), event.note
    return None


def silence(since: datetime) -> str:
    """Say that a node does not answer."""
    return f"its node has not answered since {since.isoformat()}"


def silent_since(pod: Pod, now: datetime) -> datetime | None:
    """Give since when nobody hears of a pod that may still run; None where its node answers.

    Either the node controller says so, or the pod was deleted and lives on long after its grace:
    while a transfer runs, a silent node leaves no other mark.
    """
    if not pod.is_live:
        return None
    is_overdue = pod.due_at is not None and now >= pod.due_at + OVERDUE
    return pod.silent_since or (pod.due_at if is_overdue else None)


def _kind_of_wait(reason: str) -> str:
    if reason in IMAGE_ERRORS:
        return "image"
    return "configuration" if reason.startswith("Create") else "container"


def _classify(event: ClusterEvent) -> str:
    note = event.note.lower()
    if event.reason == "FailedCreate" and "exceeded quota" not in note:
        return "service account" if "serviceaccount" in note.replace(" ", "") else "admission"
    return _NO_POD[event.reason]
