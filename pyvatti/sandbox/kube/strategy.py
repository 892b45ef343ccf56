"""Prepares and checks an object before it is written: metadata by one rule, the rest per kind.

Follows k8s.io/apiserver registry/rest/{create,update}.go. No storage, no admission.
"""

import secrets
from typing import Any

from pyvatti.sandbox.kube import defaults, immutability, kinds, releases
from pyvatti.sandbox.kube.errors import ApiError, invalid
from pyvatti.sandbox.kube.resources import (
    DEPLOYMENTS,
    DISRUPTIONBUDGETS,
    EVENTS,
    INGRESSES,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    RESOURCEQUOTAS,
    ROLEBINDINGS,
    ROLES,
    SERVICES,
    Resource,
)
from pyvatti.sandbox.kube.syntax import (
    Causes,
    check_label_name,
    check_metadata,
    check_prefix,
    check_segment,
    check_subdomain,
)

Body = dict[str, Any]

SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
WITH_GENERATION = (JOBS, PODS, DEPLOYMENTS, DISRUPTIONBUDGETS)
WITH_STATUS = (
    *(JOBS, PODS, NAMESPACES, NODES, RESOURCEQUOTAS),
    *(DEPLOYMENTS, DISRUPTIONBUDGETS, INGRESSES, SERVICES),
)
# core/v1 lets an Event have any name; events.k8s.io/v1 does not (see `events`)
NAME_RULES = {
    NAMESPACES: check_label_name,
    ROLES: check_segment,
    ROLEBINDINGS: check_segment,
    EVENTS: check_segment,
}
SERVER_FIELDS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def prepare_create(resource: Resource, namespace: str, body: Body, *, uid: str, now: str) -> None:
    """Write identity and defaults into a new body, in place. `now` is the creation time.

    Raises ApiError 400 (namespace differs), 422 (no name), 500 (resourceVersion given).
    """
    body["apiVersion"], body["kind"] = resource.api_version, resource.kind
    metadata = body.setdefault("metadata", {})
    if metadata.get("namespace", namespace) != namespace:
        raise ApiError(
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        )
    if metadata.get("resourceVersion"):
        # etcd3/store.go answers a plain error: code 500 without a reason
        raise ApiError(500, "resourceVersion should not be set on objects to be created", reason="")
    _name(resource, metadata)
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"):
        metadata.pop(name, None)
    metadata["uid"], metadata["creationTimestamp"] = uid, now
    if namespace:
        metadata["namespace"] = namespace
    metadata.pop("generation", None)
    if resource in WITH_GENERATION:
        metadata["generation"] = 1
    if resource in WITH_STATUS:
        body["status"] = {}
    defaults.fill(resource, body)
    releases.fill(resource, body)


def validate_create(resource: Resource, body: Body) -> None:
    """Check a prepared body. Raises ApiError 422."""
    if resource is JOBS and body["spec"].get("selector") and not body["spec"].get("manualSelector"):
        raise _invalid(
            resource, body, [("spec.selector", "Invalid value: `selector` not auto-generated")]
        )
    if resource is JOBS:
        defaults.own_pods(body)
    causes = _check_names(resource, body["metadata"])
    causes += check_metadata(body["metadata"])
    causes += kinds.check(resource, body) + releases.check(resource, body)
    if causes:
        raise _invalid(resource, body, causes)


def prepare_update(resource: Resource, new: Body, old: Body, subresource: str) -> None:
    """Keep what an update may not write, in place, and check the rest.

    Raises ApiError 400 (name or namespace differ), 422 (invalid or immutable).
    """
    new["apiVersion"], new["kind"] = old["apiVersion"], old["kind"]
    metadata, before = new.setdefault("metadata", {}), old["metadata"]
    for name in ("name", "namespace"):
        if metadata.setdefault(name, before.get(name, "")) != before.get(name, ""):
            raise ApiError(
                400,
                f"the {name} of the object ({metadata[name]}) does not match the {name} on"
                f" the URL ({before.get(name, '')})",
            )
    if not metadata["namespace"]:
        del metadata["namespace"]
    causes: Causes = []
    if metadata.get("uid", before["uid"]) != before["uid"]:
        causes.append(("metadata.uid", f'Invalid value: "{metadata["uid"]}": field is immutable'))
    _keep_server_fields(metadata, before)
    separate_status(resource, new, old, subresource)
    if new == old:
        return
    causes += _check_finalizers(metadata, before) + check_metadata(metadata)
    if subresource != "status":
        defaults.refill(resource, new)
        releases.fill(resource, new, old)
        causes += kinds.check(resource, new) + immutability.check(resource, new, old)
        causes += releases.check(resource, new, old)
    if causes:
        raise _invalid(resource, old, causes)


def is_new_generation(resource: Resource, new: Body, old: Body) -> bool:
    """Whether an update changes what is wanted, and so counts a generation."""
    return resource in WITH_GENERATION and new.get("spec") != old.get("spec")


def _name(resource: Resource, metadata: Body) -> None:
    if metadata.get("name"):
        return
    if not metadata.get("generateName"):
        raise invalid(
            resource.group,
            resource.kind,
            "",
            [("metadata.name", "Required value: name or generateName is required")],
        )
    suffix = "".join(secrets.choice(SUFFIX_ALPHABET) for _ in range(5))
    metadata["name"] = metadata["generateName"][:58] + suffix


def _check_names(resource: Resource, metadata: Body) -> Causes:
    """Check what was given and what became of it: a bad prefix is refused whatever follows."""
    check = NAME_RULES.get(resource, check_subdomain)
    causes = check_prefix(check, "metadata.generateName", metadata.get("generateName", ""))
    return causes + check("metadata.name", metadata["name"])


def _keep_server_fields(metadata: Body, before: Body) -> None:
    for name in (*SERVER_FIELDS, "generation", "generateName", "selfLink"):
        if name in before:
            metadata[name] = before[name]
        else:
            metadata.pop(name, None)
    for name in ("labels", "annotations", "finalizers", "ownerReferences", "managedFields"):
        if not metadata.get(name, True):
            del metadata[name]


def separate_status(resource: Resource, new: Body, old: Body, subresource: str) -> None:
    """Let an update of the object keep its status, one of the status all else, in place."""
    if subresource == "status":
        kept = {name: old[name] for name in old if name not in ("metadata", "status")}
        written = {name: new[name] for name in ("metadata", "status") if name in new}
        new.clear()
        new.update(kept | written)
    elif resource in WITH_STATUS:
        new["status"] = old.get("status", {})
    if resource is NAMESPACES and subresource != "finalize":
        new["spec"] = old["spec"]  # its finalizers are the namespace controller's


def _check_finalizers(metadata: Body, before: Body) -> Causes:
    added = [
        item for item in metadata.get("finalizers", []) if item not in before.get("finalizers", [])
    ]
    if "deletionTimestamp" not in before or not added:
        return []
    return [
        (
            "metadata.finalizers",
            (
                "Forbidden: no new finalizers can be added if the object is being deleted, found"
                f" new finalizers {added}"
            ),
        )
    ]


def _invalid(resource: Resource, body: Body, causes: Causes) -> ApiError:
    return invalid(resource.group, resource.kind, body["metadata"]["name"], causes)
