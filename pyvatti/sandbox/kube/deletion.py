"""What a DELETE does to an object: finalizers by propagation policy, grace period, removal.

Follows k8s.io/apiserver registry/generic/registry/store.go and rest/delete.go. No storage, and no
collecting of dependents (see `collector`).
"""

from collections.abc import Callable
from typing import Any

from pyvatti.sandbox.kube.resources import JOBS, NAMESPACES, PODS, Resource

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
DEFAULT_GRACE_SECONDS = 30

Body = dict[str, Any]


def mark(
    resource: Resource,
    body: Body,
    *,
    timestamp_of: Callable[[int], str],
    propagation: str | None,
    grace_seconds: int | None,
) -> tuple[Body, bool]:
    """Mark a body as dying, in place; the flag says whether something still holds it.

    `timestamp_of` gives the deletionTimestamp for a grace period in seconds.
    """
    metadata = body["metadata"]
    metadata["finalizers"] = _finalizers(resource, metadata.get("finalizers", []), propagation)
    if not metadata["finalizers"]:
        del metadata["finalizers"]
    grace = _grace(resource, body, grace_seconds)
    held = bool(grace or metadata.get("finalizers") or _has_contents(resource, body))
    if held:
        _set_times(metadata, grace, timestamp_of)
        if resource is NAMESPACES:
            body.setdefault("status", {})["phase"] = "Terminating"
    return body, held


def is_due(resource: Resource, body: Body) -> bool:
    """Whether a dying object has lost what held it."""
    metadata = body["metadata"]
    return (
        "deletionTimestamp" in metadata
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
        and not _has_contents(resource, body)
    )


def _finalizers(resource: Resource, present: list[str], propagation: str | None) -> list[str]:
    policy = propagation or _inherited(resource, present)
    kept = [item for item in present if item not in (ORPHAN, FOREGROUND)]
    if policy == "Orphan":
        return [*kept, ORPHAN]
    return [*kept, FOREGROUND] if policy == "Foreground" else kept


def _inherited(resource: Resource, present: list[str]) -> str:
    for item in present:
        if item in (ORPHAN, FOREGROUND):
            return "Orphan" if item == ORPHAN else "Foreground"
    # batch/v1 keeps the old default of Jobs (pkg/registry/batch/job/strategy.go)
    return "Orphan" if resource is JOBS else "Background"


def _grace(resource: Resource, body: Body, asked: int | None) -> int:
    if resource is not PODS:
        return 0
    finished = body.get("status", {}).get("phase") in ("Succeeded", "Failed")
    if finished or not body["spec"].get("nodeName"):
        return 0
    given = body["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
    period = given if asked is None else asked
    return max(period, 1) if period < 0 else int(period)


def _has_contents(resource: Resource, body: Body) -> bool:
    return resource is NAMESPACES and bool(body.get("spec", {}).get("finalizers"))


def _set_times(metadata: Body, grace: int, timestamp_of: Callable[[int], str]) -> None:
    earlier = metadata.get("deletionGracePeriodSeconds")
    if "deletionTimestamp" in metadata and (earlier is None or grace >= earlier):
        return  # a later deletion may only shorten the grace period
    metadata["deletionTimestamp"] = timestamp_of(grace)
    metadata["deletionGracePeriodSeconds"] = grace
    if "generation" in metadata:
        metadata["generation"] += 1
