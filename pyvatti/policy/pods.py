"""PURE: turns what Kubernetes says of a driver pod into a verdict's reason, sentence and next step.

Source of the places where each failure shows: Kubernetes 1.36, measured; see docs/decisions.md.
"""

from dataclasses import dataclass

from pyvatti.diagnosis import (
    Failure,
    driver_failure,
    trace_exit,
    trace_name,
    transfer_failure,
)
from pyvatti.models import ClusterEvent, ContainerEnd, Pod

_INFRASTRUCTURE = {
    "Evicted": "The node was short of memory or disk and evicted the driver pod.",
    "NodeShutdown": "The node was shut down.",
    "NodeLost": "The node was lost.",
    "Terminated": "The node was shut down.",
    "Preempting": "The driver pod was preempted by a more important pod.",
    "UnexpectedAdmissionError": "The node refused the driver pod.",
    "PreemptionByScheduler": "The driver pod was preempted by a more important pod.",
    "DeletionByTaintManager": "The node became unusable and the driver pod was removed.",
    "DeletionByPodGC": "The node was lost and the driver pod was removed.",
    "EvictionByEvictionAPI": "The driver pod was evicted, as happens when a node is drained.",
    "TerminationByKubelet": "The node ended the driver pod.",
}
_RETRY = "Nothing is wrong with the request: submit it again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why something failed. `exit_code` is the container's own."""

    reason: str
    message: str
    next_step: str
    exit_code: int | None = None

    @property
    def trace_name(self) -> str:
        """What the backend is told: one line without markup."""
        return trace_name(self.message)

    @property
    def trace_exit(self) -> int:
        """The exit code as the backend can hold it, 0..127."""
        return trace_exit(self.exit_code)


def infrastructure_cause(pod: Pod) -> Cause | None:
    """Recognise a pod that the cluster ended, not its program."""
    reason = pod.disruption or pod.reason
    if reason.startswith("OutOf"):
        sentence = "The node had no room for the driver pod."
    elif reason in _INFRASTRUCTURE:
        sentence = _INFRASTRUCTURE[reason]
    else:
        return None
    end = pod.main_end or pod.init_end
    return Cause(
        reason=reason,
        message=sentence,
        next_step=_RETRY,
        exit_code=end.exit_code if end else None,
    )


def transfer_cause(pod: Pod, end: ContainerEnd) -> Cause:
    """Say why the data transfer (init container) failed."""
    if (cause := infrastructure_cause(pod)) is not None:
        return cause
    return _cause(transfer_failure(end))


def driver_cause(pod: Pod | None) -> Cause:
    """Say why the driver ended badly, or that nobody knows."""
    if pod is None:
        return Cause(
            reason="DriverLost",
            message="the workflow's driver was lost",
            next_step="Submit again.",
        )
    if (cause := infrastructure_cause(pod)) is not None:
        return cause
    end = pod.main_end
    if end is None:
        return Cause(
            reason="DriverLost", message="the workflow's driver was lost", next_step=_RETRY
        )
    return _cause(driver_failure(end))


def _cause(failure: Failure) -> Cause:
    return Cause(
        reason=failure.reason,
        message=failure.message,
        next_step=failure.next_step,
        exit_code=failure.exit_code,
    )


def image_cause(pod: Pod) -> Cause:
    """Say which image cannot be had."""
    container, reason, message = pod.waiting or ("", "ImageError", "")
    return Cause(
        reason=reason,
        message=f"the image of container {container} cannot be pulled: {message or reason}",
        next_step="Check NEXTFLOW_IMAGE, the registry and its credentials.",
    )


_NO_POD = {
    "FailedCreate": "quota",
    "FailedMount": "secret",
    "FailedScheduling": "node",
}


def waits_on(pod: Pod | None, events: tuple[ClusterEvent, ...]) -> tuple[str, str] | None:
    """Say what keeps a released job from running: (what, sentence), or None."""
    if pod is not None and pod.unschedulable:
        return "node", pod.unschedulable
    if pod is not None and pod.waiting is not None:
        container, reason, message = pod.waiting
        what = "configuration" if reason.startswith("Create") else "image"
        return what, f"{container}: {reason}: {message}".rstrip(": ")
    for event in reversed(events):
        if event.warning and event.reason in _NO_POD:
            return _classify(event), event.note
    return None


def _classify(event: ClusterEvent) -> str:
    note = event.note.lower()
    if event.reason == "FailedCreate" and "exceeded quota" not in note:
        return "service account" if "serviceaccount" in note.replace(" ", "") else "admission"
    return _NO_POD[event.reason]
