"""PURE: what a driver Pod says, read into our values; a container is found by its name."""

import re
from datetime import datetime

from pyvatti import labels
from pyvatti.jobs.reading import read_time
from pyvatti.models import ContainerEnd, Manifest, Pod

_E_MAIL = re.compile(r"[^\s/\"'=:]+@[^\s/\"']+")
MESSAGE_LIMIT = 1000  # characters of a container's last words


def read_pod(raw: Manifest) -> Pod:
    """Read a core/v1 Pod of a driver Job; a container is found by its name, never by position."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    init = _container(status.get("initContainerStatuses"), labels.INIT_CONTAINER)
    main = _container(status.get("containerStatuses"), labels.MAIN_CONTAINER)
    conditions = {item.get("type"): item for item in status.get("conditions") or ()}
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        job_uid=labels.owner_uid(raw),
        phase=status.get("phase") or "Pending",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        deleting=bool(metadata.get("deletionTimestamp")),
        created_at=read_time(metadata.get("creationTimestamp")),
        init_end=_end(init),
        main_end=_end(main),
        init_running="running" in _state(init),
        main_running="running" in _state(main),
        main_started_at=_started_at(main),
        waiting=_waiting(init) or _waiting(main),
        unschedulable=_unschedulable(conditions.get("PodScheduled")),
        disruption=_true_reason(conditions.get("DisruptionTarget")),
        finalizers=tuple(metadata.get("finalizers") or ()),
    )


def _container(statuses: list[Manifest] | None, name: str) -> Manifest:
    return next((item for item in statuses or () if item.get("name") == name), {"name": name})


def _state(container: Manifest) -> Manifest:
    return container.get("state") or {}


def _end(container: Manifest) -> ContainerEnd | None:
    ended = _state(container).get("terminated")
    if ended is None:
        return None
    return ContainerEnd(
        name=container["name"],
        exit_code=int(ended.get("exitCode") or 0),
        reason=ended.get("reason") or "",
        message=_scrub(ended.get("message") or ""),
        finished_at=read_time(ended.get("finishedAt")),
    )


def _scrub(text: str) -> str:
    """Take e-mail addresses, as in paths of guest collections, out of a log's last lines."""
    return _E_MAIL.sub("(redacted)", text[-MESSAGE_LIMIT:])


def _started_at(container: Manifest) -> datetime | None:
    state = _state(container)
    running = state.get("running") or state.get("terminated") or {}
    return read_time(running.get("startedAt"))


def _waiting(container: Manifest) -> tuple[str, str, str] | None:
    waiting = _state(container).get("waiting") or {}
    reason = waiting.get("reason") or ""
    if reason in ("", "PodInitializing", "ContainerCreating"):
        return None
    return container["name"], reason, waiting.get("message") or ""


def _unschedulable(condition: Manifest | None) -> str:
    if condition and condition.get("status") == "False":
        return condition.get("message") or condition.get("reason") or "unschedulable"
    return ""


def _true_reason(condition: Manifest | None) -> str:
    return (
        (condition.get("reason") or "") if condition and condition.get("status") == "True" else ""
    )
