"""The admission steps of a create: namespace, service account, Pod Security, quota.

No syntax checks (see `strategy`) and no permissions (see `access`).
"""

from typing import TYPE_CHECKING, Any

from pyvatti.sandbox.kube import podsecurity, quota
from pyvatti.sandbox.kube.errors import ApiError, forbidden, not_found
from pyvatti.sandbox.kube.resources import JOBS, NAMESPACES, PODS, SERVICEACCOUNTS, Resource

if TYPE_CHECKING:
    from pyvatti.sandbox.kube.store import Store

Body = dict[str, Any]


def admit(store: "Store", resource: Resource, namespace: str, body: Body) -> None:
    """Let a new object in. Raises ApiError 403, or 404 for an unknown namespace."""
    if not resource.namespaced:
        return
    home = store.find(NAMESPACES, "", namespace)
    if home is None:
        raise not_found("", "namespaces", namespace)
    name = body["metadata"]["name"]
    if "deletionTimestamp" in home["metadata"]:
        raise _terminating(resource, namespace, name)
    if resource is PODS:
        _need_service_account(store, namespace, body)
        violations = podsecurity.violations(_level(home, "enforce"), body["spec"])
        if violations:
            raise forbidden("", "pods", name, f"violates {violations}")
    quota.check(store, resource, namespace, body)


def warnings(store: "Store", resource: Resource, namespace: str, body: Body) -> list[str]:
    """Give the warnings a create is answered with."""
    home = store.find(NAMESPACES, "", namespace)
    if resource is not JOBS or home is None:
        return []
    level = _level(home, "warn") or _level(home, "enforce")
    violations = podsecurity.violations(level, body["spec"]["template"]["spec"])
    return [f"would violate {violations}"] if violations else []


def _level(home: Body, mode: str) -> str:
    level: str = home["metadata"]["labels"].get(f"pod-security.kubernetes.io/{mode}", "")
    return level


def _terminating(resource: Resource, namespace: str, name: str) -> ApiError:
    error = forbidden(
        resource.group,
        resource.plural,
        name,
        f"unable to create new content in namespace {namespace} because it is being terminated",
    )
    error.details["causes"] = [
        {
            "reason": "NamespaceTerminating",
            "message": f"namespace {namespace} is being terminated",
            "field": "metadata.namespace",
        }
    ]
    return error


def _need_service_account(store: "Store", namespace: str, body: Body) -> None:
    account = body["spec"].get("serviceAccountName") or "default"
    if store.find(SERVICEACCOUNTS, namespace, account) is None:
        raise forbidden(
            "",
            "pods",
            body["metadata"]["name"],
            f"error looking up service account {namespace}/{account}: serviceaccount"
            f' "{account}" not found',
        )
