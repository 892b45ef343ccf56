"""PURE: writes pod status as the kubelet does: conditions, container states, phase.

No clock and no store: moments are arguments, bodies are changed in place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]

INIT, MAIN = "initContainerStatuses", "containerStatuses"
EPOCH = "1970-01-01T00:00:00Z"  # startedAt of a container that never started
LOG_LINES, LOG_BYTES, MESSAGE_BYTES = 80, 2048, 4096  # of a termination message


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a container ended. Times as Kubernetes writes them (UTC, whole seconds)."""

    code: int
    reason: str
    started: str
    finished: str
    message: str = ""


def set_condition(
    status: Body, kind: str, value: str, now: str, *, reason: str = "", message: str = ""
) -> None:
    """Write a condition; its transition time moves only with its value."""
    conditions = status.setdefault("conditions", [])
    old = next((item for item in conditions if item["type"] == kind), None)
    moved = old is None or old["status"] != value
    new: Body = {"type": kind, "status": value, "lastProbeTime": None}
    new["lastTransitionTime"] = now if moved or old is None else old["lastTransitionTime"]
    new |= {name: text for name, text in (("reason", reason), ("message", message)) if text}
    if old is None:
        conditions.append(new)
    else:
        old.clear()
        old.update(new)


def condition(pod: Body, kind: str) -> Body:
    """Give a condition of a pod, empty if it has none of this type."""
    found = (pod.get("status") or {}).get("conditions", [])
    return next((item for item in found if item["type"] == kind), {})


def begin(pod: Body, now: str, host_ip: str) -> None:
    """Write the first status of a pod on its node: every container waits."""
    status = pod["status"]
    status |= {"phase": "Pending", "hostIP": host_ip, "hostIPs": [{"ip": host_ip}]}
    status["startTime"] = now
    inits = pod["spec"].get("initContainers", [])
    reason = "PodInitializing" if inits else "ContainerCreating"
    set_condition(status, "PodReadyToStartContainers", "False", now)
    if inits:
        names = " ".join(item["name"] for item in inits)
        set_condition(
            status, "Initialized", "False", now, reason="ContainersNotInitialized",
            message=f"containers with incomplete status: [{names}]",
        )  # fmt: skip
        status[INIT] = [_waiting(item, "PodInitializing") for item in inits]
    else:
        set_condition(status, "Initialized", "True", now)
    _not_ready(pod, now, "ContainersNotReady")
    status[MAIN] = [_waiting(item, reason) for item in pod["spec"]["containers"]]


def sandbox_up(pod: Body, now: str, pod_ip: str) -> None:
    """Note that volumes are mounted and the network is there."""
    pod["status"] |= {"podIP": pod_ip, "podIPs": [{"ip": pod_ip}]}
    set_condition(pod["status"], "PodReadyToStartContainers", "True", now)


def initialized(pod: Body, now: str) -> None:
    """Note that all init containers have ended well."""
    set_condition(pod["status"], "Initialized", "True", now, reason="")


def waiting(pod: Body, kind: str, name: str, reason: str, message: str) -> None:
    """Write why a container waits."""
    state = {"reason": reason} | ({"message": message} if message else {})
    entry(pod, kind, name)["state"] = {"waiting": state}


def running(pod: Body, kind: str, name: str, now: str) -> None:
    """Write that a container runs; a main container makes the pod Running."""
    item = entry(pod, kind, name)
    item |= {
        "started": True,
        "ready": kind == MAIN,
        "imageID": f"sandbox@sha256:{'0' * 64}",
        "containerID": _container_id(pod, name),
        "state": {"running": {"startedAt": now}},
    }
    if kind == MAIN:
        pod["status"]["phase"] = "Running"
        set_condition(pod["status"], "Ready", "True", now)
        set_condition(pod["status"], "ContainersReady", "True", now)


def terminated(pod: Body, kind: str, name: str, end: Exit, now: str) -> None:
    """Write a container's end; the phase follows later."""
    item = entry(pod, kind, name)
    state: Body = {"exitCode": end.code, "reason": end.reason}
    state |= {"message": end.message} if end.message else {}
    state |= {"startedAt": end.started, "finishedAt": end.finished}
    state["containerID"] = _container_id(pod, name)
    good = end.code == 0
    item |= {"started": False, "ready": good and kind == INIT, "state": {"terminated": state}}
    item["containerID"] = state["containerID"]
    if kind == MAIN:
        _not_ready(pod, now, "PodCompleted" if good else "PodFailed")


def finished(pod: Body, phase: str, now: str) -> None:
    """Write the final phase."""
    status = pod["status"]
    status["phase"] = phase
    reason = "PodCompleted" if phase == "Succeeded" else "PodFailed"
    set_condition(status, "PodReadyToStartContainers", "False", now)
    if phase == "Succeeded":
        set_condition(status, "Initialized", "True", now, reason="PodCompleted")
    _not_ready(pod, now, reason)


def lose_containers(pod: Body, now: str) -> None:
    """Write the end of containers that never ran in a pod that is being ended.

    Source: kubernetes pkg/kubelet/status/status_manager.go, TerminatePod.
    """
    status = pod["status"]
    started = any(
        item["type"] == "Initialized" and item["status"] == "True"
        for item in status.get("conditions", [])
    )
    inits: Sequence[Body] = status.get(INIT, [])
    first = next((item for item in inits if "waiting" in item["state"]), None)
    lost = [(INIT, first)] if first else [(MAIN, item) for item in status.get(MAIN, []) if started]
    for kind, item in lost:
        if "terminated" not in item["state"]:
            end = Exit(
                code=137, reason="ContainerStatusUnknown", started=EPOCH, finished=EPOCH,
                message="The container could not be located when the pod was terminated",
            )  # fmt: skip
            terminated(pod, kind, item["name"], end, now)


def outcome(pod: Body) -> str:
    """Give the final phase that the container states add up to."""
    status = pod["status"]
    states = [item["state"] for item in [*status.get(INIT, []), *status.get(MAIN, [])]]
    good = all(state.get("terminated", {"exitCode": 1})["exitCode"] == 0 for state in states)
    return "Succeeded" if states and good else "Failed"


def entry(pod: Body, kind: str, name: str) -> Body:
    """Give the status entry of one container."""
    found: Body = next(item for item in pod["status"][kind] if item["name"] == name)
    return found


def tail(lines: Sequence[str]) -> str:
    """Give the end of a log as a termination message: at most 80 lines and 2,048 bytes."""
    text = "".join(f"{line}\n" for line in lines[-LOG_LINES:])
    return text.encode()[-LOG_BYTES:].decode(errors="ignore")


def _not_ready(pod: Body, now: str, reason: str) -> None:
    names = " ".join(item["name"] for item in pod["spec"]["containers"])
    waits = reason == "ContainersNotReady"
    message = f"containers with unready status: [{names}]" if waits else ""
    for kind in ("Ready", "ContainersReady"):
        set_condition(pod["status"], kind, "False", now, reason=reason, message=message)


def _waiting(container: Body, reason: str) -> Body:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": False,
        "started": False,
        "restartCount": 0,
        "lastState": {},
        "state": {"waiting": {"reason": reason}},
    }


def _container_id(pod: Body, name: str) -> str:
    return f"containerd://{pod['metadata']['uid'].replace('-', '')}{name.encode().hex()[:32]}"
