"""Deletes every object version of a bucket, in batches, page by page, and counts them.

Deletes no bucket and checks no owner: its caller has done that. Names of objects are in no message:
file names may be personal.
"""

import asyncio
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from pyvatti.errors import Denied, PyvattiError, Unavailable, Undeletable
from pyvatti.storage.answers import MEANS_WAIT, Refusal, read_refusal
from pyvatti.storage.calls import Calls, jittered
from pyvatti.storage.objects import list_objects

BATCH = 100  # calls in one batch, at most what the server takes
ROUNDS = 5  # full listings before a bucket that is never empty is left for later
HOLD = re.compile(r"under active [\w -]{1,30} hold")


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One generation of one object; `size` in bytes."""

    name: str
    generation: int
    size: int


@dataclass(slots=True)
class Tally:
    """What was deleted so far; `size` in bytes. Lost answers stay unsure until a listing speaks."""

    objects: int = 0
    size: int = 0
    unsure: set[Version] = field(default_factory=set)

    def gone(self, version: Version) -> None:
        """Count one version that this process deleted."""
        self.unsure.discard(version)
        self.objects += 1
        self.size += version.size

    def settle(self) -> None:
        """Count the unsure ones: they were asked to go and are not listed any more."""
        for version in list(self.unsure):
            self.gone(version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One answer inside a batch; `refusal` is None where it is not in Cloud Storage's form."""

    status: int
    is_done: bool
    refusal: Refusal | None


class Emptier:
    """Empties buckets."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._timeout = calls.timeout

    async def empty(self, bucket: str, tally: Tally, prefix: str = "") -> bool:
        """Delete what begins with `prefix` until a listing of all versions is empty; count it.

        Gives False if the bucket itself is missing. Raises Undeletable if something is held
        fast, after all else is gone; Unavailable if the server fails or somebody keeps writing.
        """
        for _ in range(ROUNDS):
            found = await self._pass(bucket, tally, prefix)
            if not found:
                tally.settle()
                return found is not None
        raise Unavailable(f"bucket {bucket}: somebody keeps writing into it")

    async def kept_until(self, bucket: str) -> datetime | None:
        """Give until when the last deleted object can be restored, None if there is none.

        Cloud Storage tells only while soft delete is on.
        """
        kept = list_objects(
            self._calls, bucket, _read_kept, items="hardDeleteTime", soft_deleted=True
        )
        times = [moment async for page in kept for moment in page or ()]
        return max(times, default=None)

    async def _pass(self, bucket: str, tally: Tally, prefix: str) -> int | None:
        """Delete all that one listing shows and give its length; None if the bucket is missing."""
        found = 0
        stuck: Counter[str] = Counter()
        listed = list_objects(
            self._calls,
            bucket,
            _read_version,
            items="name,generation,size",
            prefix=prefix,
            versions=True,
        )
        async for versions in listed:
            if versions is None:
                return None
            found += len(versions)
            stuck += await self._delete(bucket, versions, tally)
        if stuck:
            reasons = ", ".join(f"{count} for {why}" for why, count in sorted(stuck.items()))
            raise Undeletable(
                f"bucket {bucket}: {stuck.total()} objects cannot be deleted: {reasons}"
            )
        return found

    async def _delete(self, bucket: str, versions: list[Version], tally: Tally) -> Counter[str]:
        """Delete one page in batches side by side; count what is held fast, by reason."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    self._delete_batch(bucket, versions[start : start + BATCH], tally)
                )
                for start in range(0, len(versions), BATCH)
            ]
        stuck: Counter[str] = Counter()
        failure: PyvattiError | None = None
        for task in tasks:
            held, failed = task.result()
            stuck += held
            failure = failed or failure
        if failure:  # a failing server matters more than an object under a hold
            raise failure
        return stuck

    async def _delete_batch(
        self, bucket: str, versions: list[Version], tally: Tally
    ) -> tuple[Counter[str], PyvattiError | None]:
        """Delete up to 100 versions, failed ones again; give what is held fast and the failure."""
        left = versions
        stuck: Counter[str] = Counter()
        failure: PyvattiError | None = None
        for pause in (*self._calls.pauses, 0.0):
            try:
                delete = partial(_delete_all, bucket=bucket, versions=left, timeout=self._timeout)
                parts = await self._calls.run(f"delete objects of {bucket}", delete, bucket=bucket)
            except PyvattiError as exc:
                failure = exc
                tally.unsure.update(left)
            else:
                left, failure = _settle(bucket, left, parts, tally, stuck)
            if not left or not isinstance(failure, Unavailable) or isinstance(failure, Denied):
                break
            await asyncio.sleep(jittered(pause))
        return stuck, failure


def _settle(
    bucket: str, versions: list[Version], parts: list[Part], tally: Tally, stuck: Counter[str]
) -> tuple[list[Version], PyvattiError | None]:
    """Count what is gone and what is held fast; give what to try again, and the failure."""
    left: list[Version] = []
    failure: PyvattiError | None = None
    for version, part in zip(versions, parts, strict=True):
        is_missing = part.refusal is not None and part.status == 404
        if is_missing and version not in tally.unsure:
            continue  # somebody else was faster
        if part.is_done or is_missing:
            tally.gone(version)
        elif part.refusal is None or part.status in (401, 409):
            left.append(version)
            tally.unsure.add(version)
            failure = (Denied if part.status in (401, 407) else Unavailable)(
                f"bucket {bucket}: object not deleted: {part.status}"
            )
        else:
            stuck[_why(part.refusal)] += 1
    return left, failure


def _why(refusal: Refusal) -> str:
    """Name in a word what holds an object fast.

    For a hold Cloud Storage gives the reason of a missing permission; only the message differs.
    """
    if refusal.reason == "objectUnderActiveHold" or HOLD.search(refusal.message):
        return "hold"
    return "retention" if refusal.reason == "retentionPolicyNotMet" else refusal.reason


def _read_version(row: dict[str, Any]) -> Version:
    return Version(
        name=str(row["name"]),
        generation=int(row["generation"]),  # without it a delete only hides the object
        size=int(row.get("size") or 0),
    )


def _read_kept(row: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(row["hardDeleteTime"])


def _delete_all(
    client: Any, *, bucket: str, versions: list[Version], timeout: tuple[float, float]
) -> list[Part]:
    """Send one batch; give the answer of each part, in order."""
    place = client.bucket(bucket)
    with client.batch(raise_exception=False) as batch:
        for version in versions:
            place.delete_blob(
                version.name, generation=version.generation, timeout=timeout, retry=None
            )
    return [
        _read_part(answer)
        for answer in batch._responses  # noqa: SLF001 - the client gives them in no other way
    ]


def _read_part(answer: Any) -> Part:
    content_type, content = answer.headers.get("Content-Type") or "", answer.content
    return Part(
        status=answer.status_code,
        is_done=answer.status_code == 204 and not content.strip(),
        refusal=read_refusal(answer.status_code, content_type, content)
        if answer.status_code not in MEANS_WAIT
        else None,
    )
