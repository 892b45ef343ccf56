"""PURE: turns what Kubernetes says of a driver pod into a verdict's reason, sentence and next step.

Source of the places where each failure shows: Kubernetes 1.36, measured; see docs/decisions.md.
What a pod waits for and its words as evidence are in `pyvatti.policy.podwords`.
"""

import re
from dataclasses import dataclass

from pyvatti.diagnosis import (
    Failure,
    driver_failure,
    trace_exit,
    trace_name,
    transfer_failure,
)
from pyvatti.labels import INIT_CONTAINER, MAIN_CONTAINER
from pyvatti.models import ContainerEnd, Pod

NODE_LOST = "NodeLost"

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
_RETRY = "Nothing is wrong with the request: submit it again under a new id."
_MORE_STORAGE = "Raise DRIVER_STORAGE and submit again under a new id."
_OWN = (INIT_CONTAINER, MAIN_CONTAINER)

# How a kubelet says that a pod used more disk than its own limits allow, not than the node has.
# Source: kubernetes pkg/kubelet/eviction/helpers.go
_OWN_LIMITS = re.compile(
    r"Container (?P<container>\S+) exceeded its local ephemeral storage limit"
    r"|Pod ephemeral local storage usage exceeds the total limit of containers"
    r"|Usage of EmptyDir volume (?P<volume>\S+) exceeds the limit"
)


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
    """Recognise a pod that the cluster ended, not its program.

    A pod that failed and has a reason of its own was ended by its node, whatever the reason is:
    a pod whose containers ended by themselves has none.
    """
    end = pod.main_end or pod.init_end
    code = end.exit_code if end else None
    if pod.reason == "Evicted" and (limit := _OWN_LIMITS.search(pod.message)) is not None:
        return _own_limit(limit, code)
    for reason in (pod.reason, pod.disruption):
        if reason.startswith("OutOf"):
            sentence = "The node had no room for the driver pod."
        elif reason in _INFRASTRUCTURE:
            sentence = _INFRASTRUCTURE[reason]
        elif reason and pod.phase == "Failed":
            sentence = _unknown(reason, pod.message)
        else:
            continue
        return Cause(reason=reason, message=sentence, next_step=_RETRY, exit_code=code)
    return None


def _unknown(reason: str, message: str) -> str:
    refused = "Pod was rejected: "  # as a kubelet begins where it does not admit a pod
    if message.startswith(refused):
        return f"The node refused the driver pod: {message.removeprefix(refused)}"
    return f"The cluster ended the driver pod ({reason}): {message}".rstrip(": ")


def _own_limit(limit: re.Match[str], code: int | None) -> Cause:
    container, volume = limit["container"], limit["volume"]
    step = _MORE_STORAGE
    if volume is not None:
        step = f"Raise the size limit that volume {volume} was given in this cluster."
    elif container is not None and container not in _OWN:
        step = _ask_about(container)
    return Cause(
        reason="DriverOutOfStorage",
        message="the driver pod was evicted: it wrote more to its local disk than its limit allows",
        next_step=step,
        exit_code=code,
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
            next_step="Submit again under a new id.",
        )
    if (cause := infrastructure_cause(pod) or added_cause(pod)) is not None:
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


def added_cause(pod: Pod) -> Cause | None:
    """Recognise a pod that failed before the calculation, by a container that somebody adds."""
    if pod.main_end is not None or pod.main_running or pod.phase != "Failed":
        return None
    failed = next((end for end in pod.others if end.exit_code != 0), None)
    if failed is None:
        return None
    how = "ran out of memory" if failed.reason == "OOMKilled" else f"exit {failed.exit_code}"
    return Cause(
        reason="AddedContainerFailed",
        message=f"container {failed.name}, which this cluster adds to the pod, failed ({how})",
        next_step=_ask_about(failed.name),
        exit_code=failed.exit_code,
    )


def _ask_about(container: str) -> str:
    return (
        f"Ask who adds container {container} to pods (a service mesh, a secret agent, a policy);"
        " then submit again under a new id."
    )


def silent_node_cause(since: str) -> Cause:
    """Say that the node of the driver pod does not answer any more."""
    return Cause(
        reason=NODE_LOST,
        message=(
            f"the node of the driver pod has not answered since {since};"
            " that its containers ended was not observed"
        ),
        next_step=_RETRY,
    )


def image_cause(pod: Pod) -> Cause:
    """Say which image cannot be had."""
    container, reason, message = pod.waiting or ("", "ImageError", "")
    is_own = container in _OWN
    return Cause(
        reason=reason,
        message=f"the image of container {container} cannot be pulled: {message or reason}",
        next_step="Check NEXTFLOW_IMAGE, the registry and its credentials."
        if is_own
        else _ask_about(container),
    )
