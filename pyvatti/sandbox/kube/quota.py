"""ResourceQuota: refuses what exceeds it and keeps its status.

Counts of objects, and cpu and memory of pods.
"""

from collections.abc import Iterable
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from pyvatti.sandbox.kube.errors import forbidden
from pyvatti.sandbox.kube.quantities import amount
from pyvatti.sandbox.kube.resources import PODS, RESOURCEQUOTAS, RESOURCES, Resource

if TYPE_CHECKING:
    from pyvatti.sandbox.kube.store import Store

Body = dict[str, Any]
PLAIN_COUNTS = ("pods", "secrets", "configmaps", "resourcequotas")


def check(store: "Store", resource: Resource, namespace: str, body: Body) -> None:
    """Admit a new object against every quota of its namespace. Raises ApiError 403."""
    quotas = store.list(RESOURCEQUOTAS, namespace) if store.count(RESOURCEQUOTAS) else []
    for item in quotas:
        hard = item.get("spec", {}).get("hard", {})
        asked = {name: use for name, use in usage(resource, body).items() if name in hard}
        used = _used(store, namespace, asked) if asked else {}
        over = [name for name in asked if used[name] + asked[name] > amount(hard[name])]
        if over:
            raise forbidden(
                resource.group,
                resource.plural,
                body["metadata"]["name"],
                f"exceeded quota: {item['metadata']['name']},"
                f" requested: {_join((name, asked[name]) for name in over)},"
                f" used: {_join((name, used[name]) for name in over)},"
                f" limited: {_join((name, hard[name]) for name in over)}",
            )


def refresh(store: "Store", namespace: str) -> None:
    """Write the status of the namespace's quotas."""
    if not store.count(RESOURCEQUOTAS):
        return
    for item in store.list(RESOURCEQUOTAS, namespace):
        hard = item.get("spec", {}).get("hard", {})
        used = {name: f"{use:f}" for name, use in _used(store, namespace, hard).items()}
        write = partial(_write_status, {"hard": hard, "used": used})
        store.mutate(RESOURCEQUOTAS, namespace, item["metadata"]["name"], write)


def _write_status(status: Body, quota: Body) -> None:
    quota["status"] = status


def usage(resource: Resource, body: Body) -> dict[str, Decimal]:
    """Give what one object counts for: quota name -> amount."""
    qualified = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
    counts = {f"count/{qualified}": Decimal(1)}
    if resource is PODS:
        if body.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            counts |= {"pods": Decimal(1), **_compute(body["spec"])}
    elif resource.plural in PLAIN_COUNTS:
        counts[resource.plural] = Decimal(1)
    return counts


def _compute(spec: Body) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for container in spec["containers"]:
        for kind in ("requests", "limits"):
            for name, value in container.get("resources", {}).get(kind, {}).items():
                key = f"{kind}.{name}"
                sums[key] = sums.get(key, Decimal(0)) + amount(value)
    for name in ("cpu", "memory"):
        if f"requests.{name}" in sums:
            sums[name] = sums[f"requests.{name}"]
    return sums


def _used(store: "Store", namespace: str, names: Iterable[str]) -> dict[str, Decimal]:
    totals = dict.fromkeys(names, Decimal(0))
    for resource in RESOURCES:
        for body in store.list(resource, namespace):
            for name, use in usage(resource, body).items():
                if name in totals:
                    totals[name] += use
    return totals


def _join(pairs: Iterable[tuple[str, object]]) -> str:
    return ",".join(f"{name}={value}" for name, value in pairs)
