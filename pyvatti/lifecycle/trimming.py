"""What is kept in memory of Jobs and Pods, and what a patch makes of it. PURE."""

from pyvatti import labels
from pyvatti.models import Manifest

POD_METADATA = (
    "name",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "finalizers",
    "labels",
    "ownerReferences",
)
POD_LABELS = (  # they say whose it is
    labels.MANAGED_BY,
    labels.INSTANCE,
    labels.NAMESPACE_UID,
    labels.JOB_ID,
    labels.CONTROLLER_UID,
)


def merge(target: Manifest, patch: Manifest) -> Manifest:
    """Apply a JSON merge patch (RFC 7396)."""
    merged = {key: value for key, value in target.items() if patch.get(key, value) is not None}
    for key, value in patch.items():
        if isinstance(value, dict):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, dict) else {}, value)
        elif value is not None:
            merged[key] = value
    return merged


def slim_job(raw: Manifest) -> Manifest:
    """Drop what no reader needs: the pod's template is most of a Job's size."""
    return {**raw, "spec": {"suspend": (raw.get("spec") or {}).get("suspend", False)}}


def slim_pod(raw: Manifest) -> Manifest:
    """Drop what no reader needs: a specification, and what controllers and nodes say at length."""
    status = raw.get("status") or {}
    kept = {key: status[key] for key in ("phase", "reason", "message") if key in status}
    for key in ("initContainerStatuses", "containerStatuses"):
        states = status.get(key) or ()
        kept[key] = [{"name": item["name"], "state": item.get("state")} for item in states]
    told = ("PodScheduled", "Ready", "ContainersReady", "DisruptionTarget")
    kept["conditions"] = [item for item in status.get("conditions") or () if item["type"] in told]
    metadata = {key: raw["metadata"][key] for key in POD_METADATA if key in raw["metadata"]}
    found = metadata.get("labels") or {}
    metadata["labels"] = {key: found[key] for key in POD_LABELS if key in found}
    return {"metadata": metadata, "status": kept}
