"""The stand-in node: what its pods share, what fits on it, which images it can have.

No pod's life; delays are seconds as measured on Kubernetes 1.36, divided by `speed`.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias

from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.kubelet_events import Recorder
from pyvatti.sandbox.kube.kubelet_faults import FaultSelector
from pyvatti.sandbox.kube.kubelet_runtime import Runtime
from pyvatti.sandbox.kube.logs import PodLogs
from pyvatti.sandbox.kube.quantities import amount
from pyvatti.sandbox.kube.resources import NODES
from pyvatti.sandbox.kube.store import Body, Store, timestamp

Change: TypeAlias = Callable[[Body], None]

NAME = "sandbox-node"
ADDRESS = "10.0.0.1"
CAPACITY = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": "100000"}

# Source: github.com/distribution/reference, regexp.go
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?/)?{_PART}(?:/{_PART})*"
    r"(?::[\w][\w.-]{0,127})?(?:@[A-Za-z][\w+.-]*:[0-9a-fA-F]{32,})?"
)


@dataclass(slots=True, kw_only=True)
class Node:
    """The node's surroundings, handed to every pod's worker."""

    store: Store
    logs: PodLogs
    runtime: Runtime
    faults: FaultSelector
    speed: float
    fault_after: float
    images: Collection[str]
    events: Recorder = field(init=False)
    scheduler: Recorder = field(init=False)
    controller: Recorder = field(init=False)
    _ports: int = 0

    def __post_init__(self) -> None:
        self.events = Recorder(self.store, "kubelet", NAME)
        self.scheduler = Recorder(self.store, "default-scheduler")
        self.controller = Recorder(self.store, "node-controller")

    def now(self) -> str:
        """Give the cluster's time as Kubernetes writes it."""
        return timestamp(self.store.now())

    def pod_ip(self) -> str:
        """Give the next pod address."""
        self._ports = (self._ports + 1) % 65000
        return f"10.1.{self._ports // 250}.{self._ports % 250 + 2}"

    def register(self) -> None:
        """Write the Node object unless it is there."""
        now = self.now()
        body: Body = {
            "metadata": {
                "name": NAME,
                "labels": {
                    "kubernetes.io/hostname": NAME,
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": "amd64",
                },
            }
        }
        try:
            self.store.create(NODES, "", body)
        except ApiError:
            return
        ready = {
            "type": "Ready", "status": "True", "reason": "KubeletReady",
            "message": "kubelet is posting ready status",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }  # fmt: skip
        status = {
            "capacity": CAPACITY,
            "allocatable": CAPACITY,
            "addresses": [{"type": "InternalIP", "address": ADDRESS}],
            "conditions": [ready],
        }
        self.store.mutate(NODES, "", NAME, lambda node: node.update(status=status))

    def misfit(self, pod: Body) -> str:
        """Say why a pod cannot be placed, empty if it can. Other pods take no room."""
        node = self.store.find(NODES, "", NAME)
        if node is None:
            return "no nodes available to schedule pods"
        labels = node["metadata"].get("labels", {})
        selector = pod["spec"].get("nodeSelector", {})
        if any(labels.get(key) != value for key, value in selector.items()):
            return _unavailable("node(s) didn't match Pod's node affinity/selector")
        room = node.get("status", {}).get("allocatable", CAPACITY)
        for resource in ("cpu", "memory", "ephemeral-storage"):
            if _requested(pod, resource) > amount(room[resource]):
                return _unavailable(f"Insufficient {resource}")
        return ""

    def image_error(self, container: Body) -> str:
        """Give the waiting reason an image leads to by its name, empty if it can be had.

        Hosts below `.invalid` do not exist (RFC 2606); nothing is preloaded but `images`.
        """
        image = container["image"]
        if not _IMAGE.fullmatch(image):
            return "InvalidImageName"
        if image in self.images:
            return ""
        if container.get("imagePullPolicy") == "Never":
            return "ErrImageNeverPull"
        host = image.split("/")[0].split(":")[0]
        return "ErrImagePull" if "/" in image and host.endswith(".invalid") else ""


def _requested(pod: Body, resource: str) -> Decimal:
    def sizes(containers: list[Body]) -> list[Decimal]:
        requests = [item.get("resources", {}).get("requests", {}) for item in containers]
        return [amount(request.get(resource, "0")) for request in requests]

    spec = pod["spec"]
    return max([sum(sizes(spec["containers"]), Decimal(0)), *sizes(spec.get("initContainers", []))])


def _unavailable(why: str) -> str:
    return (
        f"0/1 nodes are available: 1 {why}. preemption: 0/1 nodes are available:"
        " 1 Preemption is not helpful for scheduling."
    )
