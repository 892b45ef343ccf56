"""The garbage collector: deletes what its owners leave behind and finishes dying owners.

Follows kubernetes pkg/controller/garbagecollector. Sees the cluster through the store only.
"""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeAlias

from pyvatti.sandbox.kube.deletion import FOREGROUND, ORPHAN
from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.resources import BY_KIND, RESOURCES, Resource
from pyvatti.sandbox.kube.store import Store

Body = dict[str, Any]
Item: TypeAlias = tuple[Resource, str, str]  # resource, namespace, name


class Collector:
    """Keeps the graph of owners from the store's changes and works it off one by one.

    `delay` (seconds) is the time between a change and the reaction to it.
    """

    def __init__(self, store: Store, *, delay: float = 0.02) -> None:
        self._store = store
        self._delay = delay
        self._dependents: dict[str, set[Item]] = {}
        self._queue: asyncio.Queue[Item] = asyncio.Queue()
        self._queued: set[Item] = set()

    async def run(self) -> None:
        """Collect until cancelled."""
        unsubscribe = self._store.subscribe(self._observe)
        for resource in RESOURCES:
            for body in self._store.list(resource):
                self._observe("ADDED", resource, body, None)
        try:
            while True:
                item = await self._queue.get()
                if self._delay:
                    await asyncio.sleep(self._delay)
                batch = [item, *self._rest()]
                for each in batch:
                    self._queued.discard(each)
                    with suppress(ApiError):  # changed meanwhile: its change queues it again
                        self._attend(each)
        finally:
            unsubscribe()

    def _rest(self) -> Iterator[Item]:
        while not self._queue.empty():
            yield self._queue.get_nowait()

    def _enqueue(self, item: Item) -> None:
        if item not in self._queued:
            self._queued.add(item)
            self._queue.put_nowait(item)

    def _observe(self, type_: str, resource: Resource, new: Body, old: Body | None) -> None:
        item = (resource, new["metadata"].get("namespace", ""), new["metadata"]["name"])
        for owner in _owners(old):
            self._dependents.get(owner["uid"], set()).discard(item)
        for owner in _owners(new):
            if type_ != "DELETED":
                self._dependents.setdefault(owner["uid"], set()).add(item)
            self._enqueue_owner(owner, item[1])
        if type_ == "DELETED":
            self._enqueue_all(self._dependents.pop(new["metadata"]["uid"], set()))
        elif "deletionTimestamp" in new["metadata"]:
            # Dependents first: an owner that waits for none of them is let go at once.
            self._enqueue_all(self._dependents.get(new["metadata"]["uid"], set()))
            self._enqueue(item)
        elif _owners(new):
            self._enqueue(item)

    def _enqueue_all(self, items: set[Item]) -> None:
        for item in items:
            self._enqueue(item)

    def _enqueue_owner(self, owner: Body, namespace: str) -> None:
        """Look at an owner again that is dying: it may wait for this very dependent."""
        resource = BY_KIND.get((owner["apiVersion"], owner["kind"]))
        if resource is None:
            return
        item = (resource, namespace if resource.namespaced else "", owner["name"])
        found = self._store.find(*item)
        if found and "deletionTimestamp" in found["metadata"]:
            self._enqueue(item)

    def _attend(self, item: Item) -> None:
        body = self._store.find(*item)
        if body is None:
            return
        finalizers = body["metadata"].get("finalizers", [])
        if "deletionTimestamp" in body["metadata"]:
            if ORPHAN in finalizers:
                self._orphan(item, body)
            elif FOREGROUND in finalizers:
                self._finish_foreground(item, body)
            if FOREGROUND not in finalizers:
                return
        self._collect(item, body)

    def _orphan(self, item: Item, body: Body) -> None:
        uid = body["metadata"]["uid"]
        for dependent in tuple(self._dependents.get(uid, ())):
            self._drop_owners(dependent, {uid})
        self._drop_finalizer(item, ORPHAN)

    def _finish_foreground(self, item: Item, body: Body) -> None:
        uid = body["metadata"]["uid"]
        blocking = [
            dependent for dependent in self._dependents.get(uid, ()) if self._blocks(dependent, uid)
        ]
        if not blocking:
            self._drop_finalizer(item, FOREGROUND)

    def _blocks(self, dependent: Item, uid: str) -> bool:
        body = self._store.find(*dependent)
        return any(
            owner["uid"] == uid and bool(owner.get("blockOwnerDeletion")) for owner in _owners(body)
        )

    def _collect(self, item: Item, body: Body) -> None:
        """Delete an object all of whose owners are gone or wait for its end."""
        states = [(owner["uid"], self._state(owner, item[1])) for owner in _owners(body)]
        gone = {uid for uid, state in states if state != "solid"}
        if not gone:
            return
        if len(gone) < len(states):
            self._drop_owners(item, gone)
            return
        waiting = any(state == "waiting" for _, state in states)
        has_dependents = bool(self._dependents.get(body["metadata"]["uid"]))
        policy = "Foreground" if waiting and has_dependents else self._inherited(body)
        if "deletionTimestamp" in body["metadata"] and policy == "Background":
            return
        resource, namespace, name = item
        self._store.delete(
            resource, namespace, name, propagation=policy, uid=body["metadata"]["uid"]
        )

    def _inherited(self, body: Body) -> str:
        finalizers = body["metadata"].get("finalizers", [])
        if ORPHAN in finalizers:
            return "Orphan"
        return "Foreground" if FOREGROUND in finalizers else "Background"

    def _state(self, owner: Body, namespace: str) -> str:
        """Say of an owner: solid (exists), gone, or waiting (deleted in the foreground)."""
        resource = BY_KIND.get((owner["apiVersion"], owner["kind"]))
        if resource is None:
            return "solid"  # a kind that is not served cannot be looked up
        found = self._store.find(resource, namespace if resource.namespaced else "", owner["name"])
        if found is None or found["metadata"]["uid"] != owner["uid"]:
            return "gone"
        dying = "deletionTimestamp" in found["metadata"]
        return (
            "waiting"
            if dying and FOREGROUND in found["metadata"].get("finalizers", [])
            else ("solid")
        )

    def _drop_owners(self, item: Item, uids: set[str]) -> None:
        def change(body: Body) -> None:
            kept = [owner for owner in _owners(body) if owner["uid"] not in uids]
            if kept:
                body["metadata"]["ownerReferences"] = kept
            else:
                body["metadata"].pop("ownerReferences", None)

        self._store.mutate(*item, change)

    def _drop_finalizer(self, item: Item, finalizer: str) -> None:
        def change(body: Body) -> None:
            kept = [name for name in body["metadata"].get("finalizers", []) if name != finalizer]
            body["metadata"]["finalizers"] = kept
            if not kept:
                del body["metadata"]["finalizers"]

        self._store.mutate(*item, change)


def _owners(body: Body | None) -> list[Body]:
    owners: list[Body] = body["metadata"].get("ownerReferences", []) if body else []
    return owners
