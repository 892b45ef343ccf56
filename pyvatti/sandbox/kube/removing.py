"""DELETE of objects and collections, and evictions.

Reads the options, leaves the rest to the store.
"""

from dataclasses import dataclass
from typing import Any

from pyvatti.sandbox.kube.calls import Call, decode, delete_options
from pyvatti.sandbox.kube.changes import Version
from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.reading import match_of
from pyvatti.sandbox.kube.resources import JOBS, PODS, RESOURCEQUOTAS, SERVICEACCOUNTS
from pyvatti.sandbox.kube.store import Store, timestamp

Body = dict[str, Any]

GIVES_OBJECT = (PODS, RESOURCEQUOTAS, SERVICEACCOUNTS)
ORPHAN_WARNING = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to"
    " remove them or set propagationPolicy=Orphan to suppress this warning"
)


@dataclass(frozen=True, slots=True)
class Removed:
    """Either the object that was there, or a Status of success."""

    object: Body | None
    status: Body | None


def delete(store: Store, call: Call) -> Removed:
    """Answer a DELETE of one object."""
    options = delete_options(call)
    before = store.get(call.storage, call.namespace, call.name)
    held = store.delete(
        call.storage,
        call.namespace,
        call.name,
        propagation=options.propagation,
        uid=options.uid,
        resource_version=options.resource_version,
        grace_seconds=options.grace_seconds,
        dry_run=options.dry_run,
    )
    if call.storage is JOBS and options.propagation is None:
        call.warnings.append(ORPHAN_WARNING)
    if held is not None:
        return Removed(held, None)
    if call.storage in GIVES_OBJECT:
        return Removed(before, None)
    details = {
        "name": call.name,
        "group": call.resource.group,
        "kind": call.resource.plural,
        "uid": before["metadata"]["uid"],
    }
    details = {key: value for key, value in details.items() if value}
    return Removed(None, _success({"details": details}))


def delete_collection(store: Store, call: Call) -> list[Version]:
    """Answer a DELETE of a collection: gives what was there."""
    options, match = delete_options(call), match_of(call)
    found = [
        version
        for version in store.versions(call.storage, call.target.namespace or None)
        if match is None or match(version.body)
    ]
    for version in found:
        metadata = version.body["metadata"]
        store.delete(
            call.storage,
            metadata.get("namespace", ""),
            metadata["name"],
            propagation=options.propagation,
            grace_seconds=options.grace_seconds,
            dry_run=options.dry_run,
        )
    return found


def evict(store: Store, call: Call) -> Body:
    """Answer a POST of pods/eviction. Raises ApiError 404, 409."""
    body = decode(call.data, call.media)
    if not isinstance(body, dict) or body.get("kind") != "Eviction":
        raise ApiError(400, "expected policy/v1 Eviction")
    options = body.get("deleteOptions") or {}
    pod = store.get(PODS, call.namespace, call.name)
    preconditions = options.get("preconditions") or {}
    if call.dry_run or options.get("dryRun") == ["All"]:
        return _success({})
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastTransitionTime": timestamp(store.now()),
    }

    def mark(target: Body) -> None:
        conditions = target.setdefault("status", {}).setdefault("conditions", [])
        conditions[:] = [item for item in conditions if item["type"] != condition["type"]]
        conditions.append(condition)

    if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
        store.mutate(PODS, call.namespace, call.name, mark)
    store.delete(
        PODS,
        call.namespace,
        call.name,
        propagation=options.get("propagationPolicy"),
        uid=preconditions.get("uid"),
        grace_seconds=options.get("gracePeriodSeconds"),
    )
    return _success({})


def _success(extra: Body) -> Body:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", **extra}
