"""What the stand-in keeps: buckets, object versions, unfinished uploads, what was soft-deleted.

No paths, no JSON bodies, no sockets.
"""

import base64
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import google_crc32c

from pyvatti.sandbox.storage.wire import ApiError, Json, not_found, rfc3339


@dataclass(slots=True, eq=False)
class Version:
    """One generation of one object. `properties` are fields a caller may set, holds among them."""

    name: str
    generation: int
    data: bytes
    created: datetime
    properties: Json = field(default_factory=dict)
    metageneration: int = 1
    noncurrent_since: datetime | None = None

    @property
    def md5(self) -> str:
        """Give the base64 of the MD5 digest."""
        digest = hashlib.md5(self.data, usedforsecurity=False).digest()
        return base64.b64encode(digest).decode()

    @property
    def crc32c(self) -> str:
        """Give the base64 of the CRC32C, which the client verifies."""
        return base64.b64encode(google_crc32c.value(self.data).to_bytes(4, "big")).decode()


@dataclass(slots=True, eq=False)
class Upload:
    """An unfinished upload: parts of an XML multipart one (listed, kept for ever), or a session."""

    id: str
    bucket: str
    name: str
    created: datetime
    properties: Json = field(default_factory=dict)
    parts: dict[int, bytes] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)


@dataclass(slots=True, eq=False)
class Bucket:
    """A bucket with all its objects; `properties` as in the JSON API, `objects` the live ones.

    `grants` are permissions that the bucket of another project gives to the caller.
    """

    name: str
    project: str
    created: datetime
    properties: Json
    metageneration: int = 1
    objects: dict[str, Version] = field(default_factory=dict)
    noncurrent: list[Version] = field(default_factory=list)
    uploads: dict[str, Upload] = field(default_factory=dict)
    updated: datetime | None = None
    grants: frozenset[str] = frozenset()

    @property
    def labels(self) -> dict[str, str]:
        """Give its labels."""
        labels: dict[str, str] = self.properties.get("labels", {})
        return labels

    @property
    def is_versioned(self) -> bool:
        """Whether a deleted or overwritten object stays as a noncurrent version."""
        return bool(self.properties.get("versioning", {}).get("enabled"))

    @property
    def soft_delete(self) -> timedelta:
        """How long deleted things are kept."""
        seconds = self.properties.get("softDeletePolicy", {}).get("retentionDurationSeconds", 0)
        return timedelta(seconds=int(seconds))

    @property
    def versions(self) -> list[Version]:
        """Give all versions by name and generation."""
        everything = (*self.objects.values(), *self.noncurrent)
        return sorted(everything, key=lambda version: (version.name, version.generation))


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftDeleted:
    """Something deleted that can still be restored until `until`; a bucket as it was then."""

    kind: Literal["bucket", "object", "upload"]
    bucket: str
    name: str = ""
    generation: int = 0
    until: datetime
    whole: Bucket | None = field(default=None, compare=False, repr=False)


