"""The namespace controller: empties a dying namespace in order and lets it go.

Pods first, everything else once no pod is left (ordered deletion, KEP-5080, since Kubernetes 1.33);
before that, everything at once. Sees the cluster through the store only.
"""

import asyncio
from contextlib import suppress
from typing import Any

from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.resources import EVENTS_V1, LEASES, NAMESPACES, PODS, RESOURCES, Resource
from pyvatti.sandbox.kube.store import Store, timestamp

Body = dict[str, Any]

CONTENTS = tuple(item for item in RESOURCES if item.namespaced and item not in (PODS, EVENTS_V1))


class NamespaceController:
    """Works on namespaces that are being deleted. `delay` (seconds) lies between two looks.

    Where it is not `ordered`, it takes Leases first: the real one's order is any.
    """

    def __init__(self, store: Store, *, delay: float = 0.05, ordered: bool = True) -> None:
        self._store = store
        self._ordered = ordered
        self._delay = delay
        self._dying: set[str] = set()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Empty dying namespaces until cancelled."""
        unsubscribe = self._store.subscribe(self._observe)
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await asyncio.sleep(self._delay)
                for name in sorted(self._dying):
                    self._attend(name)
        finally:
            unsubscribe()

    def _observe(self, type_: str, resource: Resource, new: Body, _old: Body | None) -> None:
        metadata = new["metadata"]
        if resource is NAMESPACES and "deletionTimestamp" in metadata:
            self._dying.add(metadata["name"])
            self._wake.set()
        elif self._dying and metadata.get("namespace") in self._dying:
            self._wake.set()
        if resource is NAMESPACES and type_ == "DELETED":
            self._dying.discard(metadata["name"])

    def _attend(self, name: str) -> None:
        self._delete_all((PODS,) if self._ordered else (LEASES, PODS), name)
        if not self._ordered or not self._store.list(PODS, name):
            self._delete_all(CONTENTS, name)
        rest = [body for item in (PODS, *CONTENTS) for body in self._store.list(item, name)]
        if rest:
            self._explain(name, rest)
            return

        def release(body: Body) -> None:
            body["spec"]["finalizers"] = []

        self._store.mutate(NAMESPACES, "", name, release)

    def _delete_all(self, resources: tuple[Resource, ...], namespace: str) -> None:
        for resource in resources:
            for body in self._store.list(resource, namespace):
                if "deletionTimestamp" in body["metadata"]:
                    continue
                with suppress(ApiError):  # gone meanwhile
                    self._store.delete(
                        resource, namespace, body["metadata"]["name"], propagation="Background"
                    )

    def _explain(self, name: str, rest: list[Body]) -> None:
        held = [body for body in rest if body["metadata"].get("finalizers")]
        conditions = [
            ("NamespaceContentRemaining", "SomeResourcesRemain", len(rest)),
            ("NamespaceFinalizersRemaining", "SomeFinalizersRemain", len(held)),
        ]
        moment = timestamp(self._store.now())

        def change(body: Body) -> None:
            known = {item["type"]: item for item in body["status"].get("conditions", [])}
            for type_, reason, count in conditions:
                status = "True" if count else "False"
                if known.get(type_, {}).get("status") != status:
                    known[type_] = {
                        "type": type_,
                        "status": status,
                        "reason": reason if count else "ContentRemoved",
                        "message": f"{count} objects remain",
                        "lastTransitionTime": moment,
                    }
            body["status"]["conditions"] = list(known.values())

        self._store.mutate(NAMESPACES, "", name, change)
