"""Objects with one global resourceVersion counter and a log of changes: the stand-in's etcd.

No HTTP and no clocks of controllers; what makes an object valid is in `strategy` and `admission`.
Single event loop: a call is a transaction. Bodies that are handed out are the stored ones and are
shared: never change them, use `mutate` or `clone`.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import uuid4

import orjson

from pyvatti.sandbox.kube import admission, deletion, strategy
from pyvatti.sandbox.kube.changes import Change, ChangeLog, Version
from pyvatti.sandbox.kube.errors import ApiError, already_exists, conflict, expired, not_found
from pyvatti.sandbox.kube.resources import (
    CONFIGMAPS,
    NAMESPACES,
    RESOURCES,
    SERVICEACCOUNTS,
    Resource,
)

__all__ = ["RESOURCES", "ApiError", "Body", "Resource", "Store", "clone", "timestamp"]

Body: TypeAlias = dict[str, Any]
ROOT_CA = "kube-root-ca.crt"
Key: TypeAlias = tuple[str, str]
Subscriber: TypeAlias = Callable[[str, Resource, Body, Body | None], None]


def clone(body: Body) -> Body:
    """Give a deep copy of a JSON object."""
    copy: Body = orjson.loads(orjson.dumps(body))
    return copy


def timestamp(moment: datetime) -> str:
    """Write a UTC moment as Kubernetes' Time: whole seconds and Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """Every object of the stand-in cluster.

    Events of both API groups are kept as core/v1 under `resources.EVENTS`.
    """

    def __init__(self, *namespaces: str, log_capacity: int = 20_000) -> None:
        self.offset = timedelta(0)
        self.log = ChangeLog(log_capacity)
        self._objects: dict[Resource, dict[Key, Version]] = {item: {} for item in RESOURCES}
        self._subscribers: list[Subscriber] = []
        self._undelivered: list[Change] = []
        self._delivering = False
        for name in namespaces:
            self.ensure_namespace(name)

    @property
    def resource_version(self) -> int:
        """The version of the last write."""
        return self.log.last

    def now(self) -> datetime:
        """Give the cluster's time (UTC); tests move it by `offset`."""
        return datetime.now(UTC) + self.offset

    def ensure_namespace(self, name: str) -> None:
        """Create a namespace unless it is there."""
        with suppress(ApiError):
            self.create(NAMESPACES, "", {"metadata": {"name": name}})

    def create(
        self, resource: Resource, namespace: str, body: Body, *, dry_run: bool = False
    ) -> Body:
        """Store a new object; fills in defaults, name, uid, times and version.

        Raises ApiError 403 (admission), 404 (namespace), 409 (name taken), 422 (invalid).
        """
        new = clone(body)
        strategy.prepare_create(
            resource, namespace, new, uid=str(uuid4()), now=timestamp(self.now())
        )
        admission.admit(self, resource, namespace, new)
        strategy.validate_create(resource, new)
        name = new["metadata"]["name"]
        taken = self._objects[resource].get((namespace, name))
        if taken is not None:
            dying = "deletionTimestamp" in taken.body["metadata"]
            raise already_exists(resource.group, resource.plural, name, dying=dying)
        if not dry_run:
            self._commit("ADDED", resource, (namespace, name), new)
            self._furnish(resource, name)
        return new

    def get(self, resource: Resource, namespace: str, name: str) -> Body:
        """Give one object. Raises ApiError 404."""
        return self.version(resource, namespace, name).body

    def find(self, resource: Resource, namespace: str, name: str) -> Body | None:
        """Give one object, None if absent."""
        found = self._objects[resource].get((namespace, name))
        return found.body if found else None

    def version(self, resource: Resource, namespace: str, name: str) -> Version:
        """Give the stored version of one object. Raises ApiError 404."""
        found = self._objects[resource].get((namespace, name))
        if found is None:
            raise not_found(resource.group, resource.plural, name)
        return found

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        match: Callable[[Body], bool] | None = None,
    ) -> list[Body]:
        """Give all objects of a resource, of one namespace (None: of all), in key order."""
        found = (version.body for version in self.versions(resource, namespace))
        return [body for body in found if match is None or match(body)]

    def count(self, resource: Resource) -> int:
        """Give how many objects of a resource exist."""
        return len(self._objects[resource])

    def versions(
        self, resource: Resource, namespace: str | None = None, at: int | None = None
    ) -> Sequence[Version]:
        """Give the stored versions in key order, now or as of version `at`.

        Raises ApiError 410 when `at` was compacted away.
        """
        state = self._objects[resource]
        if at is not None and at < self.log.last:
            state = self._rewind(resource, at)
        return [state[key] for key in sorted(state) if namespace is None or key[0] == namespace]

    def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Body | Callable[[Body], Body],
        *,
        subresource: str = "",
        dry_run: bool = False,
    ) -> Body:
        """Replace an object by a body, or by what `change` makes of a copy.

        Compare-and-swap when the result carries metadata.resourceVersion; nothing changed keeps
        the version. With `subresource="status"` only status and metadata count. Raises ApiError
        404, 409 (version), 422.
        """
        old = self.get(resource, namespace, name)
        new = change(clone(old)) if callable(change) else clone(change)
        self._check_version(resource, new, old)
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        strategy.prepare_update(resource, new, old, subresource)
        if new == old or dry_run:
            return new if dry_run else old
        return self._replace(resource, (namespace, name), new, old)

    def mutate(
        self, resource: Resource, namespace: str, name: str, change: Callable[[Body], None]
    ) -> Body | None:
        """Change a copy in place and write it if it differs, unchecked: for controllers in-process.

        Gives the object as it is then, None if it is (or was) gone.
        """
        old = self.find(resource, namespace, name)
        if old is None:
            return None
        new = clone(old)
        change(new)
        if new == old:
            return old
        self._replace(resource, (namespace, name), new, old)
        return self.find(resource, namespace, name)

    def delete(  # noqa: PLR0913 - one keyword per delete option
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        propagation: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
        dry_run: bool = False,
    ) -> Body | None:
        """Delete an object or mark it as dying; `propagation` None is the resource's default.

        Gives the object when a finalizer, a grace period or its contents hold it, None when it is
        gone. Raises ApiError 404, 409 (preconditions).
        """
        old = self.get(resource, namespace, name)
        self._check_preconditions(resource, old, uid, resource_version)
        new, held = deletion.mark(
            resource,
            clone(old),
            timestamp_of=self._dying_at,
            propagation=propagation,
            grace_seconds=grace_seconds,
        )
        if dry_run:
            return new if held else None
        if not held:
            self._commit("DELETED", resource, (namespace, name), clone(old))
            return None
        if new != old:
            self._commit("MODIFIED", resource, (namespace, name), new)
        return new

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back synchronously after every write, in order: type, resource, new, old.

        For DELETED `new` is the last state with the version of the deletion. Gives the function
        that ends the subscription.
        """
        self._subscribers.append(callback)

        def end() -> None:
            with suppress(ValueError):
                self._subscribers.remove(callback)

        return end

    def compact(self, upto: int | None = None) -> None:
        """Forget changes up to a version (default: all), as etcd does every five minutes."""
        self.log.compact(self.log.last if upto is None else upto)

    def _furnish(self, resource: Resource, name: str) -> None:
        """Put into a new namespace what the controller manager puts there."""
        if resource is NAMESPACES:
            self.create(SERVICEACCOUNTS, name, {"metadata": {"name": "default"}})
            bundle = {"ca.crt": "stand-in"}
            self.create(CONFIGMAPS, name, {"metadata": {"name": ROOT_CA}, "data": bundle})

    def _dying_at(self, grace_seconds: int) -> str:
        return timestamp(self.now() + timedelta(seconds=grace_seconds))

    def _replace(self, resource: Resource, key: Key, new: Body, old: Body) -> Body:
        if strategy.is_new_generation(resource, new, old):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if deletion.is_due(resource, new):
            # etcd's event of a deletion carries the state before it, finalizers included.
            self._commit("DELETED", resource, key, clone(old))
        else:
            self._commit("MODIFIED", resource, key, new)
        return new

    def _check_version(self, resource: Resource, new: Body, old: Body) -> None:
        wanted = new.setdefault("metadata", {}).get("resourceVersion")
        if wanted and wanted != old["metadata"]["resourceVersion"]:
            raise conflict(
                resource.group,
                resource.plural,
                old["metadata"]["name"],
                "the object has been modified; please apply your changes to the latest version"
                " and try again",
            )

    def _check_preconditions(
        self, resource: Resource, old: Body, uid: str | None, resource_version: str | None
    ) -> None:
        metadata = old["metadata"]
        checks = (
            ("UID", uid, metadata["uid"]),
            ("ResourceVersion", resource_version, metadata["resourceVersion"]),
        )
        for label, wanted, actual in checks:
            if wanted is not None and wanted != actual:
                raise conflict(
                    resource.group,
                    resource.plural,
                    metadata["name"],
                    f"Precondition failed: {label} in precondition: {wanted}, {label} in object"
                    f" meta: {actual}",
                )

    def _commit(self, type_: str, resource: Resource, key: Key, new: Body) -> None:
        number = self.log.last + 1
        new["metadata"]["resourceVersion"] = str(number)
        new = {"kind": resource.kind, "apiVersion": resource.api_version, **new}
        state = self._objects[resource]
        before = state.get(key)
        version = Version(new, number)
        if type_ == "DELETED":
            del state[key]
        else:
            state[key] = version
        self._undelivered.append(Change(number, type_, resource, key, version, before))
        self.log.append(self._undelivered[-1])
        self._deliver()

    def _deliver(self) -> None:
        if self._delivering:  # a subscriber wrote: its change comes after the present one
            return
        self._delivering = True
        try:
            while self._undelivered:
                change = self._undelivered.pop(0)
                old = change.old.body if change.old else None
                for callback in tuple(self._subscribers):
                    callback(change.type, change.resource, change.new.body, old)
        finally:
            self._delivering = False

    def _rewind(self, resource: Resource, at: int) -> dict[Key, Version]:
        if at < self.log.compacted:
            raise expired(at, self.log.compacted)
        state = dict(self._objects[resource])
        for change in reversed(self.log.after(resource, at)):
            if change.old is None:
                state.pop(change.key, None)
            else:
                state[change.key] = change.old
        return state
