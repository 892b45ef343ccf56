"""Things of other people whose names look like a job's: they must outlive everything unchanged.

Planted before a job starts, compared when it is at rest.
"""

from typing import Any

from pyvatti import labels
from pyvatti.sandbox.kube.resources import CONFIGMAPS, JOBS, PODS, SECRETS
from pyvatti.sandbox.kube.store import ApiError
from pyvatti.sandbox.world import World

OBJECT = "data/somebody-elses.vcf"
PAUSE = {"name": "main", "image": "registry.example.org/pause:1"}


class Strangers:
    """What is planted around one job's names."""

    def __init__(self, world: World, base: str) -> None:
        self._world, self._base = world, base
        self._buckets = self._plant_buckets()
        self._objects = self._plant_objects()

    def missing(self) -> list[str]:
        """Name what was deleted or changed."""
        return self._missing_buckets() + self._missing_objects()

    def remove(self) -> None:
        """Take everything away again."""
        storage, store = self._world.storage, self._world.kube.store
        for name in self._buckets:
            storage.buckets.pop(name, None)
        for kind, name in self._objects:
            try:
                store.delete(
                    kind, self._world.namespace, name, propagation="Background", grace_seconds=0
                )
            except ApiError:
                continue

    def _plant_buckets(self) -> dict[str, int]:
        storage, prefix = self._world.storage, f"{self._world.namespace}-{self._base}"
        ours = {
            labels.BUCKET_MANAGED_BY: labels.MANAGER,
            labels.BUCKET_INSTANCE: "pyvatti",
            labels.BUCKET_JOB_ID: self._base,
        }
        planted = {
            f"{prefix}": {},
            f"{prefix}-work2": {**ours, labels.BUCKET_JOB_UID: "somebody-else"},
            f"{prefix}-results-old": {**ours, labels.BUCKET_INSTANCE: "another"},
            f"{prefix}1-work": {},
            f"{prefix}-work": {**ours, labels.BUCKET_JOB_UID: "of-an-older-version"},
        }
        generations = {}
        for name, found in planted.items():
            storage.add_bucket(name, labels=found)
            generations[name] = storage.put_object(name, OBJECT, b"genome").generation
        return generations

    def _missing_buckets(self) -> list[str]:
        found = []
        for name, generation in self._buckets.items():
            bucket = self._world.storage.buckets.get(name)
            version = bucket.objects.get(OBJECT) if bucket else None
            if version is None or version.generation != generation:
                found.append(f"bucket {name}")
        return found

    def _plant_objects(self) -> dict[tuple[Any, str], str]:
        base = self._base
        named: dict[str, Any] = {"labels": {"batch.kubernetes.io/job-name": f"{base}x"}}
        pod = {"spec": {"containers": [PAUSE], "restartPolicy": "Never"}}
        job = {"spec": {"suspend": True, "template": pod}}
        planted: list[tuple[Any, str, dict[str, Any]]] = [
            (SECRETS, f"{base}-transfer2", {}),
            (SECRETS, f"{base}x", {}),
            (CONFIGMAPS, f"{base}-record2", {}),
            (JOBS, f"{base}x", job),
            (PODS, f"{base}-stranger", pod),
        ]
        uids = {}
        for kind, name, body in planted:
            whole = {**body, "metadata": {**named, "name": name}}
            made = self._world.kube.store.create(kind, self._world.namespace, whole)
            uids[kind, name] = made["metadata"]["uid"]
        return uids

    def _missing_objects(self) -> list[str]:
        found = []
        for (kind, name), uid in self._objects.items():
            body = self._world.kube.store.find(kind, self._world.namespace, name)
            metadata = body["metadata"] if body else {}
            if metadata.get("uid") != uid or "deletionTimestamp" in metadata:
                found.append(f"{kind.kind} {name}")
        return found