class State:
    """Everything the stand-in remembers, and the knobs that tests turn.

    denied: permissions that are missing, such as `storage.buckets.get`.
    organisation_policy: properties of a bucket that a request must ask for, or is refused.
    made_otherwise: properties that a new bucket has, whatever was asked for.
    unreachable: buckets a list leaves out and reports. late_writes: how often somebody writes
    into a bucket just before it is deleted.
    """

    def __init__(self, project: str, now: Callable[[], datetime]) -> None:
        self.project = project
        self.now = now
        self.buckets: dict[str, Bucket] = {}
        self.sessions: dict[str, Upload] = {}
        self.soft_deleted: list[SoftDeleted] = []
        self.denied: set[str] = set()
        self.organisation_policy: Json = {}
        self.made_otherwise: Json = {}
        self.unreachable: list[str] = []
        self.late_writes: Counter[str] = Counter()
        self._numbers = itertools.count(1_700_000_000_000_000)

    def number(self) -> int:
        """Give a new number: generations and upload ids grow for ever."""
        return next(self._numbers)

    def require(self, permission: str, resource: str) -> None:
        """Raise 403 if the permission is missing."""
        if permission in self.denied:
            raise forbidden(permission, resource)

    def bucket(self, name: str, permission: str) -> Bucket:
        """Find a bucket. Raises 404, and 403 for that of another project."""
        bucket = self.buckets.get(name)
        if bucket is None:
            raise not_found("The specified bucket does not exist.")
        if bucket.project != self.project:
            if permission not in bucket.grants:
                raise forbidden(permission, name)
            return bucket
        self.require(permission, name)
        return bucket

    def put(self, bucket: Bucket, name: str, data: bytes, properties: Json) -> Version:
        """Write an object; what it replaces becomes noncurrent or is deleted."""
        old = bucket.objects.get(name)
        if old is not None:
            self.remove(bucket, old, keep_version=True)
        if bucket.properties.get("defaultEventBasedHold"):
            properties = {"eventBasedHold": True} | properties
        new = Version(name, self.number(), data, self.now(), properties)
        bucket.objects[name] = new
        return new

    def remove(self, bucket: Bucket, version: Version, *, keep_version: bool) -> None:
        """Delete one version; `keep_version` leaves it as noncurrent where versioning is on.

        Raises 403 for what is held or retained.
        """
        self.require_unheld(bucket, version)
        if version is bucket.objects.get(version.name):
            del bucket.objects[version.name]
            if keep_version and bucket.is_versioned:
                version.noncurrent_since = self.now()
                bucket.noncurrent.append(version)
                return
        else:
            bucket.noncurrent.remove(version)
        self._keep(bucket, "object", version.name, version.generation)

    def drop_bucket(self, bucket: Bucket) -> None:
        """Delete an empty bucket with its unfinished uploads. Raises 409 if it is not empty."""
        if self.late_writes[bucket.name] > 0:
            self.late_writes[bucket.name] -= 1
            self.put(bucket, "late", b"late", {})
        if bucket.objects or bucket.noncurrent:
            raise ApiError(409, "conflict", "The bucket you tried to delete is not empty.")
        del self.buckets[bucket.name]
        for upload in bucket.uploads.values():
            self._keep(bucket, "upload", upload.name)
        self._keep(bucket, "bucket")

    def require_unheld(self, bucket: Bucket, version: Version) -> None:
        """Raise 403 while a hold or a retention protects the version.

        For a hold the service gives the reason of a missing permission; only the text differs.
        """
        what = f"Object '{bucket.name}/{version.name}' is"
        never = "cannot be deleted, overwritten or archived until"
        for key, kind in (("temporaryHold", "Temporary"), ("eventBasedHold", "Event-Based")):
            if version.properties.get(key):
                message = f"{what} under active {kind} hold and {never} hold is removed."
                raise ApiError(403, "forbidden", message)
        period = int(bucket.properties.get("retentionPolicy", {}).get("retentionPeriod", 0))
        until = version.created + timedelta(seconds=period)
        if own := version.properties.get("retention"):
            until = max(until, datetime.fromisoformat(own["retainUntilTime"]))
        if until > self.now():
            message = f"{what} subject to a retention policy and {never} {rfc3339(until)}"
            raise ApiError(403, "retentionPolicyNotMet", message)

    def recoverable(self) -> list[str]:
        """Name everything deleted that can still be restored."""
        return [_spell(kept) for kept in self.soft_deleted]

    def leftovers(self) -> list[str]:
        """Name everything of the project that is still there, what is soft-deleted included."""
        ours = [bucket for bucket in self.buckets.values() if bucket.project == self.project]
        return [
            *itertools.chain.from_iterable(map(_contents, ours)),
            *self.recoverable(),
        ]

    def _keep(
        self,
        bucket: Bucket,
        kind: Literal["bucket", "object", "upload"],
        name: str = "",
        generation: int = 0,
    ) -> None:
        if bucket.soft_delete:
            until = self.now() + bucket.soft_delete
            kept = SoftDeleted(
                kind=kind,
                bucket=bucket.name,
                name=name,
                generation=generation,
                until=until,
                whole=bucket if kind == "bucket" else None,
            )
            self.soft_deleted.append(kept)


def forbidden(permission: str, resource: str) -> ApiError:
    """Give the 403 of a missing permission, which is also that of somebody else's bucket."""
    return ApiError(
        403,
        "forbidden",
        f"The caller does not have {permission} access to {resource}. "
        f"Permission '{permission}' denied on resource (or it may not exist).",
    )


def new_upload(state: State, bucket: Bucket, name: str, properties: Json) -> Upload:
    """Begin an upload; where it is kept is the caller's choice."""
    return Upload(f"upload-{state.number()}", bucket.name, name, state.now(), properties)


def _contents(bucket: Bucket) -> Iterator[str]:
    yield f"bucket {bucket.name}"
    for version in bucket.versions:
        kind = "noncurrent object" if version.noncurrent_since else "object"
        yield f"{kind} {bucket.name}/{version.name}"
    for upload in bucket.uploads.values():
        yield f"unfinished upload {bucket.name}/{upload.name}"


def _spell(kept: SoftDeleted) -> str:
    path = f"{kept.bucket}/{kept.name}" if kept.name else kept.bucket
    return f"soft-deleted {kept.kind} {path} until {rfc3339(kept.until)}"
