"""The failures a pod can be told to suffer, and how a pod says which.

No behaviour: the kubelet and the Job controller act them out.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeAlias

FAULT_ANNOTATION = "sandbox.local/fault"


class Fault(StrEnum):
    """One row of the failure table; the value is also the annotation's."""

    # before the pod
    QUOTA = "quota"
    POD_SECURITY = "pod-security"
    SERVICE_ACCOUNT_MISSING = "service-account-missing"
    # before the containers
    UNSCHEDULABLE = "unschedulable"
    OUT_OF_CPU = "out-of-cpu"
    UNEXPECTED_ADMISSION = "unexpected-admission"
    NODE_AFFINITY = "node-affinity"
    MISSING_SECRET_VOLUME = "missing-secret-volume"
    # a container that cannot start
    IMAGE_PULL_INIT = "image-pull-init"
    IMAGE_PULL_MAIN = "image-pull-main"
    INVALID_IMAGE_NAME = "invalid-image-name"
    IMAGE_NEVER_PULL = "image-never-pull"
    MISSING_SECRET_ENV = "missing-secret-env"
    COMMAND_NOT_FOUND_INIT = "command-not-found-init"
    COMMAND_NOT_FOUND = "command-not-found"
    # a container that ends badly
    INIT_EXIT = "init-exit"
    MAIN_EXIT = "main-exit"
    OOM_INIT = "oom-init"
    OOM_MAIN = "oom-main"
    OOM_CHILD = "oom-child"
    # a running pod that is ended from outside
    POD_DELETED = "pod-deleted"
    EVICTION_API = "eviction-api"
    TAINT_MANAGER = "taint-manager"
    PREEMPTED_BY_SCHEDULER = "preempted-by-scheduler"
    PREEMPTED_BY_KUBELET = "preempted-by-kubelet"
    EVICTED = "evicted"
    STORAGE_LIMIT = "storage-limit"
    NODE_SHUTDOWN = "node-shutdown"
    NODE_LOST = "node-lost"
    NODE_SILENT = "node-silent"
    DEADLINE = "deadline"


FaultSelector: TypeAlias = Callable[[dict[str, Any]], Fault | None]

# Struck while the container of this kind runs; all others have their own place.
AT_INIT = (Fault.INIT_EXIT, Fault.OOM_INIT)
AT_MAIN = (
    Fault.MAIN_EXIT, Fault.OOM_MAIN, Fault.OOM_CHILD, Fault.POD_DELETED, Fault.EVICTION_API,
    Fault.TAINT_MANAGER, Fault.PREEMPTED_BY_SCHEDULER, Fault.PREEMPTED_BY_KUBELET, Fault.EVICTED,
    Fault.STORAGE_LIMIT, Fault.NODE_SHUTDOWN, Fault.NODE_LOST, Fault.NODE_SILENT,
)  # fmt: skip

# Faults that are a deletion of the pod with a DisruptionTarget condition: reason, message.
DISRUPTIONS = {
    Fault.EVICTION_API: ("EvictionByEvictionAPI", "Eviction API: evicting"),
    Fault.TAINT_MANAGER: (
        "DeletionByTaintManager",
        "Taint manager: deleting due to NoExecute taint",
    ),
    Fault.PREEMPTED_BY_SCHEDULER: (
        "PreemptionByScheduler",
        "default-scheduler: preempting to accommodate a higher priority pod",
    ),
}

# Faults by which a node falls silent: it is removed after a while, or stays as it is for ever, as
# the only node of a cluster does (the node controller evicts nobody where all are silent).
SILENT = (Fault.NODE_LOST, Fault.NODE_SILENT)

# Where the node refuses the pod on its arrival.
REFUSED = (Fault.OUT_OF_CPU, Fault.UNEXPECTED_ADMISSION, Fault.NODE_AFFINITY)

# Where the pod's status says that the node, not the pod, is why. A pod beyond its own limits gets
# no such condition. Source: kubernetes pkg/kubelet/eviction/eviction_manager.go
BY_KUBELET = (Fault.EVICTED, Fault.NODE_SHUTDOWN, Fault.PREEMPTED_BY_KUBELET)

# Faults by which the node ends the pod itself: status.reason, status.message.
NODE_REASONS = {
    Fault.EVICTED: (
        "Evicted",
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 48736Ki. ",
    ),
    Fault.STORAGE_LIMIT: (
        "Evicted",
        "Pod ephemeral local storage usage exceeds the total limit of containers 10Gi. ",
    ),
    Fault.NODE_SHUTDOWN: (
        "Terminated",
        "Pod was terminated in response to imminent node shutdown.",
    ),
    Fault.PREEMPTED_BY_KUBELET: (
        "Preempting",
        "Preempted in order to admit critical pod",
    ),
    Fault.OUT_OF_CPU: (
        "OutOfcpu",
        "Pod was rejected: Node didn't have enough resource: cpu",
    ),
    Fault.UNEXPECTED_ADMISSION: (
        "UnexpectedAdmissionError",
        "Pod was rejected: Allocate failed due to no healthy devices present, which is unexpected",
    ),
    Fault.NODE_AFFINITY: (
        "NodeAffinity",
        "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's selector",
    ),
}


def annotated_fault(pod: dict[str, Any]) -> Fault | None:
    """Give the fault a pod's annotation names, None without one. Raises ValueError if unknown."""
    name = pod["metadata"].get("annotations", {}).get(FAULT_ANNOTATION)
    return Fault(name) if name else None
