"""A pod as the row kubectl prints.

Follows printPod in kubernetes pkg/printers/internalversion/printers.go. Pure.
"""

from datetime import datetime
from typing import Any

from pyvatti.sandbox.kube.durations import age_of

Body = dict[str, Any]


def cells(body: Body, now: datetime) -> list[Any]:
    """Give the cells of a pod."""
    spec, status = body["spec"], body.get("status", {})
    containers = status.get("containerStatuses", [])
    ready = sum(bool(item.get("ready")) for item in containers)
    return [
        body["metadata"]["name"],
        f"{ready}/{len(spec['containers'])}",
        _status(body),
        str(sum(item.get("restartCount", 0) for item in containers)),
        age_of(body, now),
        status.get("podIP", "<none>"),
        spec.get("nodeName", "<none>"),
        "<none>",
        "<none>",
    ]


def _status(body: Body) -> str:
    status = body.get("status", {})
    reason: str = status.get("reason") or status.get("phase", "Unknown")
    started = _init_reason(body)
    reason = started or _container_reason(status.get("containerStatuses", []), reason)
    dying = "deletionTimestamp" in body["metadata"]
    if dying and status.get("phase") not in ("Succeeded", "Failed"):
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return reason


def _init_reason(body: Body) -> str:
    """Say which init container holds the pod; "" when none does."""
    statuses = body.get("status", {}).get("initContainerStatuses", [])
    total = len(body["spec"].get("initContainers", []))
    for index, item in enumerate(statuses):
        state = item.get("state", {})
        ended, waiting = state.get("terminated"), state.get("waiting", {})
        if ended and ended.get("exitCode") == 0:
            continue
        if ended:
            return f"Init:{ended.get('reason') or 'ExitCode:' + str(ended.get('exitCode'))}"
        if waiting.get("reason", "PodInitializing") != "PodInitializing":
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{total}"
    return ""


def _container_reason(statuses: list[Body], reason: str) -> str:
    has_running = False
    for item in reversed(statuses):
        state = item.get("state", {})
        waiting, ended = state.get("waiting", {}), state.get("terminated")
        if waiting.get("reason"):
            reason = waiting["reason"]
        elif ended:
            reason = ended.get("reason") or f"ExitCode:{ended.get('exitCode')}"
        elif item.get("ready") and "running" in state:
            has_running = True
    if reason == "Completed" and has_running:
        return "Running"
    return reason
